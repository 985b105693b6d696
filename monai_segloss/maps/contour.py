"""Contours of masks, in voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.check import one_of
from monai_segloss.maps.masks import as_mask, grow

CONNECTIVITIES = ("face", "full")


@torch.no_grad()
def contour_map(
    mask: Tensor,
    valid: Tensor | None = None,
    *,
    width: int = 1,
    both_sides: bool = False,
    connectivity: str = "face",
    border_is_boundary: bool = False,
) -> Tensor:
    """1 on the voxels of a mask within ``width`` steps of its outside, 0 elsewhere.

    Args:
        mask: (B, C, *S).
        valid: (B, 1 | C, *S) bool; other voxels have 0 and make no contour.
        width: in voxels.
        both_sides: also the voxels outside, within ``width`` steps of the mask.
        connectivity: a step leads over a ``"face"``, or with ``"full"`` also over an edge or a corner.
        border_is_boundary: beyond the edge of the image is outside.  Patches cut organs, so by default it is not.

    Returns:
        (B, C, *S) float32.

    Example:
        >>> import torch
        >>> from monai_segloss.maps import contour_map
        >>> contour_map(torch.tensor([[[0, 1, 1, 1, 1]]])).tolist()
        [[[0.0, 1.0, 0.0, 0.0, 0.0]]]
        >>> contour_map(torch.tensor([[[0, 1, 1, 1, 1]]]), border_is_boundary=True).tolist()
        [[[0.0, 1.0, 0.0, 0.0, 1.0]]]
    """
    one_of(CONNECTIVITIES, connectivity=connectivity)
    if width < 1:
        raise ValueError(f"width must be at least 1 voxel, got {width!r}.")
    full, inside = connectivity == "full", as_mask(mask)
    counted = torch.ones_like(inside) if valid is None else valid.expand(inside.shape)
    outside = ~inside & counted
    if border_is_boundary:
        shell = [1, 1] * (mask.ndim - 2)
        near = grow(torch.nn.functional.pad(outside, shell, value=True), width, full)
        for axis in range(2, mask.ndim):
            near = near.narrow(axis, 1, mask.shape[axis])
    else:
        near = grow(outside, width, full)
    contour = inside & near
    if both_sides:
        contour = contour | (outside & grow(inside & counted, width, full))
    return (contour & counted).float()
