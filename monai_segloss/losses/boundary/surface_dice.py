"""Surface Dice by dilation: a smooth stand-in for the normalized surface Dice (NSD).  After MIST."""

from __future__ import annotations

import math
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reduce import Unreduced, quotient
from monai_segloss.core.registry import register
from monai_segloss.kernels.dilation import dilation
from monai_segloss.losses.boundary.neighborhood import (
    RatioArgs,
    Spacing,
    by_spacing,
    class_view,
    inner_band,
    radii,
    scored_maps,
    spanned,
    valid,
)

REACH = 1.25
"""Tolerance by default, in units of the largest spacing."""


def surface_dice(missed: Tensor, total: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """1 - 2 sum D_P D_G / (sum D_P + sum D_G), (B | 1, K), from what misses the other band and the size of both."""
    return quotient(missed + (smooth_dr - smooth_nr), total + smooth_dr)


def thick_contour(spacing: Spacing, u: Tensor, counted: Tensor | None, tolerance: float | None) -> Tensor:
    """Soft inner contour of masks (B, K, *S), one voxel wide, dilated by a box that covers the tolerance."""
    tolerance = REACH * max(spanned(spacing, u)) if tolerance is None else tolerance
    contour = inner_band(u, (1,) * len(spacing), counted)
    return dilation(contour, radii(tolerance, spacing), counted)


@register(
    "surface_dice",
    aliases=("nsd", "sddl", "surface_dice_dilation"),
    tags=("overlap", "contour", "morphology"),
)
class SurfaceDiceLoss(SegLoss):
    r"""Dice of the contours of prediction and target, both dilated by a tolerance in mm.

    Formula:
        1 - \frac{2 \sum D(\partial p)\, D(\partial g) + s_n}{\sum D(\partial p) + \sum D(\partial g) + s_d},\quad
        \partial u = u - (u \ominus 1),\quad D(u) = u \oplus \tau

    When:
        Alongside Dice or cross-entropy, where the normalized surface Dice (NSD) is what counts. A stand-in: bands as wide
        as the tolerance are compared, not surfaces, so that an error below the tolerance still costs. A contour far
        away has no gradient that leads it back; a flat prediction has no contour.

    The mean runs over samples and classes. The contour is a soft mask minus its erosion by one voxel along every axis.
    The dilation is the largest value in a box of ceil(tolerance / spacing) voxels to each side, so that the tolerance
    is one length along all axes. The metric counts surface within the tolerance of the other surface; here two bands
    overlap, so that the value falls with every voxel of a shift, and vanishes only where both contours are equal.
    Neither the border of the image nor an ignored voxel is a contour, and the gradient goes to the largest values of
    the boxes only.

    Args:
        tolerance: in the unit of the ``spacing`` of the call, in voxels without one; None: 1.25 times the largest spacing.
        include_background: whether channel 0 is scored; None: where channels are independent.
        batch, common: see `SegLoss`; an absent class that is not predicted costs 0 (MIST, without ``smooth_nr``: 1).

    Raises:
        ValueError: ``tolerance`` not above 0.

    Example:
        >>> import torch
        >>> from monai_segloss import SurfaceDiceLoss
        >>> label = torch.zeros(1, 1, 16, 16).long()
        >>> label[..., 4:12, 4:12] = 1
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = SurfaceDiceLoss(softmax=True, to_onehot_y=True)
        >>> [round(loss(logits.roll(k, dims=3), label, spacing=(1.0, 1.0)).item(), 4) for k in (0, 1, 2)]
        [0.0, 0.1, 0.2]

    Reference:
        Celaya et al., MIST: the medical imaging segmentation toolkit, arXiv:2407.21343; Nikolov et al.,
        arXiv:1809.04430 (the metric).

        The formula is that of MIST as its code has it. It was not verified against a text.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

    def __init__(
        self,
        *,
        tolerance: float | None = None,
        include_background: bool | None = None,
        batch: bool = False,
        **common: Unpack[RatioArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **common)
        self.background = include_background
        if tolerance is not None and not 0 < tolerance < math.inf:
            raise ValueError(f"tolerance must be above 0, or None, got {tolerance!r}.")
        self.tolerance = tolerance

    def loss(self, batch: SegBatch) -> Unreduced:
        view, counted = class_view(batch, self.background, self.batch), valid(batch)
        p, g = (by_spacing(thick_contour, batch, u, counted, self.tolerance) for u in scored_maps(batch, view))
        missed, total = (view.reduce_batch(batch.total(x)) for x in (p * (1 - g) + g * (1 - p), p + g))
        return Unreduced.table(surface_dice(missed, total, self.smooth_nr, self.smooth_dr), view.voxel_count)
