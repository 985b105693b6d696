"""Descending sort of numbers of at least 0, and sums weighted by rank.

Torch sorts integers on the CPU by their digits, in a tenth of the time that comparing floating-point numbers takes, and the
bits of floating-point numbers of at least 0, read as integers, have the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BITS = {torch.float32: (torch.int32, 0x7FFF_FFFF), torch.float64: (torch.int64, 0x7FFF_FFFF_FFFF_FFFF)}
"""Integers of the same width, and all bits but the sign."""
Weights = Callable[[Tensor, torch.dtype], Tensor]


def sort_descending(x: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N,) at least 0 in descending order, equal ones as they come, and where they were; NaN comes first.

    Example:
        >>> import torch
        >>> from monai_segloss.kernels.sorting import sort_descending
        >>> values, order = sort_descending(torch.tensor([0.5, 0.0, 2.0]))
        >>> values.tolist(), order.tolist()
        ([2.0, 0.5, 0.0], [2, 0, 1])
    """
    if x.device.type != "cpu" or x.dtype not in BITS or torch.compiler.is_compiling():
        return x.sort(descending=True, stable=True)
    integer, mask = BITS[x.dtype]
    keys, order = x.contiguous().view(integer).bitwise_not().bitwise_and_(mask).sort(stable=True)
    return keys.bitwise_not_().bitwise_and_(mask).view(x.dtype), order


class RankedErrors(torch.autograd.Function):
    """Sum of the errors of each class, the largest first, times ``weights`` of which of them are voxels of the class.

    Class by class; keeps one number per voxel and class, the slope: its sign times the weight of its rank.
    """

    @staticmethod
    def forward(
        x: Tensor, g: Tensor, valid: Tensor | None, margin: float, absent: bool, weights: Weights
    ) -> tuple[Tensor, Tensor]:
        skip = not absent and x.device.type == "cpu" and not torch.compiler.is_compiling()
        slopes = torch.zeros_like(x)
        values = []
        for b, c in ((b, c) for b in range(x.shape[0]) for c in range(x.shape[1])):
            if skip and not g[b, c].any():
                values.append(x[b, c].sum() * 0)
                continue
            ranked, order = _rank(x[b, c], g[b, c], None if valid is None else valid[b, 0], margin)
            inside = g[b, c].gather(0, order)
            weight = weights(inside, ranked.dtype).masked_fill_(ranked <= 0, 0)
            values.append((ranked * weight).sum())
            slopes[b, c].scatter_(0, order, torch.where(inside, -weight, weight))
        return torch.stack(values).view(x.shape[:2]), slopes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return grad[:, :, None] * slopes, None, None, None, None, None


def _rank(x: Tensor, g: Tensor, valid: Tensor | None, margin: float) -> tuple[Tensor, Tensor]:
    """Errors (N,), the largest first, and the voxels they belong to; 0 where a voxel costs nothing or is ignored."""
    errors = torch.where(g, 1 - x, margin + x).clamp_min_(0)
    return sort_descending(errors if valid is None else errors.masked_fill_(~valid, 0))
