"""Instances of masks as maps of ids: connected components, and the cells of what lies nearest to each."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.kernels.components import connected_components, nearest_component


@torch.no_grad()
def component_map(
    mask: Tensor, spacing: Tensor | None = None, valid: Tensor | None = None, *, faces: bool = False
) -> Tensor:
    """Id of the connected component of each voxel, 0 outside of the mask and where it does not count.

    Args:
        mask: (B, C, *S), each (sample, channel) by itself; above 0 is inside.
        spacing: without influence.
        valid: (B, 1 | C, *S) bool; the others are in no component.  None: all count.
        faces: only voxels that share a face are connected; else diagonal neighbors too.

    Returns:
        (B, C, *S) int32, numbered from 1 in the order of the first voxel.
    """
    inside = mask > 0
    return connected_components(inside if valid is None else inside & valid, faces=faces).int()


@torch.no_grad()
def component_cell_map(mask: Tensor, spacing: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
    """Id of the component nearest to each voxel, (B, C, *S) int32; see `nearest_component`.

    Args:
        mask, valid: as for `component_map`.
        spacing: (ndim,) or (B, ndim) in array axis order, in mm; None is 1.
    """
    return nearest_component(component_map(mask, None, valid), spacing).int()
