"""Sums without rounding on every device: in float64, where a device has none on the CPU; no card names a type."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices that have no float64."""
BLOCK = 2**12
"""Voxels whose products add up one after the other."""


def widest_dtype(device: torch.device) -> torch.dtype:
    """The widest floating-point type of a device, for tables of counts and for what is added up in chunks."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def exact(x: Tensor) -> Tensor:
    """The tensor in float64, on the CPU where its device has none; the gradient flows back."""
    return to_host(x).to(torch.float64)


def to_host(x: Tensor) -> Tensor:
    """The tensor on the CPU where its device has no float64, else as it is."""
    return x.cpu() if x.device.type in WITHOUT_FLOAT64 else x


def rounded(x: Tensor, device: torch.device) -> Tensor:
    """What was computed from `exact` tensors on the device where these came from, in its widest type."""
    return x.to(widest_dtype(device)).to(device)


def sum_by(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums of values (P,) over groups, ``index`` (P,) from 0 to ``size`` - 1, (size,) in the widest type of the device."""
    numbers = exact(values)
    rows = to_host(index).long()  # int32 has no derivative under vmap before torch 2.7
    return rounded(numbers.new_zeros(size).index_add(0, rows, numbers), values.device)


def products(a: Tensor, b: Tensor) -> Tensor:
    """Sums over voxels of a (B, K, N) times b (B, L, N), (B, K, L): one dot product of millions loses digits in float32."""
    whole = a.shape[2] // BLOCK * BLOCK
    total = a[..., whole:] @ b[..., whole:].mT
    if whole:
        first, second = (x[..., :whole].reshape(*x.shape[:2], -1, BLOCK).transpose(1, 2) for x in (a, b))
        total = total + (first @ second.mT).sum(1)
    return total
