"""Centerlines of masks by scikit-image, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monai_segloss.kernels.arrays import volumes


def skeletons(mask: Tensor) -> Tensor:
    """The centerline of each mask (B, C, *S) bool, in 2-D or 3-D; a volume of one slice is thinned as a slice.

    Raises:
        ImportError: scikit-image is not installed.
    """
    found: Tensor = torch.ops.segloss.skeletons(mask)
    return found


# One operation, so that compilers and transforms of torch do not look inside.
@torch.library.custom_op("segloss::skeletons", mutates_args=(), schema="(Tensor mask) -> Tensor")
def _skeletons(mask: Tensor) -> Tensor:
    thin, out = _skeletonize(), torch.zeros(mask.shape, dtype=torch.bool)
    for found, array in zip(out.flatten(0, 1), volumes(mask), strict=True):
        if array.any():
            flat = array.squeeze()
            found[:] = torch.from_numpy(thin(flat if flat.ndim > 1 else array) > 0).view(found.shape)
    return out.to(mask.device)


@_skeletons.register_fake
def _(mask: Tensor) -> Tensor:
    return torch.empty(mask.shape, dtype=torch.bool, device=mask.device)


def _skeletonize() -> Callable[..., Any]:
    try:
        from skimage.morphology import skeletonize
    except ImportError:
        raise ImportError(
            "skeletons need scikit-image, which is not installed: pip install 'monai-segloss[skeleton]'"
        ) from None
    return skeletonize
