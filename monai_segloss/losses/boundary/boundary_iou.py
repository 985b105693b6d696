"""Boundary IoU as a loss.  The metric: Cheng et al., CVPR 2021."""

from __future__ import annotations

import math
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
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
from monai_segloss.losses.region.dice import one_minus_ratio

SHARE = 0.02
"""Width of the band by default, as a share of the diagonal of the image."""


def boundary_iou(overlap: Tensor, error: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """1 - I / (I + error) of the bands, (B | 1, C), written as its complement."""
    return one_minus_ratio(overlap, error, smooth_nr, smooth_dr)


def band(spacing: Spacing, u: Tensor, counted: Tensor | None, width: float | None) -> Tensor:
    """Voxels of a soft mask (B, K, *S) within ``width`` of another side; None: `SHARE` of the diagonal."""
    if width is None:
        width = SHARE * math.sqrt(sum((n * s) ** 2 for n, s in zip(u.shape[2:], spacing, strict=True) if n > 1))
    return inner_band(u, radii(width, spacing), counted)


@register(
    "boundary_iou",
    tags=("overlap", "contour", "morphology"),
)
class BoundaryIoULoss(SegLoss):
    r"""One minus the IoU of the bands along the inner side of the boundaries of prediction and target.

    Formula:
        1 - \frac{\sum b(p)\, b(g) + s_n}{\sum b(p) + b(g) - b(p)\, b(g) + s_d},\quad b(u) = u - (u \ominus B_w)

    When:
        Alongside Dice or cross-entropy, to train what the Boundary IoU metric measures. Far from the target it has no
        gradient that leads there, and a flat prediction has no band; nobody published it as a loss, so compare with
        dice_ce.

    The erosion is by a box; the mean runs over samples and classes. The metric counts the border of the image as
    boundary; here it is none, because training sees patches, and neither are ignored voxels. The gradient of an erosion
    goes to the smallest value of each box only. The band is a box of the fewest whole voxels that cover its width, at
    least one per axis (the metric rounds).

    Args:
        width: of the band, in the unit of the ``spacing`` of the call, in voxels without one; None: 2 % of the diagonal of
            the image, the metric's value, which depends on the size of the patch.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Raises:
        ValueError: ``width`` not above 0.

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

    Reference:
        Cheng, Girshick, Dollár, Berg & Kirillov, Boundary IoU, CVPR 2021 (the metric), arXiv:2103.16562.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

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
        p, g = (by_spacing(band, batch, u, valid(batch), self.width) for u in scored_maps(batch, view))
        overlap, error = (view.reduce_batch(batch.total(x)) for x in (p * g, p * (1 - g) + g * (1 - p)))
        return Unreduced.table(boundary_iou(overlap, error, self.smooth_nr, self.smooth_dr), view.voxel_count)
