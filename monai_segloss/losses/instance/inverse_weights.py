"""Weights of voxels by which every component of a sample weighs the same.  Shirokikh et al., MICCAI 2020."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.exact import widest_dtype
from monai_segloss.kernels.components import Segments


def inverse_weights(batch: SegBatch, ids: Tensor, clip: tuple[float, float] | None, joint: bool = False) -> Tensor:
    """N / ((K + 1) |L_j|) for a voxel of the component L_j, of K, and of the background L_0; 0 where ignored.

    The weights of a sample sum to N, its number of voxels, before clipping.  Without a background there are K groups.

    Args:
        batch: the batch as read.
        ids: components, (B, C', *S).
        clip: lowest and highest weight, or None.
        joint: the components of all classes share one background, (B, 1, *S); else each class by itself, (B, C', *S).
    """
    segments = Segments.of(ids)
    samples, classes, *space = ids.shape
    size = torch.bincount(segments.segment, minlength=len(segments.owner)).to(widest_dtype(ids.device))
    row, voxel = segments.owner, segments.voxel
    if joint:
        edge = ids.shape[2:].numel()
        row = row.div(classes, rounding_mode="floor")
        voxel = voxel.div(edge * classes, rounding_mode="floor") * edge + voxel % edge
        classes = 1
    rows = samples * classes
    n = batch.voxels.to(size.dtype).expand(samples, classes).flatten()
    background = n - n.new_zeros(rows).index_add(0, row, size)
    groups = torch.bincount(row, minlength=rows) + (background > 0)
    outside = n / (groups * background).clamp_min(1)
    inside = n[row] / (groups[row] * size)
    weights = outside[:, None].repeat(1, ids.shape[2:].numel()).flatten()
    weights[voxel] = inside[segments.segment]
    if clip is not None:
        weights = weights.clamp(*clip)
    weights = weights.view(samples, classes, *space).to(batch.masked_logits.dtype)
    return weights if batch.mask is None else weights.masked_fill(~batch.mask[:, None], 0)
