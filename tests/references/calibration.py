"""Calibration: errors of bins, and terms on logits that bound confidence."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compound import dice_ce
from .entry import UNIFORM, reference
from .reading import Array, Reading, Weight, reduce, reduce_table
from .voxel import cross_entropy, log_c


def shares(p: Array, bins: int, soft: bool) -> Array:
    """How much of each probability (n,) is in each bin, (bins, n)."""
    edges = np.arange(bins + 1)[:, None] / bins
    if not soft:
        inside = (edges[:-1] <= p) & (p < edges[1:])
        inside[-1] |= p >= 1
        return inside.astype(float)
    centers = (edges[:-1] + edges[1:]) / 2
    near = np.clip(1 - np.abs(np.clip(p, centers[0], centers[-1]) - centers) * bins, 0, None)
    return np.where(near < 1e-12, 0.0, near)


def ace(p: Array, g: Array, bins: int, soft: bool) -> float:
    """Of one class, over voxels (n,)."""
    if not g.sum() > 0:
        return 0.0
    w = shares(p, bins, soft)
    total = w.sum(axis=1)
    kept = total >= 0.01
    return float(np.mean(np.abs((w[kept] @ p) - (w[kept] @ g)) / total[kept]))


def uniform_ace(volume: float, n: float, c: int) -> float:
    return abs(1 / c - volume / n) if volume else 0.0


@reference("l1_ace", uniform_ace, bins=20)
def l1_ace(
    r: Reading, include_background: bool, batch: bool, weight: Weight, bins: int, soft_bins: bool, reduction: str
) -> Array:
    """Barfoot 2024, 2026: bins of a sample, or of the batch; an absent class counts 0."""
    first = r.first(include_background)
    groups = [list(range(len(r.p)))] if batch else [[b] for b in range(len(r.p))]
    table = np.zeros((len(groups), r.p.shape[1] - first))
    for row, group in enumerate(groups):
        kept = r.valid[group, 0] > 0
        for c in range(table.shape[1]):
            p, g = (x[group, first + c][kept] for x in (r.p, r.g))
            table[row, c] = ace(p, g, bins, soft_bins)
    if weight is not None:
        table = table * np.broadcast_to(np.asarray(weight, dtype=float), table.shape[1:])
    return reduce_table(r, table, reduction)


def uniform_dice_ce_ace(volume: float, n: float, c: int) -> float:
    return UNIFORM["dice_ce"](volume, n, c) + 0.1 * uniform_ace(volume, n, c)


@reference(
    "dice_ce_ace",
    uniform_dice_ce_ace,
    lambda_dice=1.0,
    lambda_ce=1.0,
    lambda_ace=0.1,
    bins=20,
    label_smoothing=0.0,
)
def dice_ce_ace(
    r: Reading, lambda_ace: float, bins: int, soft_bins: bool, weight: Weight, batch: bool, reduction: str, **rest: Any
) -> Array:
    """Barfoot 2024; the calibration error is of all classes."""
    calibration = l1_ace(
        r, include_background=True, batch=batch, weight=weight, bins=bins, soft_bins=soft_bins, reduction=reduction
    )
    return dice_ce(r, weight=weight, batch=batch, reduction=reduction, **rest) + lambda_ace * calibration


def windowed(x: Array, kernel: Array) -> Array:
    """Sums over a window along each spatial axis, nothing beyond the edge: one banded matrix per axis."""
    half = len(kernel) // 2
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        step = np.arange(n)[:, None] - np.arange(n)
        band = np.where(np.abs(step) <= half, kernel[np.clip(step + half, 0, len(kernel) - 1)], 0.0)
        x = np.moveaxis(np.tensordot(x, band, axes=(axis, 1)), -1, axis)
    return x


def penalized(r: Reading, penalty: Array, alpha: float, reduction: str) -> Array:
    """Cross-entropy plus alpha times the mean of the penalty (B, C, *S) over voxels and classes."""
    return cross_entropy(r, reduction=reduction) + alpha * reduce(penalty, r.valid, reduction)


@reference("nacl", kernel_size=3, kernel_ops="mean", distance_type="l1", alpha=0.1, sigma=1.0)
def nacl(
    r: Reading,
    kernel_size: int,
    kernel_ops: str,
    distance_type: str,
    alpha: float,
    sigma: float,
    zero_padding: bool,
    reduction: str,
) -> Array:
    """Murugesan 2023."""
    step = np.arange(kernel_size) - kernel_size // 2
    kernel = np.exp(-(step**2) / (2 * sigma**2)) if kernel_ops == "gaussian" else np.ones(kernel_size)
    kernel = kernel / kernel.sum()
    share, there = windowed(r.g, kernel), windowed(r.valid, kernel)
    if not zero_padding:
        share = share / np.where(there > 0, there, 1)
    gap = np.abs(share - r.z)
    return penalized(r, gap**2 if distance_type == "l2" else gap, alpha, reduction)


@reference("margin_cross_entropy", log_c, alpha=0.1, margin=10.0)
def margin_cross_entropy(r: Reading, alpha: float, margin: float, reduction: str) -> Array:
    """Liu 2022."""
    below = r.z.max(axis=1, keepdims=True) - r.z
    return penalized(r, np.maximum(below - margin, 0), alpha, reduction)
