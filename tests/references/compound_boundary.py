"""Sums of a region term and a distance term with the weights of the first epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import boundary, region, region_generalized, voxel
from .compound import DICE, READ, _dice, _pick
from .reading import Array

MAP = ("mode", "normalize", "empty", "clip")


def first_epoch(weight: float | str | None, other: float | str) -> float:
    """A weight of the first epoch: 0.01 of the rebalancing, and for None what the other leaves of 1."""
    if weight is None:
        return 1 - first_epoch(other, 0)
    return 0.01 if weight == "rebalance" else float(weight)


def _boundary(
    input: Array, target: Any, activation: str | None, mask: Any, spacing: Any, arguments: dict[str, Any]
) -> Array:
    """With its constant; the mean over samples whatever `batch` is."""
    given = _pick(arguments, (*READ, *MAP, "include_background"))
    return boundary.boundary(input, target, activation, mask, spacing=spacing, offset=True, **given)


def dice_boundary(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    spacing: Sequence[float] | None = None,
    lambda_dice: float | None = None,
    lambda_boundary: float | str = "rebalance",
    **arguments: Any,
) -> Array:
    dice = region.dice(input, target, activation, mask, **_pick(arguments, DICE + READ))
    phi = _boundary(input, target, activation, mask, spacing, arguments)
    return first_epoch(lambda_dice, lambda_boundary) * dice + first_epoch(lambda_boundary, 0) * phi


def generalized_dice_boundary(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    spacing: Sequence[float] | None = None,
    lambda_dice: float | None = None,
    lambda_boundary: float | str = "rebalance",
    **arguments: Any,
) -> Array:
    """Kervadec 2021: all labels in the one term, the foreground in the other."""
    names = (*READ, "include_background", "batch", "smooth_nr", "smooth_dr", "w_type")
    dice = region_generalized.generalized_dice(input, target, activation, mask, **_pick(arguments, names))
    foreground = {**arguments, "include_background": activation == "sigmoid"}
    phi = _boundary(input, target, activation, mask, spacing, foreground)
    return first_epoch(lambda_dice, lambda_boundary) * dice + first_epoch(lambda_boundary, 0) * phi


def dice_ce_boundary(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    spacing: Sequence[float] | None = None,
    lambda_dice: float | None = None,
    lambda_ce: float | None = None,
    lambda_boundary: float | str = "rebalance",
    **arguments: Any,
) -> Array:
    ce = voxel.cross_entropy(input, target, activation, mask, **_pick(arguments, (*READ, "weight", "label_smoothing")))
    phi = _boundary(input, target, activation, mask, spacing, arguments)
    region_part = first_epoch(lambda_dice, lambda_boundary) * _dice(input, target, activation, mask, arguments)
    return region_part + first_epoch(lambda_ce, lambda_boundary) * ce + first_epoch(lambda_boundary, 0) * phi


def dice_hausdorff_dt(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    spacing: Sequence[float] | None = None,
    lambda_dice: float = 1.0,
    lambda_hausdorff: float | None = None,
    **arguments: Any,
) -> Array:
    """Karimi & Salcudean 2020: the weight of the distances is 0.01 before there is an epoch to look back at."""
    names = (*READ, "include_background", "alpha", "one_sided", "binarize")
    given = {"include_background": True, **_pick(arguments, names)}
    hausdorff = boundary.hausdorff_dt(input, target, activation, mask, spacing=spacing, **given)
    dice = region.dice(input, target, activation, mask, **_pick(arguments, DICE + READ))
    return lambda_dice * dice + (0.01 if lambda_hausdorff is None else lambda_hausdorff) * hausdorff


REFERENCES: dict[str, Callable[..., Array]] = {
    "dice_boundary": dice_boundary,
    "dice_ce_boundary": dice_ce_boundary,
    "dice_hausdorff_dt": dice_hausdorff_dt,
    "generalized_dice_boundary": generalized_dice_boundary,
}

UNIFORM: dict[str, Callable[[float, float, int], float]] = {}
