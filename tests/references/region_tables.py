"""More overlap losses: each formula gives a table of one value per sample and class from sums over voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .reading import Array, Reading, read, reduce
from .region import table_reduce, table_sum

Total = Callable[[Array], Array]


def table_loss(
    formula: Callable[..., Array], defined: Callable[[Total, Reading], Array] | None = None
) -> Callable[..., Array]:
    """A reference out of `formula(r, total, **own)`; `defined` says which entries of the table count at all."""

    def reference(
        input: Array,
        target: Any,
        activation: str | None,
        mask: Any = None,
        *,
        labels: bool = False,
        ignore_index: int | None = None,
        include_background: bool = True,
        batch: bool = False,
        weight: Sequence[float] | float | None = None,
        reduction: str = "mean",
        **own: Any,
    ) -> Array:
        r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)

        def total(x: Array) -> Array:
            return table_sum(r, np.broadcast_to(x, r.p.shape), include_background=include_background, batch=batch)

        with np.errstate(divide="ignore", invalid="ignore"):
            table = formula(r, total, **own)
        if defined is None:
            return table_reduce(r, table, weight, batch, reduction)
        factor = 1.0 if weight is None else np.broadcast_to(np.asarray(weight, dtype=float), table.shape[1:])
        value = reduce(table * factor, defined(total, r), reduction)
        return value.reshape(*table.shape, *[1] * len(r.axes)) if reduction == "none" else value

    return reference


def jaccard(r: Reading, total: Total, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Array:
    """Rahman 2016."""
    tp, p, g = total(r.p * r.g), total(r.p), total(r.g)
    return 1 - (tp + smooth_nr) / (p + g - tp + smooth_dr)


def jaccard_metric(r: Reading, total: Total, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Array:
    """Wang 2023: the intersection is half of |p| + |g| - |p - g|."""
    p, g = total(np.abs(r.p)), total(np.abs(r.g))
    tp = (p + g - total(np.abs(r.p - r.g))) / 2
    return 1 - (tp + smooth_nr) / (p + g - tp + smooth_dr)


def asymmetric_similarity(
    r: Reading, total: Total, beta: float = 1.5, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5
) -> Array:
    """Hashemi 2019: 1 - F_beta, smoothed after division by 1 + beta^2."""
    s, b = 1 + beta**2, beta**2
    tp, fp, fn = total(r.p * r.g), total(r.p * (1 - r.g)), total((1 - r.p) * r.g)
    return 1 - (s * tp + s * smooth_nr) / (s * tp + b * fn + fp + s * smooth_dr)


def sensitivity_specificity(
    reading: Reading, total: Total, r: float = 0.05, squared: bool = True, smooth_dr: float = 1e-5
) -> Array:
    """Brosch 2015; squared=False: r (1 - sensitivity) + (1 - r)(1 - specificity)."""
    p, g = reading.p, reading.g
    missed, false = ((g - p) ** 2 * g, (g - p) ** 2 * (1 - g)) if squared else (g - p * g, p - p * g)
    return r * total(missed) / (total(g) + smooth_dr) + (1 - r) * total(false) / (total(1 - g) + smooth_dr)


def mcc(r: Reading, total: Total, smooth_nr: float = 0.0, smooth_dr: float = 1e-5) -> Array:
    """Abhishek 2021."""
    tp, tn = total(r.p * r.g), total((1 - r.p) * (1 - r.g))
    fp, fn = total(r.p * (1 - r.g)), total((1 - r.p) * r.g)
    score = (tp * tn - fp * fn + smooth_nr) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + smooth_dr)
    return np.where((fp == 0) & (fn == 0), 0, 1 - score)


def both_sides(total: Total, r: Reading) -> Array:
    """A class with voxels, but not all voxels."""
    g = total(r.g)
    return ((g > 0) & (g < total(np.ones_like(r.g)))).astype(float)


def noise_robust_dice(r: Reading, total: Total, gamma: float = 1.5, smooth_dr: float = 1e-5) -> Array:
    """Wang 2020."""
    return total(np.abs(r.p - r.g) ** gamma) / (total(r.p**2) + total(r.g**2) + smooth_dr)


def hardness_weighted_dice(
    r: Reading, total: Total, lam: float = 0.6, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5
) -> Array:
    """Wang 2019."""
    w = lam * np.abs(r.p - r.g) + 1 - lam
    return 1 - (2 * total(w * r.p * r.g) + smooth_nr) / (total(w * (r.p + r.g)) + smooth_dr)


def _dice(r: Reading, total: Total, smooth_nr: float, smooth_dr: float) -> Array:
    return 1 - (2 * total(r.p * r.g) + smooth_nr) / (total(r.p) + total(r.g) + smooth_dr)


def _log_cosh_dice(r: Reading, total: Total, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Array:
    x = _dice(r, total, smooth_nr, smooth_dr)
    return np.logaddexp(x, -x) - np.log(2)


def log_cosh_dice(*args: Any, elementwise: bool = True, **arguments: Any) -> Array:
    """Jadon 2020; elementwise: log cosh of each entry, else of the mean."""
    if elementwise:
        return table_loss(_log_cosh_dice)(*args, **arguments)
    defaults = {"smooth_nr": 1e-5, "smooth_dr": 1e-5, **arguments, "reduction": "mean"}
    x = table_loss(_dice)(*args, **defaults)
    return np.logaddexp(x, -x) - np.log(2)


def overlap(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Array:
    """Half of the Gini impurity of a voxel; sigmoid: p (1 - p) of each channel."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    values = r.p * (1 - r.p) if activation == "sigmoid" else (r.p * (1 - r.p)).sum(axis=1, keepdims=True) / 2
    return reduce(values, r.valid, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {
    "jaccard": table_loss(jaccard),
    "jaccard_metric": table_loss(jaccard_metric),
    "asymmetric_similarity": table_loss(asymmetric_similarity),
    "sensitivity_specificity": table_loss(sensitivity_specificity),
    "log_cosh_dice": log_cosh_dice,
    "mcc": table_loss(mcc, both_sides),
    "noise_robust_dice": table_loss(noise_robust_dice),
    "hardness_weighted_dice": table_loss(hardness_weighted_dice),
    "overlap": overlap,
}


def _uniform_hardness(volume: float, n: float, c: int, lam: float = 0.6) -> float:
    on, off = lam * (1 - 1 / c) + 1 - lam, lam / c + 1 - lam
    return 1 - 2 * on * volume / c / (on * volume * (1 + 1 / c) + off * (n - volume) / c)


# The value at the uniform prediction p = 1/C without smoothing, for a class of `volume` voxels of `n`.
UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "jaccard": lambda volume, n, c: 1 - volume / (n + (c - 1) * volume),
    "asymmetric_similarity": lambda volume, n, c: (
        1 - 3.25 * volume / (n - volume + 3.25 * volume + 2.25 * volume * (c - 1))
    ),
    "sensitivity_specificity": lambda volume, n, c: 0.05 * (1 - 1 / c) ** 2 + 0.95 / c**2,
    "log_cosh_dice": lambda volume, n, c: np.log(np.cosh(1 - 2 * volume / (n + c * volume))),
    "mcc": lambda volume, n, c: 1.0,
    "noise_robust_dice": lambda volume, n, c: (
        (volume * (1 - 1 / c) ** 1.5 + (n - volume) / c**1.5) / (n / c**2 + volume)
    ),
    "hardness_weighted_dice": _uniform_hardness,
    "overlap": lambda volume, n, c: (1 - 1 / c) / 2,
}
