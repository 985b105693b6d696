"""The distances to the nearest and the second nearest of many instances, on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.kernels import distance_native
from monai_segloss.kernels.distance import distance_to
from monai_segloss.kernels.distance_native import library

FEW = 16
"""Instances up to which one distance transform for each takes less time than looking for both at once."""


def two_nearest(ids: Tensor, spacing: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distances to the nearest and to the second nearest instance, 0 inside of one and inf where there are fewer.

    One distance transform per instance; beyond a few, where there is a C++ compiler, one search for all of them.

    Args:
        ids: (C, *S) integers, the instances of each channel, 0 outside; every channel has instances of its own.
        spacing: (ndim,) in array axis order, in mm; None is 1.

    Returns:
        Two tensors (*S), float32 on the CPU.

    Example:
        >>> import torch
        >>> from monai_segloss.kernels.two_nearest import two_nearest
        >>> [x.tolist() for x in two_nearest(torch.tensor([[1, 0, 0, 2]]), torch.tensor([2.0]))]
        [[0.0, 2.0, 2.0, 0.0], [6.0, 4.0, 4.0, 6.0]]
    """
    found: tuple[Tensor, Tensor] = torch.ops.segloss.two_nearest(ids, spacing)
    return found


# One operation, so that compilers and transforms of torch do not look inside.
@torch.library.custom_op(
    "segloss::two_nearest", mutates_args=(), schema="(Tensor ids, Tensor? spacing) -> (Tensor, Tensor)"
)
def _two_nearest(ids: Tensor, spacing: Tensor | None) -> tuple[Tensor, Tensor]:
    ids = ids.cpu().long()
    first = torch.full(ids.shape[1:], torch.inf)
    second = first.clone()
    many = FEW if library() else torch.inf
    steps = [1.0] * (ids.ndim - 1) if spacing is None else spacing.tolist()
    for channel in _merged(ids):
        numbers, index = torch.unique(channel, return_inverse=True)
        outside = int(0 in numbers)
        if len(numbers) - outside <= many:
            for number in numbers[numbers > 0].tolist():
                near = distance_to((channel == number)[None, None], spacing)[0, 0]
                first, second = _two_least(first, second, near)
            continue
        near, next = map(torch.from_numpy, distance_native.two_nearest((index + 1 - outside).numpy(), steps))
        first, second = _two_least(*_two_least(first, second, near), next)
    return first, second


@_two_nearest.register_fake
def _(ids: Tensor, spacing: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.empty(ids.shape[1:]), torch.empty(ids.shape[1:])


def _two_least(first: Tensor, second: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(first, other), torch.minimum(second, torch.maximum(first, other))


def _merged(ids: Tensor) -> Tensor:
    """One channel in place of several, where no voxel has two instances."""
    if len(ids) == 1 or bool(((ids > 0).sum(0) > 1).any()):
        return ids
    merged, before = torch.zeros_like(ids[:1]), 0
    for channel in ids:
        merged += torch.where(channel > 0, channel + before, 0)
        before += int(channel.amax())
    return merged
