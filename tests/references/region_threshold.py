"""Losses of a prediction that is compared with a threshold per voxel (reconstructions, see the cards)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .entry import reference
from .reading import Array, Reading
from .region import Table


def compare(r: Reading, sharpness: float, threshold: Array | None) -> Array:
    """k (p - T), the logits of b (Liao 2020)."""
    if threshold is None:
        return sharpness * (r.p - 0.5)
    z = np.where(r.valid > 0, threshold.reshape(r.valid.shape), 0.0)
    return sharpness * (r.p - 1 / (1 + np.exp(-z)))


def _b(c: int) -> float:
    return 1 / (1 + np.exp(-50 * (1 / c - 0.5)))


@reference("threshold_map_dice", lambda volume, n, c: 1 - 2 * _b(c) * volume / (_b(c) * n + volume), sharpness=50.0)
def threshold_map_dice(
    r: Reading,
    smooth_nr: float,
    smooth_dr: float,
    sharpness: float,
    threshold: Array | None = None,
    **formula_arguments: Any,
) -> Array:
    table = Table(r, **formula_arguments)
    b = 1 / (1 + np.exp(-compare(r, sharpness, threshold)))
    return table.reduce(1 - (2 * table.sum(b * r.g) + smooth_nr) / (table.sum(b) + table.sum(r.g) + smooth_dr))


@reference(
    "focal_positive", lambda volume, n, c: -((1 - _b(c)) ** 2) * np.log(_b(c)) * (volume > 0), gamma=2.0, sharpness=50.0
)
def focal_positive(
    r: Reading,
    smooth_dr: float,
    gamma: float,
    sharpness: float,
    threshold: Array | None = None,
    **formula_arguments: Any,
) -> Array:
    table = Table(r, **formula_arguments)
    z = compare(r, sharpness, threshold)
    values = np.exp(-gamma * np.logaddexp(0.0, z)) * np.logaddexp(0.0, -z) * r.g
    return table.reduce(table.sum(values) / np.maximum(table.sum(r.g) + smooth_dr, 1e-300))
