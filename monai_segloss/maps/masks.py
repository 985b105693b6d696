"""Masks of classes, and what one step of growing or shrinking does to them, in voxels."""

from __future__ import annotations

import torch
from torch import Tensor


def class_masks(labels: Tensor, num_classes: int, include_background: bool = True) -> Tensor:
    """Masks of the classes of a map of labels (B, 1, *S): (B, num_classes, *S) bool, or without channel 0.

    A label outside of 0 to ``num_classes`` - 1, such as an ignored one, is in no mask.
    """
    first = 0 if include_background else 1
    classes = torch.arange(first, num_classes, device=labels.device)
    return labels == classes.view(1, -1, *(1,) * (labels.ndim - 2))


def as_mask(x: Tensor) -> Tensor:
    """A mask as bool; above 1/2 is inside."""
    return x if x.dtype == torch.bool else x > 0.5


def grow(mask: Tensor, steps: int = 1, full: bool = False) -> Tensor:
    """The mask and its neighbors within so many steps, over faces, or with ``full`` also over edges and corners."""
    for _ in range(steps):
        out = mask
        for axis in range(2, mask.ndim):
            source = out if full else mask
            length = mask.shape[axis]
            after, before = source.narrow(axis, 0, length - 1), source.narrow(axis, 1, length - 1)
            edge = torch.zeros_like(source.narrow(axis, 0, 1))
            out = out | torch.cat((edge, after), axis) | torch.cat((before, edge), axis)
        mask = out
    return mask


def inner_boundary(mask: Tensor, valid: Tensor | None = None, full: bool = False) -> Tensor:
    """Voxels of a mask with a neighbor outside of it; neither the edge of the image nor what is not valid is outside."""
    if valid is None:
        return mask & grow(~mask, full=full)
    return mask & valid & grow(~mask & valid, full=full)
