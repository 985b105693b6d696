"""From the parts of a loss to its value: the only place that averages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

REDUCTIONS = ("mean", "sum", "none")


@dataclass(frozen=True)
class Unreduced:
    """The unreduced value of a loss.

    Args:
        total: summands of the numerator, already masked and weighted: a table (B | 1, C | 1) or a map (B, C | 1, *S).
        count: what the mean divides by, broadcastable to ``total``; its sum after broadcasting is the divisor.
    """

    total: Tensor
    count: Tensor

    @staticmethod
    def table(values: Tensor, voxel_count: Tensor, weight: Tensor | None = None) -> Unreduced:
        """Of a (B | 1, C) table: rows with ``voxel_count`` (B | 1, 1 | C) == 0 leave the mean; class weights scale.

        They leave its gradient too; what is not a number there shows, since it may be in other gradients.
        """
        voxel_count = (voxel_count > 0).to(values.dtype).expand_as(values)
        values = torch.where(voxel_count > 0, values, 0 * values.detach())
        if weight is not None:
            values = values * weight.to(values)
        return Unreduced(values, voxel_count)


@dataclass(frozen=True)
class Term:
    """One weighted term of a compound loss."""

    weight: float | Tensor
    unreduced: Unreduced


def quotient(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 and without a NaN in the gradient where both are 0: nothing there, or everything ignored."""
    return part / torch.where(whole == 0, 1, whole)


def reduce(unreduced: Unreduced | Mapping[str, Term], reduction: str, ndim: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The value of a loss, and the detached value of each term of a compound.

    ``"mean"`` divides the masked sum by what was summed and is 0, with zero gradient, where nothing was; ``"sum"`` adds;
    ``"none"`` keeps a shape with ``ndim`` dimensions that broadcasts against (B, C, *S).

    Raises:
        ValueError: every term of a compound has the weight 0.
    """
    if isinstance(unreduced, Mapping):
        if not any(isinstance(term.weight, Tensor) or term.weight for term in unreduced.values()):
            raise ValueError(f"the weights of {list(unreduced)} are all 0; nothing is left to minimize.")
        values = {name: _reduce(term.unreduced, reduction, ndim) for name, term in unreduced.items()}
        total = sum(unreduced[name].weight * value for name, value in values.items())
        assert isinstance(total, Tensor)
        return total, {name: value.detach() for name, value in values.items()}
    return _reduce(unreduced, reduction, ndim), {}


def _reduce(unreduced: Unreduced, reduction: str, ndim: int) -> Tensor:
    total, count = unreduced.total, unreduced.count
    if reduction == "none":
        return total.reshape(total.shape + (1,) * (ndim - total.ndim))
    if reduction == "sum":
        return total.sum()
    divisor = count.expand_as(total).sum() if count.ndim else count
    return total.sum() / torch.where(divisor > 0, divisor, torch.inf)
