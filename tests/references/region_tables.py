"""More overlap losses: each formula gives a table of one value per sample and class from sums over voxels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .entry import reference
from .reading import Array, Reading, reduce
from .region import Table, uniform_dice, uniform_tversky


@reference("jaccard", lambda volume, n, c: 1 - volume / (n + (c - 1) * volume))
def jaccard(r: Reading, smooth_nr: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """Rahman 2016."""
    table = Table(r, **formula_arguments)
    tp, p, g = table.sum(r.p * r.g), table.sum(r.p), table.sum(r.g)
    return table.reduce(1 - (tp + smooth_nr) / (p + g - tp + smooth_dr))


@reference("jaccard_metric")
def jaccard_metric(r: Reading, smooth_nr: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """Wang 2023: the intersection is half of |p| + |g| - |p - g|."""
    table = Table(r, **formula_arguments)
    p, g = table.sum(np.abs(r.p)), table.sum(np.abs(r.g))
    tp = (p + g - table.sum(np.abs(r.p - r.g))) / 2
    return table.reduce(1 - (tp + smooth_nr) / (p + g - tp + smooth_dr))


@reference("dice_metric", uniform_dice)
def dice_metric(r: Reading, smooth_nr: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """Wang 2023: Dice of the same intersection."""
    table = Table(r, **formula_arguments)
    p, g, apart = (table.sum(x) for x in (r.p, r.g, np.abs(r.p - r.g)))
    return table.reduce(1 - (p + g - apart + smooth_nr) / (p + g + smooth_dr))


@reference("tversky_metric", uniform_tversky, alpha=0.3, beta=0.7)
def tversky_metric(
    r: Reading, alpha: float, beta: float, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """Wang 2023: false positives and negatives are what is left of prediction and target without the intersection."""
    table = Table(r, **formula_arguments)
    p, g, apart = (table.sum(x) for x in (r.p, r.g, np.abs(r.p - r.g)))
    tp = (p + g - apart) / 2
    return table.reduce(1 - (tp + smooth_nr) / (tp + alpha * (p - tp) + beta * (g - tp) + smooth_dr))


@reference("dice_plus_plus", gamma=2.0)
def dice_plus_plus(r: Reading, gamma: float, smooth_nr: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """Yeung 2023."""
    table = Table(r, **formula_arguments)
    tp, fp, fn = (table.sum(x) for x in (r.p * r.g, (r.p * (1 - r.g)) ** gamma, ((1 - r.p) * r.g) ** gamma))
    return table.reduce(1 - (2 * tp + smooth_nr) / (2 * tp + fp + fn + smooth_dr))


@reference("adaptive_t_vmf_dice", lambda volume, n, c: (1 - np.sqrt(volume / n)) ** 2, scale=32.0)
def adaptive_t_vmf_dice(
    r: Reading, scale: float, include_background: bool, batch: bool, weight: Any, reduction: str
) -> Array:
    """Kato 2024 in the first epoch, where kappa is 0 whatever its scale, and S the cosine."""
    table = Table(r, include_background, batch, reduction, weight)
    tp, p, g = table.sum(r.p * r.g), table.sum(r.p**2), table.sum(r.g**2)
    there = g > 0
    cosine = tp / np.sqrt(np.where(there, p * g, 1))
    return table.reduce((1 - cosine) ** 2 * there, there)


@reference(
    "asymmetric_similarity",
    lambda volume, n, c: 1 - 3.25 * volume / (n - volume + 3.25 * volume + 2.25 * volume * (c - 1)),
    beta=1.5,
)
def asymmetric_similarity(
    r: Reading, beta: float, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """Hashemi 2019: 1 - F_beta, smoothed after division by 1 + beta^2."""
    table = Table(r, **formula_arguments)
    s, b = 1 + beta**2, beta**2
    tp, fp, fn = (table.sum(x) for x in (r.p * r.g, r.p * (1 - r.g), (1 - r.p) * r.g))
    return table.reduce(1 - (s * tp + s * smooth_nr) / (s * tp + b * fn + fp + s * smooth_dr))


@reference("sensitivity_specificity", lambda volume, n, c: 0.05 * (1 - 1 / c) ** 2 + 0.95 / c**2, r=0.05, squared=True)
def sensitivity_specificity(
    reading: Reading, r: float, squared: bool, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """Brosch 2015; squared=False: r (1 - sensitivity) + (1 - r)(1 - specificity)."""
    table, p, g = Table(reading, **formula_arguments), reading.p, reading.g
    missed, false = ((g - p) ** 2 * g, (g - p) ** 2 * (1 - g)) if squared else (g - p * g, p - p * g)
    sensitivity = r * table.sum(missed) / (table.sum(g) + smooth_dr)
    return table.reduce(sensitivity + (1 - r) * table.sum(false) / (table.sum(1 - g) + smooth_dr))


@reference("mcc", lambda volume, n, c: 1.0, smooth_nr=0.0)
def mcc(r: Reading, smooth_nr: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """Abhishek 2021, of the classes with voxels, but not all voxels."""
    table = Table(r, **formula_arguments)
    tp, tn = table.sum(r.p * r.g), table.sum((1 - r.p) * (1 - r.g))
    fp, fn = table.sum(r.p * (1 - r.g)), table.sum((1 - r.p) * r.g)
    score = (tp * tn - fp * fn + smooth_nr) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + smooth_dr)
    volume, voxels = table.sum(r.g), table.sum(np.ones_like(r.g))
    return table.reduce(np.where((fp == 0) & (fn == 0), 0, 1 - score), (volume > 0) & (volume < voxels))


@reference(
    "noise_robust_dice",
    lambda volume, n, c: (volume * (1 - 1 / c) ** 1.5 + (n - volume) / c**1.5) / (n / c**2 + volume),
    gamma=1.5,
)
def noise_robust_dice(r: Reading, gamma: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """Wang 2020."""
    table = Table(r, **formula_arguments)
    return table.reduce(table.sum(np.abs(r.p - r.g) ** gamma) / (table.sum(r.p**2) + table.sum(r.g**2) + smooth_dr))


def _uniform_hardness(volume: float, n: float, c: int, lam: float = 0.6) -> float:
    on, off = lam * (1 - 1 / c) + 1 - lam, lam / c + 1 - lam
    return 1 - 2 * on * volume / c / (on * volume * (1 + 1 / c) + off * (n - volume) / c)


@reference("hardness_weighted_dice", _uniform_hardness, lam=0.6)
def hardness_weighted_dice(
    r: Reading, lam: float, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """Wang 2019."""
    table = Table(r, **formula_arguments)
    w = lam * np.abs(r.p - r.g) + 1 - lam
    return table.reduce(1 - (2 * table.sum(w * r.p * r.g) + smooth_nr) / (table.sum(w * (r.p + r.g)) + smooth_dr))


def log_cosh(x: Array) -> Array:
    return np.logaddexp(x, -x) - np.log(2)


@reference("log_cosh_dice", lambda volume, n, c: np.log(np.cosh(uniform_dice(volume, n, c))), elementwise=True)
def log_cosh_dice(r: Reading, elementwise: bool, smooth_nr: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """Jadon 2020; elementwise: log cosh of each entry, else of the mean."""
    table = Table(r, **formula_arguments)
    x = 1 - (2 * table.sum(r.p * r.g) + smooth_nr) / (table.sum(r.p) + table.sum(r.g) + smooth_dr)
    return table.reduce(log_cosh(x)) if elementwise else log_cosh(replace(table, reduction="mean").reduce(x))


@reference("overlap", lambda volume, n, c: (1 - 1 / c) / 2)
def overlap(r: Reading, reduction: str) -> Array:
    """Half of the Gini impurity of a voxel; sigmoid: p (1 - p) of each channel."""
    values = r.p * (1 - r.p)
    return reduce(values if r.activation == "sigmoid" else values.sum(axis=1, keepdims=True) / 2, r.valid, reduction)
