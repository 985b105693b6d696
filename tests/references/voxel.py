"""Losses that are a mean over voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .reading import Array, Reading, read, reduce


def class_factor(weight: Sequence[float] | float | None, r: Reading) -> Array:
    """(1, C, 1...) the factor of each class."""
    classes = r.p.shape[1]
    values = np.ones(classes) if weight is None else np.broadcast_to(np.asarray(weight, dtype=float), (classes,))
    return values.reshape(1, classes, *[1] * len(r.axes))


def voxel_cross_entropy(r: Reading, weight: Sequence[float] | None, smoothing: float) -> tuple[Array, Array]:
    """Softmax: -sum_c w_c q_c log p_c and the weight of the voxel, both (B, 1, *S)."""
    w = class_factor(weight, r)
    q = (1 - smoothing) * r.g + smoothing / r.p.shape[1]
    with np.errstate(invalid="ignore"):
        terms = np.where(q > 0, -w * q * r.log_p, 0.0)
    return terms.sum(axis=1, keepdims=True), (w * r.g).sum(axis=1, keepdims=True)


def binary_cross_entropy(r: Reading, weight: Sequence[float] | float | None) -> Array:
    """Per channel; the weight of a class is that of its positive term."""
    return -class_factor(weight, r) * r.g * r.log_p - (1 - r.g) * r.log_q


def cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    weight: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    weight_map: Array | None = None,
    reduction: str = "mean",
) -> Array:
    """Softmax: sum w CE / sum w (Ronneberger 2015 with a map); sigmoid: the mean binary CE of the channels."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    extra = np.ones_like(r.valid) if weight_map is None else weight_map.reshape(r.valid.shape)
    if activation == "sigmoid":
        values = binary_cross_entropy(r, weight) * extra * r.valid
        if reduction != "mean":
            return reduce(values, r.valid, reduction)
        total = (extra * r.valid).sum() * r.p.shape[1]
        return values.sum() / total if total > 0 else np.zeros(())
    values, w = voxel_cross_entropy(r, weight, label_smoothing)
    values, w = values * extra * r.valid, w * extra * r.valid
    if reduction != "mean":
        return reduce(values, r.valid, reduction)
    return values.sum() / w.sum() if w.sum() > 0 else np.zeros(())


def focal(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    include_background: bool = True,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | None = None,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    """Lin 2017; softmax: mean over the voxels that count, sigmoid: over voxels and channels."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    if not include_background and r.p.shape[1] > 1 and np.ndim(alpha) == 1:
        alpha = [0.0, *alpha]  # one value per scored class
    values = focal_values(r, gamma, alpha) * r.valid
    if not include_background and r.p.shape[1] > 1:
        values = values[:, 1:]
    if weight is not None:
        factor = np.broadcast_to(np.asarray(weight, dtype=float), (values.shape[1],))
        values = values * factor.reshape(1, -1, *[1] * len(r.axes))
    if activation != "sigmoid":
        values = values.sum(axis=1, keepdims=True)
    if reduction != "mean":
        return reduce(values, r.valid, reduction)
    return values.sum() / max(r.valid.sum() * values.shape[1], 1.0)


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


def topk_cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    k: float = 10.0,
    weight: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """The mean of the k percent largest cross entropies among the voxels (sigmoid: and channels) that count (Wu 2016)."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    if activation == "sigmoid":
        values = binary_cross_entropy(r, weight)
    else:
        values, _ = voxel_cross_entropy(r, weight, label_smoothing)
    counted = np.sort(values[np.broadcast_to(r.valid, values.shape) > 0])[::-1]
    if counted.size == 0:
        return np.zeros(())
    kept = counted[: max(1, int(counted.size * k / 100))]
    return kept.sum() if reduction == "sum" else kept.mean()


def label_smoothing_cross_entropy(*args: Any, label_smoothing: float = 0.1, **arguments: Any) -> Array:
    """Szegedy 2016."""
    return cross_entropy(*args, label_smoothing=label_smoothing, **arguments)


def weighted_cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    weight: Sequence[float] | float | None = None,
    weight_map: Array | None = None,
    normalize: str = "weights",
    reduction: str = "mean",
) -> Array:
    """Sum of w CE over the sum of w, or over the voxels (sigmoid: and channels) that count (Ronneberger 2015)."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    sent = np.ones_like(r.valid) if weight_map is None else weight_map.reshape(r.valid.shape)
    w = class_factor(weight, r)
    if activation == "sigmoid":
        values, factors = -w * r.g * r.log_p - (1 - r.g) * r.log_q, w * r.g + 1 - r.g
    else:
        values, factors = ((w * r.g * x).sum(axis=1, keepdims=True) for x in (-r.log_p, np.ones_like(r.z)))
    values, factors = values * sent * r.valid, factors * sent * r.valid
    if reduction != "mean":
        return reduce(values, r.valid, reduction)
    divisor = factors.sum() if normalize == "weights" else r.valid.sum() * values.shape[1]
    return values.sum() / divisor if divisor > 0 else np.zeros(())


def binary_cross_entropy_mean(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    pos_weight: Sequence[float] | float | None = None,
    weight_map: Array | None = None,
    reduction: str = "mean",
) -> Array:
    """Each channel against the rest, over channels and voxels."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    sent = r.valid if weight_map is None else r.valid * weight_map.reshape(r.valid.shape)
    values = binary_cross_entropy(r, pos_weight) * sent
    if reduction != "mean":
        return reduce(values, r.valid, reduction)
    return values.sum() / max(sent.sum() * values.shape[1], 1e-300)


REFERENCES: dict[str, Callable[..., Array]] = {
    "binary_cross_entropy": binary_cross_entropy_mean,
    "cross_entropy": cross_entropy,
    "focal": focal,
    "label_smoothing_cross_entropy": label_smoothing_cross_entropy,
    "topk_cross_entropy": topk_cross_entropy,
    "weighted_cross_entropy": weighted_cross_entropy,
}

# The value at the uniform prediction with softmax, p = 1/C, whatever the target.
UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "cross_entropy": lambda volume, n, c: np.log(c),
    "focal": lambda volume, n, c: (1 - 1 / c) ** 2 * np.log(c),
    "label_smoothing_cross_entropy": lambda volume, n, c: np.log(c),
    "topk_cross_entropy": lambda volume, n, c: np.log(c),
    "weighted_cross_entropy": lambda volume, n, c: np.log(c),
}
