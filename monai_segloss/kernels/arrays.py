"""From tensors to arrays that any library reads right."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def volumes(x: Tensor) -> NDArray[Any]:
    """The volumes (B * C, *S) of a tensor (B, C, *S), in the memory order that their shape says.

    Torch and NumPy call a volume contiguous whatever the stride of an axis of one voxel; compiled libraries that count in
    strides, or that choose between C and Fortran order, then read next to it.
    """
    x = x.detach().cpu().flatten(0, 1)
    if x.stride() != torch.empty(x.shape, device="meta").stride():
        x = x.clone(memory_format=torch.contiguous_format)
    return x.numpy()
