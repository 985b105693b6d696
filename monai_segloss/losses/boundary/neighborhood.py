"""Neighborhoods of voxels, which losses of contours share.

An ignored voxel is in no neighborhood, and neither is what lies beyond the image unless a function says otherwise: what
is cut off there is no contour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.module import ReadingArgs
from monai_segloss.core.reduce import Unreduced
from monai_segloss.kernels.dilation import dilation

Spacing = tuple[float, ...]
"""Voxel spacing of one sample, in array axis order."""
FARTHEST = 2**31
"""Voxels that no axis has."""


class RatioArgs(ReadingArgs, total=False):
    """Shared arguments of the ratios of sums."""

    smooth_nr: float
    smooth_dr: float


def class_view(batch: SegBatch, include_background: bool | None, over_batch: bool = False) -> ClassView:
    """The view of the scored classes; None leaves channel 0 out where there is one class per voxel."""
    return batch.class_view(batch.multilabel if include_background is None else include_background, over_batch)


def scored_maps(batch: SegBatch, view: ClassView) -> tuple[Tensor, Tensor]:
    """Probabilities and target of the scored classes, (B, K, *S), both 0 where ignored."""
    p, g = view.prob, batch.one_hot[:, view.first :]
    if batch.mask is not None:
        p = p.masked_fill(~batch.mask[:, None], 0)
    return p, g.to(p.dtype)


def valid(batch: SegBatch) -> Tensor | None:
    """The voxels that count, (B, 1, *S), or None."""
    require_spatial(batch)
    return None if batch.mask is None else batch.mask[:, None]


def mean_table(x: Tensor, batch: SegBatch) -> Unreduced:
    """The mean over the voxels that count of a map (B, K, *S) that is 0 elsewhere, per (sample, class)."""
    return Unreduced.table(x.flatten(2).sum(2) / batch.voxels.clamp_min(1), batch.voxels)


def by_spacing(f: Callable[..., Tensor], batch: SegBatch, *maps: Any) -> Tensor:
    """``f(spacing, *maps)`` of the batch, or of sample after sample where their spacing differs; what is no map stays."""
    require_spatial(batch)
    rows = spacing_rows(batch)
    if len(set(rows)) == 1:
        return f(rows[0], *maps)
    one = [f(row, *(x[b : b + 1] if isinstance(x, Tensor) else x for x in maps)) for b, row in enumerate(rows)]
    return torch.cat(one)


def spacing_rows(batch: SegBatch) -> tuple[Spacing, ...]:
    """The spacing in numbers: one row for all samples, or one per sample; 1 where none was given."""
    if batch.spacing is None:
        return ((1.0,) * (batch.ndim - 2),)
    if batch.spacing_rows is not None:
        return batch.spacing_rows
    return tuple(tuple(row) for row in batch.spacing.reshape(-1, batch.ndim - 2).tolist())


def require_spatial(batch: SegBatch) -> None:
    """Voxels without a place, (B, C), have no neighbors."""
    if batch.ndim < 3:
        raise LossShapeError(
            f"input has shape {tuple(batch.logits.shape)}; a loss of neighborhoods needs spatial axes."
        )


def radii(length: float, spacing: Spacing) -> tuple[int, ...]:
    """Voxels along each axis that cover a length in the unit of the spacing, at least one."""
    return tuple(max(1, math.ceil(min(length / step, FARTHEST) - 1e-6)) for step in spacing)


def spanned(spacing: Spacing, x: Tensor) -> Spacing:
    """The spacing of the axes of (B, K, *S) that have several voxels: a slice is its volume, however thick."""
    return tuple(step for step, n in zip(spacing, x.shape[2:], strict=True) if n > 1) or spacing


def scaled_radii(radius: int, spacing: Spacing, x: Tensor) -> tuple[int, ...]:
    """A radius in voxels of the finest axis of (B, K, *S), as voxels of each axis."""
    return radii(radius * min(spanned(spacing, x)), spacing) if radius else (0,) * len(spacing)


def inner_band(x: Tensor, radius: tuple[int, ...], counted: Tensor | None = None) -> Tensor:
    """What erosion takes away: the voxels of a mask that are near another side, 0 where ignored."""
    rest = 1 - x
    band = dilation(rest, radius, counted) - rest  # exactly 0 where the mask is flat
    return band if counted is None else band * counted
