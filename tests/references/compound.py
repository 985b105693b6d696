"""Sums of two losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .entry import UNIFORM, Closed, reference
from .reading import Array, Reading, Weight, reduce
from .region import Table, dice, tversky_table
from .voxel import cross_entropy, focal, topk_cross_entropy


def plus_dice(key: str) -> Closed:
    return lambda volume, n, c: UNIFORM["dice"](volume, n, c) + UNIFORM[key](volume, n, c)


def dice_of_scored(r: Reading, weight: Weight, include_background: bool, **overlap: Any) -> Array:
    """Dice with the weights of all classes, of which it takes those of the scored ones."""
    if weight is not None and not include_background:
        weight = weight[1:]
    return dice(r, weight=weight, include_background=include_background, **overlap)


@reference("dice_ce", plus_dice("cross_entropy"), lambda_dice=1.0, lambda_ce=1.0, label_smoothing=0.0)
def dice_ce(
    r: Reading,
    lambda_dice: float,
    lambda_ce: float,
    weight: Weight,
    label_smoothing: float,
    reduction: str,
    **overlap: Any,
) -> Array:
    """Isensee 2021; the weights of the classes are those of both terms."""
    ce = cross_entropy(r, weight=weight, label_smoothing=label_smoothing, reduction=reduction)
    return lambda_dice * dice_of_scored(r, weight, reduction=reduction, **overlap) + lambda_ce * ce


@reference("dice_focal", plus_dice("focal"), gamma=2.0, lambda_dice=1.0, lambda_focal=1.0)
def dice_focal(r: Reading, lambda_dice: float, lambda_focal: float, gamma: float, alpha: Any, **overlap: Any) -> Array:
    """Zhu 2019, with the mean forms of Dice and focal; both score the same classes."""
    common = {name: overlap[name] for name in ("include_background", "weight", "reduction")}
    return lambda_dice * dice(r, **overlap) + lambda_focal * focal(r, gamma=gamma, alpha=alpha, **common)


@reference("dice_topk", plus_dice("topk_cross_entropy"), k=10.0, lambda_dice=1.0, lambda_topk=1.0, label_smoothing=0.0)
def dice_topk(
    r: Reading,
    lambda_dice: float,
    lambda_topk: float,
    k: float,
    weight: Weight,
    label_smoothing: float,
    reduction: str,
    **overlap: Any,
) -> Array:
    topk = topk_cross_entropy(r, k=k, weight=weight, label_smoothing=label_smoothing, reduction=reduction)
    return lambda_dice * dice_of_scored(r, weight, reduction=reduction, **overlap) + lambda_topk * topk


@reference("unified_focal", kind="asymmetric", lam=0.5, delta=0.6, gamma=0.5)
def unified_focal(
    r: Reading,
    kind: str,
    lam: float,
    delta: float,
    gamma: float,
    batch: bool,
    smooth_nr: float,
    smooth_dr: float,
    reduction: str,
) -> Array:
    """Yeung 2022 (gamma of the symmetric kind as in the authors' code); a region is a foreground by itself."""
    p, q = np.exp(r.log_p), np.exp(r.log_q)
    hard_foreground = np.ones_like(q) if kind == "asymmetric" else q**gamma
    rare = -delta * r.g * hard_foreground * r.log_p
    if r.activation == "sigmoid":
        values = rare - (1 - delta) * (1 - r.g) * p**gamma * r.log_q
        voxels = r.valid.sum() * r.z.shape[1]
    else:
        common = -(1 - delta) * r.g * q**gamma * r.log_p
        values, voxels = np.concatenate([common[:, :1], rare[:, 1:]], axis=1), r.valid.sum()
    values = values * r.valid
    ce = values.sum() if reduction == "sum" else values.sum() / max(voxels, 1.0)
    table = Table(r, True, batch, reduction)
    overlap = tversky_table(table, 1 - delta, delta, smooth_nr, smooth_dr, soft_label=False)
    # constant below 1e-6, where the derivative of the power is infinite
    powers = np.maximum(overlap, 1e-6) ** (1 - gamma) if gamma > 0 else overlap
    if kind == "asymmetric" and r.activation != "sigmoid":
        powers = np.concatenate([overlap[:, :1], powers[:, 1:]], axis=1)
    return lam * ce + (1 - lam) * table.reduce(powers)


@reference("combo", alpha=0.5, beta=0.5, include_background=None, smooth_nr=1.0, smooth_dr=1.0)
def combo(
    r: Reading, alpha: float, beta: float, include_background: bool | None, reduction: str, **overlap: Any
) -> Array:
    """Taghanaki 2019 with 1 - D in place of minus the sum of D."""
    first = r.first(include_background)
    values = (-beta * r.g * r.log_p - (1 - beta) * (1 - r.g) * r.log_q)[:, first:]
    ce = reduce(values, r.valid, reduction)
    return alpha * ce + (1 - alpha) * dice(r, include_background=first == 0, reduction=reduction, **overlap)


@reference("exponential_logarithmic", gamma=0.3, lambda_dice=0.8, lambda_ce=0.2, smooth_nr=1.0, smooth_dr=1.0)
def exponential_logarithmic(
    r: Reading,
    gamma: float,
    lambda_dice: float,
    lambda_ce: float,
    frequencies: Sequence[float] | None,
    batch: bool,
    smooth_nr: float,
    smooth_dr: float,
    reduction: str,
) -> Array:
    """Wong 2018; powers below 1 are constant below 1e-6, where their derivative is infinite."""
    least = 1e-6 if gamma < 1 else 0.0
    table = Table(r, True, batch, reduction)
    overlap = (2 * table.sum(r.p * r.g) + smooth_nr) / (table.sum(r.p) + table.sum(r.g) + smooth_dr)
    shape = (1, -1, *[1] * len(r.axes))
    f = np.ones(r.z.shape[1]) if frequencies is None else np.asarray(frequencies, dtype=float)
    values = r.g * np.maximum(-r.log_p, least) ** gamma
    if r.activation == "sigmoid":
        inside, outside = (np.ones_like(f),) * 2 if frequencies is None else (1 / np.sqrt(f), 1 / np.sqrt(1 - f))
        negative = (1 - r.g) * np.maximum(-r.log_q, least) ** gamma
        values = values * inside.reshape(shape) + negative * outside.reshape(shape)
    else:
        w = np.ones_like(f) if frequencies is None else np.sqrt(f.sum() / f)
        values = (values * w.reshape(shape)).sum(axis=1, keepdims=True)
    ce = reduce(values, r.valid, reduction)
    return lambda_dice * table.reduce(np.maximum(-np.log(overlap), least) ** gamma) + lambda_ce * ce
