"""Overlap losses that pool the classes of a sample into one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .reading import Array, Reading, read
from .region import table_reduce, table_sum


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


def generalized_dice_table(
    r: Reading,
    include_background: bool,
    batch: bool,
    smooth_nr: float,
    smooth_dr: float,
    w_type: str,
    soft_label: bool,
    scale_free: bool,
) -> Array:
    def total(x: Array) -> Array:
        return table_sum(r, x, include_background=include_background, batch=batch)

    p, g = total(r.p), total(r.g)
    tp = (p + g - total(np.abs(r.p - r.g))) / 2 if soft_label else total(r.p * r.g)
    w = class_weights(g, w_type, scale_free)
    score = (2 * (w * tp).sum(1) + smooth_nr) / ((w * (p + g)).sum(1) + smooth_dr)
    return (1 - score)[:, None]


def generalized_dice(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    include_background: bool = True,
    batch: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    w_type: str = "square",
    soft_label: bool = False,
    scale_free: bool = True,
    k: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """Sudre 2017; with k Yang 2019: 1 - GD / (1 + k (1 - GD)) of the coefficient GD."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    table = generalized_dice_table(r, include_background, batch, smooth_nr, smooth_dr, w_type, soft_label, scale_free)
    score = 1 - table
    return table_reduce(r, 1 - score / (1 + k * (1 - score)), None, batch, reduction)


def penalty_generalized_dice(*args: Any, k: float = 2.5, **arguments: Any) -> Array:
    return generalized_dice(*args, k=k, **arguments)


def generalized_wasserstein_dice(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    batch: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    dist_matrix: Any = None,
    weighting_mode: str = "default",
    reduction: str = "mean",
) -> Array:
    """Fidon 2017, voxel by voxel; GDL: Tilborghs 2020."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    classes = r.p.shape[1]
    m = 1 - np.eye(classes) if dist_matrix is None else np.asarray(dist_matrix, dtype=float)
    m = m / m.max()
    # distance of each voxel to each possible truth, then to the true one
    to_truth = np.einsum("lc,bc...->bl...", m, r.p)
    w = (r.g * to_truth).sum(axis=1, keepdims=True) * r.valid
    volume = table_sum(r, r.g, include_background=True, batch=batch)
    alpha = np.where(np.arange(classes) == 0, 0.0, 1.0) * np.ones_like(volume)
    if weighting_mode == "GDL":
        alpha = 1 / (volume + 1)
    hits = table_sum(r, r.g * (1 - to_truth), include_background=True, batch=batch)
    tp = (alpha * hits).sum(1, keepdims=True)
    if weighting_mode == "GDL":
        denominator = (alpha * table_sum(r, r.g * (2 - to_truth), include_background=True, batch=batch)).sum(1)[:, None]
    else:
        errors = w.sum(axis=(1, *r.axes))[:, None]
        denominator = 2 * tp + (errors.sum(0, keepdims=True) if batch else errors)
    loss = 1 - (2 * tp + smooth_nr) / (denominator + smooth_dr)
    return table_reduce(r, loss, None, batch, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {
    "generalized_dice": generalized_dice,
    "penalty_generalized_dice": penalty_generalized_dice,
    "generalized_wasserstein_dice": generalized_wasserstein_dice,
}

# Values of a sample, not of a class: see the tests of the closed forms.
UNIFORM: dict[str, Callable[[float, float, int], float]] = {}
