"""Losses that are a mean over voxels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from .entry import reference
from .reading import Array, Reading, Weight, reduce, weighted_mean


def voxel_cross_entropy(r: Reading, weight: Weight = None, smoothing: float = 0.0) -> tuple[Array, Array]:
    """Softmax: -sum_c w_c q_c log p_c and the weight of the voxel, both (B, 1, *S)."""
    w = r.per_class(weight)
    q = (1 - smoothing) * r.g + smoothing / r.p.shape[1]
    with np.errstate(invalid="ignore"):
        terms = np.where(q > 0, -w * q * r.log_p, 0.0)
    return terms.sum(axis=1, keepdims=True), (w * r.g).sum(axis=1, keepdims=True)


def binary_cross_entropy(r: Reading, weight: Weight = None) -> Array:
    """Per channel; the weight of a class is that of its positive term."""
    return -r.per_class(weight) * r.g * r.log_p - (1 - r.g) * r.log_q


def cross_entropy_voxels(r: Reading) -> Array:
    """(B, 1 | C, *S)."""
    return binary_cross_entropy(r) if r.activation == "sigmoid" else voxel_cross_entropy(r)[0]


def sent(r: Reading, weight_map: Array | None) -> Array:
    return np.ones_like(r.valid) if weight_map is None else weight_map.reshape(r.valid.shape)


def log_c(volume: float, n: float, c: int) -> float:
    """At the uniform prediction with softmax, whatever the target."""
    return np.log(c)


@reference("cross_entropy", log_c, label_smoothing=0.0)
def cross_entropy(
    r: Reading, weight: Weight, label_smoothing: float, reduction: str, weight_map: Array | None = None
) -> Array:
    """Softmax: sum w CE / sum w (Ronneberger 2015 with a map); sigmoid: the mean binary CE of the channels."""
    extra = sent(r, weight_map)
    if r.activation == "sigmoid":
        return weighted_mean(r, binary_cross_entropy(r, weight) * extra, extra, reduction)
    values, w = voxel_cross_entropy(r, weight, label_smoothing)
    return weighted_mean(r, values * extra, w * extra, reduction)


@reference("label_smoothing_cross_entropy", log_c, kind="uniform")
def label_smoothing_cross_entropy(
    r: Reading, label_smoothing: float | None, kind: str, weight: Weight, reduction: str
) -> Array:
    """Szegedy 2016; spatial: Islam 2021, half of the label to the neighbors, by a Gaussian of their distance."""
    e = {"uniform": 0.1, "spatial": 0.5}[kind] if label_smoothing is None else label_smoothing
    if kind == "uniform":
        return cross_entropy(r, weight=weight, label_smoothing=e, reduction=reduction)
    around = np.zeros_like(r.g), np.zeros_like(r.valid)
    for step in product((-1, 0, 1), repeat=len(r.axes)):
        if any(step):
            near = np.exp(-sum(x * x for x in step) / 2)
            for total, x in zip(around, (r.g, r.valid), strict=True):
                total += near * moved(x, step)
    share = np.where(around[1] > 0, around[0] / np.where(around[1] > 0, around[1], 1), r.g)
    w, q = r.per_class(weight), (1 - e) * r.g + e * share
    with np.errstate(invalid="ignore"):
        terms = np.where(q > 0, -w * q * r.log_p, 0.0)
    return weighted_mean(r, terms.sum(axis=1, keepdims=True), (w * q).sum(axis=1, keepdims=True), reduction)


def moved(x: Array, step: tuple[int, ...]) -> Array:
    """Each voxel's neighbor at a step, 0 beyond the edge."""
    padded = np.pad(x, [(0, 0), (0, 0)] + [(1, 1)] * len(step))
    return padded[(..., *(slice(1 + s, 1 + s + n) for s, n in zip(step, x.shape[2:], strict=True)))]


@reference("focal", lambda volume, n, c: (1 - 1 / c) ** 2 * np.log(c), gamma=2.0)
def focal(
    r: Reading,
    include_background: bool,
    gamma: float,
    alpha: float | Sequence[float] | None,
    weight: Weight,
    reduction: str,
) -> Array:
    """Lin 2017; softmax: mean over the voxels that count, sigmoid: over voxels and channels."""
    first = r.first(include_background)
    if first and np.ndim(alpha) == 1:
        alpha = [0.0, *alpha]  # one value per scored class
    values = focal_values(r, gamma, alpha)[:, first:]
    if weight is not None:
        factor = np.broadcast_to(np.asarray(weight, dtype=float), (values.shape[1],))
        values = values * factor.reshape(1, -1, *[1] * len(r.axes))
    return reduce(values if r.activation == "sigmoid" else values.sum(axis=1, keepdims=True), r.valid, reduction)


def focal_values(r: Reading, gamma: float, alpha: float | Sequence[float] | None) -> Array:
    classes = r.p.shape[1]
    positive = negative = np.ones((1, classes))
    if r.activation == "sigmoid":
        if alpha is not None:
            positive = np.broadcast_to(np.asarray(alpha, dtype=float), (1, classes))
            negative = np.full((1, classes), 1.0 - alpha) if np.ndim(alpha) == 0 else negative
        shape = (1, classes, *[1] * len(r.axes))
        found = -positive.reshape(shape) * r.g * np.exp(gamma * r.log_q) * r.log_p
        return found - negative.reshape(shape) * (1 - r.g) * np.exp(gamma * r.log_p) * r.log_q
    if alpha is not None:
        positive = np.array([1 - alpha, *[alpha] * (classes - 1)]) if np.ndim(alpha) == 0 else np.asarray(alpha)
    return -positive.reshape(1, classes, *[1] * len(r.axes)) * r.g * np.exp(gamma * r.log_q) * r.log_p


@reference("topk_cross_entropy", log_c, k=10.0, label_smoothing=0.0)
def topk_cross_entropy(r: Reading, k: float, weight: Weight, label_smoothing: float, reduction: str) -> Array:
    """The mean of the k percent largest cross entropies among the voxels (sigmoid: and channels) that count (Wu 2016)."""
    if r.activation == "sigmoid":
        values = binary_cross_entropy(r, weight)
    else:
        values, _ = voxel_cross_entropy(r, weight, label_smoothing)
    counted = np.sort(values[np.broadcast_to(r.valid, values.shape) > 0])[::-1]
    if counted.size == 0:
        return np.zeros(())
    kept = counted[: max(1, int(counted.size * k / 100))]
    return kept.sum() if reduction == "sum" else kept.mean()


@reference("weighted_cross_entropy", log_c, normalize="weights")
def weighted_cross_entropy(
    r: Reading, weight: Weight, normalize: str, reduction: str, weight_map: Array | None = None
) -> Array:
    """Sum of w CE over the sum of w, or over the voxels (sigmoid: and channels) that count (Ronneberger 2015)."""
    extra, w = sent(r, weight_map), r.per_class(weight)
    if r.activation == "sigmoid":
        values, factors = binary_cross_entropy(r, weight), w * r.g + 1 - r.g
    else:
        values, factors = ((w * r.g * x).sum(axis=1, keepdims=True) for x in (-r.log_p, np.ones_like(r.z)))
    return weighted_mean(r, values * extra, factors * extra if normalize == "weights" else np.ones(()), reduction)


@reference("binary_cross_entropy")
def binary_cross_entropy_mean(r: Reading, pos_weight: Weight, reduction: str, weight_map: Array | None = None) -> Array:
    """Each channel against the rest, over channels and voxels."""
    extra = sent(r, weight_map)
    return weighted_mean(r, binary_cross_entropy(r, pos_weight) * extra, extra, reduction)
