"""Overlap losses: functions of the sums TP, P, G of the catalog, one table entry per sample and class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .reading import Array, Reading, read, reduce


def table_sum(r: Reading, x: Array, *, include_background: bool, batch: bool) -> Array:
    """Sum over the voxels that count, of the sample or of the batch; the background channel leaves last."""
    table = (x * r.valid).sum(axis=r.axes)
    if batch:
        table = table.sum(axis=0, keepdims=True)
    return table[:, 1:] if not include_background and r.p.shape[1] > 1 else table


def table_reduce(r: Reading, table: Array, weight: Sequence[float] | float | None, batch: bool, how: str) -> Array:
    present = np.array([[float(r.present().any())]]) if batch else r.present()[:, None]
    if weight is not None:
        table = table * np.broadcast_to(np.asarray(weight, dtype=float), table.shape[1:])
    value = reduce(table, present, how)
    return value.reshape(*table.shape, *[1] * len(r.axes)) if how == "none" else value


def dice(
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
    squared_pred: bool = False,
    jaccard: bool = False,
    soft_label: bool = False,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    """Drozdzal 2016; squared: Milletari 2016; jaccard: Rahman 2016; soft_label: Wang 2023 (L1 form)."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)

    def total(x: Array) -> Array:
        return table_sum(r, x, include_background=include_background, batch=batch)

    power = 2 if squared_pred else 1
    p, g = total(r.p**power), total(r.g**power)
    tp = (p + g - total(np.abs(r.p - r.g) ** power)) / 2 if soft_label or squared_pred else total(r.p * r.g)
    union = 2 * (p + g - tp) if jaccard else p + g
    loss = 1 - (2 * tp + smooth_nr) / (union + smooth_dr)
    return table_reduce(r, loss, weight, batch, reduction)


def tversky_table(
    r: Reading,
    alpha: float,
    beta: float,
    smooth_nr: float,
    smooth_dr: float,
    soft_label: bool,
    include_background: bool,
    batch: bool,
) -> Array:
    """1 - TI per sample and class; alpha weighs false positives, beta false negatives (Salehi 2017)."""

    def total(x: Array) -> Array:
        return table_sum(r, x, include_background=include_background, batch=batch)

    if soft_label:
        tp = (total(r.p) + total(r.g) - total(np.abs(r.p - r.g))) / 2
        fp, fn = total(r.p) - tp, total(r.g) - tp
    else:
        tp, fp, fn = total(r.p * r.g), total(r.p * (1 - r.g)), total((1 - r.p) * r.g)
    return 1 - (tp + smooth_nr) / (tp + alpha * fp + beta * fn + smooth_dr)


def tversky(
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
    alpha: float = 0.5,
    beta: float = 0.5,
    soft_label: bool = False,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    table = tversky_table(r, alpha, beta, smooth_nr, smooth_dr, soft_label, include_background, batch)
    return table_reduce(r, table, weight, batch, reduction)


def focal_tversky(
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
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    soft_label: bool = False,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    """(1 - TI)^(1 / gamma) per class, then the mean (Abraham 2019, equation 4, with alpha on the false positives).

    The derivative is infinite at 0 unless gamma is 1, so that the loss is constant below 1 - TI = 1e-6.
    """
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    table = tversky_table(r, alpha, beta, smooth_nr, smooth_dr, soft_label, include_background, batch)
    powers = table if gamma == 1 else np.maximum(table, 1e-6) ** (1 / gamma)
    return table_reduce(r, powers, weight, batch, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {"dice": dice, "tversky": tversky, "focal_tversky": focal_tversky}

# The value at the uniform prediction p = 1/C without smoothing, for a class of `volume` voxels of `n`.
UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "dice": lambda volume, n, c: 1 - 2 * volume / (n + c * volume),
    "tversky": lambda volume, n, c: 1 - volume / (volume + 0.3 * (n - volume) + 0.7 * volume * (c - 1)),
    "focal_tversky": lambda volume, n, c: (1 - volume / (volume + 0.3 * (n - volume) + 0.7 * volume * (c - 1))) ** 0.75,
}
