"""Overlap losses that pool the classes of a sample into one number."""

from __future__ import annotations

from typing import Any

import numpy as np

from .entry import reference
from .reading import Array, Reading
from .region import Table


def class_weights(g: Array, w_type: str, scale_free: bool) -> Array:
    """Sudre 2017; an absent class has the largest finite weight of its row, 0 where there is none."""
    with np.errstate(divide="ignore"):
        w = {"square": 1 / g**2, "simple": 1 / g, "uniform": np.ones_like(g)}[w_type]
    for row in w:
        finite = row[np.isfinite(row)]
        top = finite.max() if finite.size else 0.0
        row[~np.isfinite(row)] = top
        if scale_free and top > 0:
            row /= top
    return w


def generalized_coefficient(
    table: Table, smooth_nr: float, smooth_dr: float, w_type: str, soft_label: bool, scale_free: bool
) -> Array:
    """Of each sample, (B | 1, 1)."""
    total, r = table.sum, table.r
    p, g = total(r.p), total(r.g)
    tp = (p + g - total(np.abs(r.p - r.g))) / 2 if soft_label else total(r.p * r.g)
    w = class_weights(g, w_type, scale_free)
    score = (2 * (w * tp).sum(1) + smooth_nr) / ((w * (p + g)).sum(1) + smooth_dr)
    return score[:, None]


@reference("generalized_dice", w_type="square", scale_free=True)
def generalized_dice(r: Reading, include_background: bool, batch: bool, reduction: str, **weighting: Any) -> Array:
    """Sudre 2017."""
    table = Table(r, include_background, batch, reduction)
    return table.reduce(1 - generalized_coefficient(table, **weighting))


@reference("penalty_generalized_dice", k=2.5, w_type="square", scale_free=True)
def penalty_generalized_dice(
    r: Reading, k: float, include_background: bool, batch: bool, reduction: str, **weighting: Any
) -> Array:
    """Yang 2019: 1 - GD / (1 + k (1 - GD))."""
    table = Table(r, include_background, batch, reduction)
    score = generalized_coefficient(table, **weighting)
    return table.reduce(1 - score / (1 + k * (1 - score)))


@reference("generalized_wasserstein_dice", weighting_mode="default")
def generalized_wasserstein_dice(
    r: Reading, batch: bool, smooth_nr: float, smooth_dr: float, dist_matrix: Any, weighting_mode: str, reduction: str
) -> Array:
    """Fidon 2017, voxel by voxel; GDL: Tilborghs 2020."""
    table = Table(r, True, batch, reduction)
    classes = r.p.shape[1]
    m = 1 - np.eye(classes) if dist_matrix is None else np.asarray(dist_matrix, dtype=float)
    m = m / m.max()
    # distance of each voxel to each possible truth, then to the true one
    to_truth = np.einsum("lc,bc...->bl...", m, r.p)
    w = (r.g * to_truth).sum(axis=1, keepdims=True) * r.valid
    volume = table.sum(r.g)
    alpha = np.where(np.arange(classes) == 0, 0.0, 1.0) * np.ones_like(volume)
    if weighting_mode == "GDL":
        alpha = 1 / (volume + 1)
    tp = (alpha * table.sum(r.g * (1 - to_truth))).sum(1, keepdims=True)
    if weighting_mode == "GDL":
        denominator = (alpha * table.sum(r.g * (2 - to_truth))).sum(1)[:, None]
    else:
        errors = w.sum(axis=(1, *r.axes))[:, None]
        denominator = 2 * tp + (errors.sum(0, keepdims=True) if batch else errors)
    return table.reduce(1 - (2 * tp + smooth_nr) / (denominator + smooth_dr))
