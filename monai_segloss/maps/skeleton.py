"""Skeletons of masks, and the tubes around them of Kirchhoff et al., ECCV 2024."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.check import non_negative
from monai_segloss.kernels.distance import distance_to
from monai_segloss.kernels.skeletons import skeletons
from monai_segloss.maps.masks import as_mask, grow


@torch.no_grad()
def skeleton_map(mask: Tensor, valid: Tensor | None = None, *, per_class: bool = True) -> Tensor:
    """1 on the centerline of each mask, 0 elsewhere; 2-D or 3-D, on the CPU, by scikit-image (extra ``skeleton``).

    Args:
        mask: (B, C, *S), classes without the background.
        valid: (B, 1 | C, *S) bool; other voxels are in no mask.
        per_class: False: the skeleton of the union of all masks, cut by each mask, as published: classes that touch share
            a skeleton, and a class may be left without.

    Returns:
        (B, C, *S) float32.

    Raises:
        ImportError: scikit-image is not installed.
    """
    mask = as_mask(mask) if valid is None else as_mask(mask) & valid
    return (_skeleton(mask, per_class) & mask).float()


@torch.no_grad()
def tubed_skeleton_map(
    mask: Tensor,
    spacing: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    radius: int = 2,
    radius_mm: float | None = None,
    per_class: bool = True,
) -> Tensor:
    """1 within a radius of the centerline of each mask and inside of it, 0 elsewhere.

    Args:
        mask, valid, per_class: as for `skeleton_map`.
        spacing: (ndim,) or (B, ndim) in array axis order, in mm, for ``radius_mm``.
        radius: of the tube in steps over faces; published code takes 2.
        radius_mm: of the tube in mm, in place of ``radius``.

    Returns:
        (B, C, *S) float32.
    """
    tube_settings(radius, radius_mm, per_class)
    mask = as_mask(mask) if valid is None else as_mask(mask) & valid
    lines = _skeleton(mask, per_class)
    tube = (
        grow(lines, min(int(radius), sum(mask.shape)))
        if radius_mm is None
        else distance_to(lines, spacing) <= radius_mm
    )
    return (tube & mask).float()


def tube_settings(radius: int, radius_mm: float | None, per_class: bool) -> dict[str, Any]:
    """The settings of `tubed_skeleton_map`, checked.

    Raises:
        ValueError: a radius that is negative, or no whole number where it counts steps.
    """
    non_negative(radius=radius)
    if radius != int(radius):
        raise ValueError(f"radius must be a whole number of at least 0, got {radius!r}; a length is radius_mm.")
    if radius_mm is not None:
        (radius_mm,) = non_negative(radius_mm=radius_mm)
    return {"radius": int(radius), "radius_mm": radius_mm, "per_class": bool(per_class)}


def _skeleton(mask: Tensor, per_class: bool) -> Tensor:
    """The centerlines of the masks (B, C, *S), or of their union (B, 1, *S)."""
    if mask.ndim not in (4, 5):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; a skeleton is defined in 2-D and 3-D.")
    return skeletons(mask if per_class else mask.any(1, keepdim=True))
