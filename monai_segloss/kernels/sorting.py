"""Sorting numbers of at least 0 the largest first.

Torch sorts integers on the CPU by their digits, in a tenth of the time that comparing floating-point numbers takes, and the
bits of floating-point numbers of at least 0, read as integers, have the same order.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = {torch.float32: (torch.int32, 0x7FFF_FFFF), torch.float64: (torch.int64, 0x7FFF_FFFF_FFFF_FFFF)}
"""Integers of the same width, and all bits but the sign."""


def largest_first(x: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N,) at least 0 in descending order, equal ones as they come, and where they were; NaN comes first.

    Example:
        >>> import torch
        >>> from monai_segloss.kernels.sorting import largest_first
        >>> values, order = largest_first(torch.tensor([0.5, 0.0, 2.0]))
        >>> values.tolist(), order.tolist()
        ([2.0, 0.5, 0.0], [2, 0, 1])
    """
    if x.device.type != "cpu" or x.dtype not in BITS or torch.compiler.is_compiling():
        return x.sort(descending=True, stable=True)
    integer, mask = BITS[x.dtype]
    keys, order = x.contiguous().view(integer).bitwise_not().bitwise_and_(mask).sort(stable=True)
    return keys.bitwise_not_().bitwise_and_(mask).view(x.dtype), order
