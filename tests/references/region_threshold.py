"""Losses of a prediction that is compared with a threshold per voxel (reconstructions, see the cards)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .reading import Array, Reading, read
from .region import table_reduce, table_sum


def compare(r: Reading, sharpness: float, threshold: Array | None) -> Array:
    """k (p - T), the logits of b (Liao 2020)."""
    if threshold is None:
        return sharpness * (r.p - 0.5)
    z = np.where(r.valid > 0, threshold.reshape(r.valid.shape), 0.0)
    return sharpness * (r.p - 1 / (1 + np.exp(-z)))


def threshold_map_dice(
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
    sharpness: float = 50.0,
    threshold: Array | None = None,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    b = 1 / (1 + np.exp(-compare(r, sharpness, threshold)))

    def total(x: Array) -> Array:
        return table_sum(r, x, include_background=include_background, batch=batch)

    loss = 1 - (2 * total(b * r.g) + smooth_nr) / (total(b) + total(r.g) + smooth_dr)
    return table_reduce(r, loss, weight, batch, reduction)


def focal_positive(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    include_background: bool = True,
    batch: bool = False,
    smooth_dr: float = 1e-5,
    gamma: float = 2.0,
    sharpness: float = 50.0,
    threshold: Array | None = None,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    z = compare(r, sharpness, threshold)
    values = np.exp(-gamma * np.logaddexp(0.0, z)) * np.logaddexp(0.0, -z) * r.g
    focal, volume = (table_sum(r, x, include_background=include_background, batch=batch) for x in (values, r.g))
    return table_reduce(r, focal / np.maximum(volume + smooth_dr, 1e-300), weight, batch, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {
    "threshold_map_dice": threshold_map_dice,
    "focal_positive": focal_positive,
}


def _b(c: int) -> float:
    return 1 / (1 + np.exp(-50 * (1 / c - 0.5)))


UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "threshold_map_dice": lambda volume, n, c: 1 - 2 * _b(c) * volume / (_b(c) * n + volume),
    "focal_positive": lambda volume, n, c: -((1 - _b(c)) ** 2) * np.log(_b(c)) * (volume > 0),
}
