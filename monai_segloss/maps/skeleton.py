"""Skeletons of masks, and the tubes around them of Kirchhoff et al., ECCV 2024."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.check import non_negative
from monai_segloss.kernels.arrays import volumes
from monai_segloss.kernels.distance import distance_to
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
    return _skeleton(mask, per_class).float()


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
    mask = as_mask(mask) if valid is None else as_mask(mask) & valid
    lines = _skeleton(mask, per_class)
    if radius_mm is None:
        tube = grow(lines, int(non_negative(radius=radius)[0]))
    else:
        tube = distance_to(lines, spacing) <= non_negative(radius_mm=radius_mm)[0]
    return (tube & mask).float()


def _skeleton(mask: Tensor, per_class: bool) -> Tensor:
    skeletonize = _skeletonize()
    if mask.ndim not in (4, 5):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; a skeleton is defined in 2-D and 3-D.")
    union = mask if per_class else mask.any(1, keepdim=True)
    out = torch.zeros(union.shape, dtype=torch.bool)
    arrays = volumes(union).reshape(union.shape)
    for b, c in union.flatten(2).any(2).nonzero().tolist():
        out[b, c] = torch.from_numpy(skeletonize(arrays[b, c]) > 0)
    return out.to(mask.device) & mask


def _skeletonize() -> Callable[..., Any]:
    try:
        from skimage.morphology import skeletonize
    except ImportError:
        raise ImportError(
            "skeletons need scikit-image, which is not installed: pip install 'monai-segloss[skeleton]'"
        ) from None
    return skeletonize
