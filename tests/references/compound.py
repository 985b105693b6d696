"""Sums of two losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import region, voxel
from .reading import Array, read

DICE = ("include_background", "batch", "smooth_nr", "smooth_dr", "squared_pred", "jaccard")
READ = ("labels", "ignore_index", "reduction")


def _pick(arguments: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: arguments[name] for name in names if name in arguments}


def _dice(
    input: Array, target: Any, activation: str | None, mask: Any, arguments: dict[str, Any], weights_of_all: bool = True
) -> Array:
    """The weights of the classes are those of all classes, or those of the scored ones."""
    weight = arguments.get("weight")
    if weights_of_all and weight is not None and not arguments.get("include_background", True):
        weight = weight[1:]
    return region.dice(input, target, activation, mask, weight=weight, **_pick(arguments, DICE + READ))


def dice_ce(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    lambda_dice: float = 1.0,
    lambda_ce: float = 1.0,
    **arguments: Any,
) -> Array:
    """Isensee 2021; the weights of the classes are those of both terms."""
    ce = voxel.cross_entropy(input, target, activation, mask, **_pick(arguments, (*READ, "weight", "label_smoothing")))
    return lambda_dice * _dice(input, target, activation, mask, arguments) + lambda_ce * ce


def dice_focal(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    lambda_dice: float = 1.0,
    lambda_focal: float = 1.0,
    **arguments: Any,
) -> Array:
    """Zhu 2019, with the mean forms of Dice and focal."""
    focal = voxel.focal(
        input, target, activation, mask, **_pick(arguments, (*READ, "weight", "gamma", "alpha", "include_background"))
    )
    dice = _dice(input, target, activation, mask, arguments, weights_of_all=False)
    return lambda_dice * dice + lambda_focal * focal


def dice_topk(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    lambda_dice: float = 1.0,
    lambda_topk: float = 1.0,
    **arguments: Any,
) -> Array:
    topk = voxel.topk_cross_entropy(
        input, target, activation, mask, **_pick(arguments, (*READ, "k", "weight", "label_smoothing"))
    )
    return lambda_dice * _dice(input, target, activation, mask, arguments) + lambda_topk * topk


def unified_focal(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    kind: str = "asymmetric",
    lam: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    batch: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    reduction: str = "mean",
) -> Array:
    """Yeung 2022 (gamma of the symmetric kind as in the authors' code); a region is a foreground by itself."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    p, q = np.exp(r.log_p), np.exp(r.log_q)
    hard_foreground = np.ones_like(q) if kind == "asymmetric" else q**gamma
    rare = -delta * r.g * hard_foreground * r.log_p
    if activation == "sigmoid":
        values = rare - (1 - delta) * (1 - r.g) * p**gamma * r.log_q
        voxels = r.valid.sum() * r.z.shape[1]
    else:
        common = -(1 - delta) * r.g * q**gamma * r.log_p
        values, voxels = np.concatenate([common[:, :1], rare[:, 1:]], axis=1), r.valid.sum()
    values = values * r.valid
    ce = values.sum() if reduction == "sum" else values.sum() / max(voxels, 1.0)
    table = region.tversky_table(r, 1 - delta, delta, smooth_nr, smooth_dr, False, True, batch)
    # constant below 1e-6, where the derivative of the power is infinite
    powers = np.maximum(table, 1e-6) ** (1 - gamma) if gamma > 0 else table
    if kind == "asymmetric" and activation != "sigmoid":
        powers = np.concatenate([table[:, :1], powers[:, 1:]], axis=1)
    return lam * ce + (1 - lam) * region.table_reduce(r, powers, None, batch, reduction)


def combo(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    alpha: float = 0.5,
    beta: float = 0.5,
    include_background: bool | None = None,
    batch: bool = False,
    smooth_nr: float = 1.0,
    smooth_dr: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """Taghanaki 2019 with 1 - D in place of minus the sum of D."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    every = activation == "sigmoid" if include_background is None else include_background
    first = 0 if every or r.z.shape[1] == 1 else 1
    values = (-beta * r.g * r.log_p - (1 - beta) * (1 - r.g) * r.log_q)[:, first:] * r.valid
    ce = values.sum() if reduction == "sum" else values.sum() / max(r.valid.sum() * values.shape[1], 1.0)
    dice = region.dice(
        input, target, activation, mask, labels=labels, ignore_index=ignore_index, include_background=first == 0,
        batch=batch, smooth_nr=smooth_nr, smooth_dr=smooth_dr, reduction=reduction,
    )  # fmt: skip
    return alpha * ce + (1 - alpha) * dice


def exponential_logarithmic(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    gamma: float = 0.3,
    lambda_dice: float = 0.8,
    lambda_ce: float = 0.2,
    frequencies: Sequence[float] | None = None,
    batch: bool = False,
    smooth_nr: float = 1.0,
    smooth_dr: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """Wong 2018; powers below 1 are constant below 1e-6, where their derivative is infinite."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    least = 1e-6 if gamma < 1 else 0.0

    def total(x: Array) -> Array:
        return region.table_sum(r, x, include_background=True, batch=batch)

    overlap = (2 * total(r.p * r.g) + smooth_nr) / (total(r.p) + total(r.g) + smooth_dr)
    table = np.maximum(-np.log(overlap), least) ** gamma
    shape = (1, -1, *[1] * len(r.axes))
    f = np.ones(r.z.shape[1]) if frequencies is None else np.asarray(frequencies, dtype=float)
    values = r.g * np.maximum(-r.log_p, least) ** gamma
    if activation == "sigmoid":
        inside, outside = (np.ones_like(f),) * 2 if frequencies is None else (1 / np.sqrt(f), 1 / np.sqrt(1 - f))
        negative = (1 - r.g) * np.maximum(-r.log_q, least) ** gamma
        values = values * inside.reshape(shape) + negative * outside.reshape(shape)
    else:
        w = np.ones_like(f) if frequencies is None else np.sqrt(f.sum() / f)
        values = (values * w.reshape(shape)).sum(axis=1, keepdims=True)
    values = values * r.valid
    ce = values.sum() if reduction == "sum" else values.sum() / max(r.valid.sum() * values.shape[1], 1.0)
    return lambda_dice * region.table_reduce(r, table, None, batch, reduction) + lambda_ce * ce


REFERENCES: dict[str, Callable[..., Array]] = {
    "combo": combo,
    "dice_ce": dice_ce,
    "dice_focal": dice_focal,
    "dice_topk": dice_topk,
    "exponential_logarithmic": exponential_logarithmic,
    "unified_focal": unified_focal,
}


def _plus_dice(key: str) -> Callable[[float, float, int], float]:
    return lambda volume, n, c: region.UNIFORM["dice"](volume, n, c) + voxel.UNIFORM[key](volume, n, c)


UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "dice_ce": _plus_dice("cross_entropy"),
    "dice_focal": _plus_dice("focal"),
    "dice_topk": _plus_dice("topk_cross_entropy"),
}
