"""Sums of a region term and a distance term with the weights of the first epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .boundary import boundary, hausdorff_dt
from .compound import dice_of_scored
from .entry import reference
from .reading import Array, Reading
from .region import dice
from .region_generalized import generalized_dice
from .voxel import cross_entropy

MAP = ("mode", "normalize", "empty", "clip")


def first_epoch(weight: float | str | None, other: float | str) -> float:
    """A weight of the first epoch: 0.01 of the rebalancing, and for None what the other leaves of 1."""
    if weight is None:
        return 1 - first_epoch(other, 0)
    return 0.01 if weight == "rebalance" else float(weight)


def take(arguments: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """These out of the arguments."""
    return {name: arguments.pop(name) for name in names}


@reference("dice_boundary", lambda_boundary="rebalance", mode="kervadec", empty="zero")
def dice_boundary(
    r: Reading,
    lambda_dice: float | None,
    lambda_boundary: float | str,
    include_background: bool,
    reduction: str,
    **terms: Any,
) -> Array:
    """The distance term with its constant, its mean over samples whatever `batch` is."""
    common = {"include_background": include_background, "reduction": reduction}
    phi = boundary(r, offset=True, **common, **take(terms, MAP))
    return (
        first_epoch(lambda_dice, lambda_boundary) * dice(r, **common, **terms) + first_epoch(lambda_boundary, 0) * phi
    )


@reference("generalized_dice_boundary", lambda_boundary="rebalance", w_type="square", mode="kervadec", empty="zero")
def generalized_dice_boundary(
    r: Reading, lambda_dice: float | None, lambda_boundary: float | str, reduction: str, **terms: Any
) -> Array:
    """Kervadec 2021: all labels in the one term, the foreground in the other."""
    foreground = r.activation == "sigmoid"
    phi = boundary(r, offset=True, include_background=foreground, reduction=reduction, **take(terms, MAP))
    overlap = generalized_dice(r, reduction=reduction, **terms)
    return first_epoch(lambda_dice, lambda_boundary) * overlap + first_epoch(lambda_boundary, 0) * phi


@reference("dice_ce_boundary", lambda_boundary="rebalance", label_smoothing=0.0, mode="kervadec", empty="zero")
def dice_ce_boundary(
    r: Reading,
    lambda_dice: float | None,
    lambda_ce: float | None,
    lambda_boundary: float | str,
    weight: Any,
    label_smoothing: float,
    include_background: bool,
    reduction: str,
    **terms: Any,
) -> Array:
    common = {"include_background": include_background, "reduction": reduction}
    phi = boundary(r, offset=True, **common, **take(terms, MAP))
    ce = cross_entropy(r, weight=weight, label_smoothing=label_smoothing, reduction=reduction)
    region_part = first_epoch(lambda_dice, lambda_boundary) * dice_of_scored(r, weight, **common, **terms)
    return region_part + first_epoch(lambda_ce, lambda_boundary) * ce + first_epoch(lambda_boundary, 0) * phi


@reference("dice_hausdorff_dt", lambda_dice=1.0, alpha=2.0, binarize="threshold")
def dice_hausdorff_dt(
    r: Reading,
    lambda_dice: float,
    lambda_hausdorff: float | None,
    include_background: bool,
    reduction: str,
    **terms: Any,
) -> Array:
    """Karimi & Salcudean 2020: the weight of the distances is 0.01 before there is an epoch to look back at."""
    common = {"include_background": include_background, "reduction": reduction}
    hausdorff = hausdorff_dt(r, **common, **take(terms, ("alpha", "one_sided", "binarize")))
    return (
        lambda_dice * dice(r, **common, **terms) + (0.01 if lambda_hausdorff is None else lambda_hausdorff) * hausdorff
    )
