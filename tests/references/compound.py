"""Sums of two losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import region, voxel
from .reading import Array

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


REFERENCES: dict[str, Callable[..., Array]] = {"dice_ce": dice_ce, "dice_focal": dice_focal, "dice_topk": dice_topk}


def _plus_dice(key: str) -> Callable[[float, float, int], float]:
    return lambda volume, n, c: region.UNIFORM["dice"](volume, n, c) + voxel.UNIFORM[key](volume, n, c)


UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "dice_ce": _plus_dice("cross_entropy"),
    "dice_focal": _plus_dice("focal"),
    "dice_topk": _plus_dice("topk_cross_entropy"),
}
