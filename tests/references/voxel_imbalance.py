"""Means over voxels that weigh or choose voxels by how rare or how hard they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .reading import Array, Reading, read, reduce
from .voxel import binary_cross_entropy, class_factor, voxel_cross_entropy


def balanced_cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    batch: bool = False,
    reduction: str = "mean",
) -> Array:
    """Xie & Tu 2015, each sample over its voxels: beta = |Y-|/|Y| on the positive voxels, 1 - beta on the others."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    groups = [slice(None)] if batch else [slice(b, b + 1) for b in range(len(r.z))]
    sigmoid = activation == "sigmoid"
    rows, counted = [], []
    for part in groups:
        g, valid = r.g[part], r.valid[part]
        n = valid.sum()
        share = g.sum(axis=(0, *r.axes), keepdims=True) / max(n, 1.0)  # of the voxels that belong to the class
        values = -(1 - share) * g * r.log_p[part]
        if sigmoid:
            values = values - share * (1 - g) * r.log_q[part]
        per_class = (values * valid).sum(axis=(0, *r.axes)) / max(n, 1.0)
        rows.append(per_class if sigmoid else per_class.sum(keepdims=True))
        counted.append([float(n > 0)])
    found = reduce(np.stack(rows), np.array(counted), reduction)
    return found.reshape(*found.shape, *[1] * len(r.axes)) if reduction == "none" else found


def poly1_cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    epsilon: float = 1.0,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    """Leng 2022: -log p_t + epsilon (1 - p_t); the weight of a class multiplies both."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    w = class_factor(weight, r)
    if activation == "sigmoid":
        q = np.exp(r.log_q)
        values = w * r.g * (epsilon * q - r.log_p) + (1 - r.g) * (epsilon * r.p - r.log_q)
        return reduce(values * r.valid, r.valid, reduction)
    values = (w * r.g * (epsilon * np.exp(r.log_q) - r.log_p)).sum(axis=1, keepdims=True) * r.valid
    if reduction != "mean":
        return reduce(values, r.valid, reduction)
    total = ((w * r.g).sum(axis=1, keepdims=True) * r.valid).sum()
    return values.sum() / total if total > 0 else np.zeros(())


def bootstrapped_cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    threshold: float = 0.7,
    k: float = 10.0,
    reduction: str = "mean",
) -> Array:
    """Wu 2016: the mean over the voxels with p_t < threshold; where they are too few, the k percent of lowest p_t."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    values = binary_cross_entropy(r, None) if activation == "sigmoid" else voxel_cross_entropy(r, None, 0.0)[0]
    values = values[np.broadcast_to(r.valid, values.shape) > 0]
    if values.size == 0:
        return np.zeros(())
    p_t = np.exp(-values)
    least = max(1, int(values.size * k / 100))
    chosen = values[p_t < threshold] if (p_t < threshold).sum() >= least else values[np.argsort(p_t)[:least]]
    return chosen.sum() if reduction == "sum" else chosen.mean()


def seesaw(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 1e-2,
    counts: Sequence[float] | None = None,
    at: Array | None = None,
    reduction: str = "mean",
) -> Array:
    """Wang 2021: cross entropy of z_j + log S_ij at a voxel of class i.

    `counts` are those before this batch; `at` are the logits that S is computed from, which carry no gradient.
    """

    def reading(z: Array) -> Reading:
        return read(z, target, activation, mask, labels=labels, ignore_index=ignore_index)

    r, fixed = reading(input), reading(input if at is None else at)
    classes = input.shape[1]
    seen = np.zeros(classes) if counts is None else np.asarray(counts, dtype=float)
    n = np.maximum(seen + (r.g * r.valid).sum(axis=(0, *r.axes)), 1)
    values = np.zeros_like(r.valid)
    for i in range(classes):
        pushed = np.zeros_like(values)
        for j in range(classes):
            mitigation = (n[j] / n[i]) ** p if n[j] < n[i] else 1.0
            ratio = fixed.p[:, j] / np.maximum(fixed.p[:, i], eps)
            compensation = np.where(ratio > 1, ratio, 1.0) ** q
            factor = 1.0 if i == j else mitigation * compensation
            pushed += np.exp(r.log_p[:, j : j + 1]) * np.reshape(factor, (-1, 1, *np.shape(factor)[1:]))
        values += r.g[:, i : i + 1] * (np.log(pushed) - r.log_p[:, i : i + 1])
    return reduce(values * r.valid, r.valid, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {
    "balanced_cross_entropy": balanced_cross_entropy,
    "poly1_cross_entropy": poly1_cross_entropy,
    "bootstrapped_cross_entropy": bootstrapped_cross_entropy,
    "seesaw": seesaw,
}

# The value at the uniform prediction with softmax, p = 1/C, for a class of `volume` voxels of `n`.
UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "balanced_cross_entropy": lambda volume, n, c: c * volume / n * (1 - volume / n) * np.log(c),
    "poly1_cross_entropy": lambda volume, n, c: np.log(c) + 1 - 1 / c,
    "bootstrapped_cross_entropy": lambda volume, n, c: np.log(c),
}
