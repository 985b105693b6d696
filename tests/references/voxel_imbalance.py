"""Means over voxels that weigh or choose voxels by how rare or how hard they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .entry import reference
from .reading import Array, Reading, Weight, reduce, reduce_table, weighted_mean
from .voxel import cross_entropy_voxels, log_c


@reference("balanced_cross_entropy", lambda volume, n, c: c * volume / n * (1 - volume / n) * np.log(c))
def balanced_cross_entropy(r: Reading, batch: bool, reduction: str) -> Array:
    """Xie & Tu 2015, each sample over its voxels: beta = |Y-|/|Y| on the positive voxels, 1 - beta on the others."""
    groups = [slice(None)] if batch else [slice(b, b + 1) for b in range(len(r.z))]
    sigmoid = r.activation == "sigmoid"
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
    return reduce_table(r, np.stack(rows), reduction, np.array(counted))


@reference("poly1_cross_entropy", lambda volume, n, c: np.log(c) + 1 - 1 / c, epsilon=1.0)
def poly1_cross_entropy(r: Reading, epsilon: float, weight: Weight, reduction: str) -> Array:
    """Leng 2022: -log p_t + epsilon (1 - p_t); the weight of a class multiplies both."""
    w, q = r.per_class(weight), np.exp(r.log_q)
    values = w * r.g * (epsilon * q - r.log_p)
    if r.activation == "sigmoid":
        return reduce(values + (1 - r.g) * (epsilon * r.p - r.log_q), r.valid, reduction)
    values, divisor = (x.sum(axis=1, keepdims=True) for x in (values, w * r.g))
    return weighted_mean(r, values, divisor, reduction)


@reference("bootstrapped_cross_entropy", log_c, threshold=0.7, k=10.0)
def bootstrapped_cross_entropy(r: Reading, threshold: float, k: float, reduction: str) -> Array:
    """Wu 2016: the mean over the voxels with p_t < threshold; where they are too few, the k percent of lowest p_t."""
    values = cross_entropy_voxels(r)
    values = values[np.broadcast_to(r.valid, values.shape) > 0]
    if values.size == 0:
        return np.zeros(())
    p_t = np.exp(-values)
    least = max(1, int(values.size * k / 100))
    chosen = values[p_t < threshold] if (p_t < threshold).sum() >= least else values[np.argsort(p_t)[:least]]
    return chosen.sum() if reduction == "sum" else chosen.mean()


@reference("seesaw", p=0.8, q=2.0, eps=0.01)
def seesaw(r: Reading, p: float, q: float, eps: float, reduction: str, counts: Sequence[float] | None = None) -> Array:
    """Wang 2021: cross entropy of z_j + log S_ij at a voxel of class i.

    S carries no gradient; `counts` are those before this batch.
    """
    fixed, classes = r.still, r.z.shape[1]
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
