from __future__ import annotations

import math

from torch import Tensor

from monai_segloss.core.card import SegLoss, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.kernels.recomputed import by_class, totals
from monai_segloss.losses.boundary.neighborhood import (
    RatioArgs,
    Spacing,
    by_spacing,
    class_view,
    inner_band,
    radii,
    scored_maps,
    valid,
)
from monai_segloss.losses.region.dice_form import one_minus_ratio

SHARE = 0.02
"""Width of the band by default, as a share of the diagonal of the image."""


@register("boundary_iou", tags=("overlap", "contour", "morphology"))
class BoundaryIoULoss(SegLoss):
    r"""One minus the IoU of the bands along the inner side of the boundaries of prediction and target.

    Formula: 1 - \frac{\sum b(p)\, b(g) + s_n}{\sum b(p) + b(g) - b(p)\, b(g) + s_d},\quad b(u) = u - (u \ominus B_w)

    When: Alongside Dice or cross-entropy, to train what the Boundary IoU metric measures. Far from the target it has no
    gradient that leads there, and a flat prediction has no band; nobody published it as a loss, so compare with
    dice_ce.

    The erosion is by a box; the mean runs over samples and classes. The metric counts the border of the image as
    boundary; here it is none, because training sees patches, and neither are ignored voxels. The gradient of an erosion
    goes to the smallest value of each box only. The band is a box of the fewest whole voxels that cover its width, at
    least one per axis (the metric rounds).

    Args:
        width: of the band, above 0, in the unit of the ``spacing`` of the call, in voxels without one; None: 2 % of the
            diagonal of the image, the metric's value, which depends on the size of the patch.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Example:
        >>> import torch
        >>> from monai_segloss import BoundaryIoULoss
        >>> label = torch.zeros(1, 1, 9, 9).long()
        >>> label[..., 2:7, 2:7] = 1  # a band of 16 voxels
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> logits = logits.roll(1, dims=3)  # the bands share 8 voxels of their 24
        >>> loss = BoundaryIoULoss(softmax=True, to_onehot_y=True, width=1)
        >>> round(loss(logits, label).item(), 4)
        0.6667

    Reference: Cheng, Girshick, Dollár, Berg & Kirillov, Boundary IoU, CVPR 2021 (the metric), arXiv:2103.16562.
    """

    def __init__(
        self,
        *,
        width: float | None = None,
        include_background: bool | None = None,
        batch: bool = False,
        **common: Unpack[RatioArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **common)
        self.background = include_background
        if width is not None and not 0 < width < math.inf:
            raise ValueError(f"width must be above 0, or None, got {width!r}.")
        self.width = width

    def loss(self, batch: SegBatch) -> Unreduced:
        view = class_view(batch, self.background, self.batch)
        sums = by_spacing(band_sums, batch, *scored_maps(batch, view), valid(batch), self.width)
        overlap, error = (view.reduce_batch(x) for x in sums.unbind(2))
        return Unreduced.table(boundary_iou(overlap, error, self.smooth_nr, self.smooth_dr), view.voxel_count)


def boundary_iou(overlap: Tensor, error: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """1 - I / (I + error) of the bands, (B | 1, C), written as its complement."""
    return one_minus_ratio(overlap, error, smooth_nr, smooth_dr)


def band_sums(spacing: Spacing, p: Tensor, g: Tensor, counted: Tensor | None, width: float | None) -> Tensor:
    """Overlap and difference of the bands of soft masks (B, K, *S) within ``width`` of another side, (B, K, 2).

    None: `SHARE` of the diagonal.
    """
    if width is None:
        width = SHARE * math.sqrt(sum((n * s) ** 2 for n, s in zip(p.shape[2:], spacing, strict=True) if n > 1))
    radius = radii(width, spacing)

    def table(rows: slice, p: Tensor, g: Tensor, counted: Tensor | None) -> Tensor:
        p, g = (inner_band(u.to(p.dtype), radius, counted) for u in (p, g))
        return totals(rows, counted, p * g, p * (1 - g) + g * (1 - p))

    return by_class(table, radius[0], p, g, counted)
