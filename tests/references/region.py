"""Overlap losses: functions of the sums TP, P, G of the catalog, one table entry per sample and class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .entry import reference
from .reading import Array, Reading, Weight, reduce_table


@dataclass(frozen=True)
class Table:
    """One value per (sample or batch, scored class), made from sums over the voxels that count."""

    r: Reading
    include_background: bool | None
    batch: bool
    reduction: str
    weight: Weight = None

    @property
    def first(self) -> int:
        """The first scored channel."""
        return self.r.first(self.include_background)

    def sum(self, x: Array) -> Array:
        """Sum of the sample or of the batch, (B | 1, K); x has all channels or the scored ones."""
        table = (x * self.r.valid).sum(axis=self.r.axes)
        if self.batch:
            table = table.sum(axis=0, keepdims=True)
        scored = self.r.z.shape[1] - self.first
        return table[:, -scored:]

    def reduce(self, table: Array, counted: Array | None = None) -> Array:
        if self.weight is not None:
            table = table * np.broadcast_to(np.asarray(self.weight, dtype=float), table.shape[1:])
        return reduce_table(self.r, table, self.reduction, counted)


def uniform_dice(volume: float, n: float, c: int) -> float:
    return 1 - 2 * volume / (n + c * volume)


def uniform_tversky(volume: float, n: float, c: int) -> float:
    return 1 - volume / (volume + 0.3 * (n - volume) + 0.7 * volume * (c - 1))


@reference("dice", uniform_dice)
def dice(
    r: Reading,
    smooth_nr: float,
    smooth_dr: float,
    squared_pred: bool,
    jaccard: bool,
    soft_label: bool,
    **formula_arguments: Any,
) -> Array:
    """Drozdzal 2016; squared: Milletari 2016; jaccard: Rahman 2016; soft_label: Wang 2023 (L1 form)."""
    table = Table(r, **formula_arguments)
    power = 2 if squared_pred else 1
    p, g = table.sum(r.p**power), table.sum(r.g**power)
    exact = not (soft_label or squared_pred)
    tp = table.sum(r.p * r.g) if exact else (p + g - table.sum(np.abs(r.p - r.g) ** power)) / 2
    union = 2 * (p + g - tp) if jaccard else p + g
    return table.reduce(1 - (2 * tp + smooth_nr) / (union + smooth_dr))


def tversky_table(
    table: Table, alpha: float, beta: float, smooth_nr: float, smooth_dr: float, soft_label: bool
) -> Array:
    """1 - TI per sample and class; alpha weighs false positives, beta false negatives (Salehi 2017)."""
    total, p, g = table.sum, table.r.p, table.r.g
    if soft_label:
        tp = (total(p) + total(g) - total(np.abs(p - g))) / 2
        fp, fn = total(p) - tp, total(g) - tp
    else:
        tp, fp, fn = total(p * g), total(p * (1 - g)), total((1 - p) * g)
    return 1 - (tp + smooth_nr) / (tp + alpha * fp + beta * fn + smooth_dr)


@reference("tversky", uniform_tversky, alpha=0.5, beta=0.5)
def tversky(
    r: Reading,
    alpha: float,
    beta: float,
    smooth_nr: float,
    smooth_dr: float,
    soft_label: bool,
    **formula_arguments: Any,
) -> Array:
    table = Table(r, **formula_arguments)
    return table.reduce(tversky_table(table, alpha, beta, smooth_nr, smooth_dr, soft_label))


@reference(
    "focal_tversky", lambda volume, n, c: uniform_tversky(volume, n, c) ** 0.75, alpha=0.3, beta=0.7, gamma=4 / 3
)
def focal_tversky(
    r: Reading, alpha: float, beta: float, gamma: float, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """(1 - TI)^(1 / gamma) per class, then the mean (Abraham 2019, equation 4, with alpha on the false positives).

    The derivative is infinite at 0 unless gamma is 1, so that the loss is constant below 1 - TI = 1e-6.
    """
    table = Table(r, **formula_arguments)
    values = tversky_table(table, alpha, beta, smooth_nr, smooth_dr, soft_label=False)
    return table.reduce(values if gamma == 1 else np.maximum(values, 1e-6) ** (1 / gamma))
