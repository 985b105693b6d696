"""Cross-entropy with more weight near contours.  Chen et al., IEEE TIP 2021."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.kernels.dilation import dilation
from monai_segloss.kernels.filters import gaussian, smooth_axis
from monai_segloss.losses.boundary.boundary_f1 import half_window
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, scaled_radii, spanned, valid
from monai_segloss.losses.voxel.cross_entropy import cross_entropy


def contour_weight(spacing: Spacing, ring: Tensor, counted: Tensor, k: float, radius: int, sigma: float) -> Tensor:
    """1 + k times the ring (B, 1, *S) after a Gaussian, whose window and width are voxels of the finest axis."""
    total, share = ring * counted, counted
    for axis, (r, step) in enumerate(zip(scaled_radii(radius, spacing, ring), spacing, strict=True), start=2):
        kernel = gaussian(2 * r + 1, sigma * min(spanned(spacing, ring)) / step)
        total, share = (smooth_axis(x, axis, kernel) for x in (total, share))
    return 1 + k * total / share.clamp_min(torch.finfo(share.dtype).tiny)


def label_ring(spacing: Spacing, labels: Tensor, counted: Tensor, classes: int, radius: int) -> Tensor:
    """1 where the box around a voxel holds two labels (B, 1, *S), 0 elsewhere."""
    box = scaled_radii(radius, spacing, labels)
    largest, smallest = dilation(labels + 1, box, counted), dilation(classes - labels, box, counted)
    return (largest + smallest != classes + 1).to(labels.dtype)


def channel_ring(spacing: Spacing, g: Tensor, counted: Tensor, radius: int) -> Tensor:
    """Dilation minus erosion of the channels (B, K, *S), the largest of them, (B, 1, *S)."""
    box = scaled_radii(radius, spacing, g)
    return (dilation(g, box, counted) + dilation(1 - g, box, counted) - 1).amax(1, keepdim=True)


@register(
    "contour_aware",
    aliases=("contour_loss",),
    tags=("likelihood", "contour", "morphology"),
    recommended=Recommended(include_background=None, batch=None),
)
class ContourAwareLoss(SegLoss):
    r"""Cross-entropy whose voxels near a contour of the target weigh more.

    Formula:
        \frac{1}{N} \sum_i M_i\, \mathrm{CE}_i,\quad M = 1 + k\, G_\sigma * (g \oplus B - g \ominus B)

    When:
        A cheap way to boundaries: no distance map, no second term to balance. Where annotators disagree on the boundary
        it puts the weight on the noisiest voxels.

    CE is `CrossEntropyLoss`. The ring is dilation minus erosion in a window of ``size`` voxels, the largest of all
    foreground classes; the Gaussian has the same window. Windows and ``sigma`` are voxels of the finest axis; along an
    axis with coarser ``spacing`` they shrink to the same length. Beyond the edge of the image its last voxels repeat.
    Ignored voxels are in no window. The divisor is the number of voxels, not the sum of the weights. With sigmoid the
    binary cross-entropy of all channels has the same weights.

    Args:
        k: weight that a voxel on the ring gains.
        size: edge of the windows, odd.
        sigma: standard deviation of the Gaussian.
        reading: see `SegLoss`; ``reduction="none"`` gives one value per voxel.

    Raises:
        ValueError: ``size`` that is no odd number; ``sigma`` not above 0.

    Example:
        >>> import torch
        >>> from monai_segloss import ContourAwareLoss
        >>> label = torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]]])
        >>> loss = ContourAwareLoss(softmax=True, to_onehot_y=True, reduction="none")
        >>> values = loss(torch.zeros(1, 2, 12), label) / 0.6931
        >>> [round(x, 2) for x in values.flatten()[:6].tolist()]  # the ring are the four voxels in the middle
        [1.0, 1.0, 1.27, 2.49, 4.51, 5.73]

    Reference:
        Chen, Zhou, Lai, Yang & Xie, Contour-aware loss: boundary-aware learning for salient object segmentation, IEEE
        TIP 30, 2021, arXiv:1908.01975.

        The formula was not verified against the paper, which is said not to state ``sigma``; 1 is this library's
        choice.
    """

    formula_arguments = ()

    def __init__(self, *, k: float = 5.0, size: int = 5, sigma: float = 1.0, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        self.k, self.sigma = non_negative(k=k, sigma=sigma)
        if not self.sigma:
            raise ValueError("sigma must be above 0.")
        self.radius = half_window("size", size)

    def loss(self, batch: SegBatch) -> Unreduced:
        value = cross_entropy(batch, weight_map=self.weight_map(batch)[:, 0]).per_voxel()
        return Unreduced(value if self.reduction == "none" else value.flatten(2).sum(2), batch.voxels)

    def weight_map(self, batch: SegBatch) -> Tensor:
        """M (B, 1, *S)."""
        mask, dtype = valid(batch), batch.voxels.dtype
        counted = torch.ones_like(batch.logits[:, :1], dtype=dtype) if mask is None else mask.to(dtype)
        if batch.has_labels:
            labels = batch.labels[:, None].to(dtype)
            ring = by_spacing(label_ring, batch, labels, counted, batch.classes, self.radius)
        else:
            g = batch.one_hot[:, 0 if batch.multilabel else 1 :].to(dtype)
            ring = by_spacing(channel_ring, batch, g, counted, self.radius)
        return by_spacing(contour_weight, batch, ring, counted, self.k, self.radius, self.sigma)
