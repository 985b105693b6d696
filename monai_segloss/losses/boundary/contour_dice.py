"""Contour Dice.  Specktor-Fadida et al., ECCV Workshops 2022."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reduce import Unreduced, quotient
from monai_segloss.core.registry import register
from monai_segloss.kernels.dilation import dilation, erosion
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


def contour_dice(missed: Tensor, total: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """1 - (sum dG B_P + sum dP B_G) / (sum dG + sum dP), (B | 1, C), from what the bands miss of the contours."""
    return quotient(missed + (smooth_dr - smooth_nr), total + smooth_dr)


@register(
    "contour_dice",
    tags=("overlap", "contour", "morphology"),
)
class ContourDiceLoss(SegLoss):
    r"""One minus the share of the contours of prediction and target that lies in the band of the other.

    Formula:
        1 - \frac{\sum \partial g\, B(p) + \partial p\, B(g) + s_n}{\sum \partial g + \partial p + s_d},\quad \partial u
        = u - (u \ominus 1),\quad B(u) = (u \oplus d) - (u \ominus d)

    When:
        Alongside Dice or cross-entropy, for structures with fuzzy contours, where disagreement within a tolerance is no
        error. A contour outside of the band has no gradient that leads it there; a flat prediction has no contour.

    The contour is a soft mask minus its erosion by one voxel, the band its dilation minus its erosion by ``tolerance``.
    The mean runs over samples and classes. Neither the border of the image nor an ignored voxel is a contour.

    Args:
        tolerance: half width of the band, in the unit of the ``spacing`` of the call, in voxels without one; a box of whole
            voxels, at least one to each side along every axis.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Raises:
        ValueError: ``tolerance`` not above 0.

    Example:
        >>> import torch
        >>> from monai_segloss import ContourDiceLoss
        >>> label = torch.zeros(1, 1, 12, 12).long()
        >>> label[..., 2:7, 2:7] = 1
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = ContourDiceLoss(softmax=True, to_onehot_y=True)
        >>> [round(loss(logits.roll(k, dims=3), label).item(), 4) for k in (1, 2, 3)]
        [0.0, 0.0625, 0.3125]

    Reference:
        Specktor-Fadida, Yehuda et al., Contour Dice loss for structures with fuzzy and complex boundaries in fetal MRI,
        ECCV Workshops 2022, arXiv:2209.12232; Moltz et al., ISBI 2020 (the metric).

        The formula is from the abstract and was not verified against the paper: the width of the band and the soft
        contours are choices of this library. The loss that surveys list for J. Moltz et al., ISBI 2020, is a network
        that approximates the metric, not a formula.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

    def __init__(
        self,
        *,
        tolerance: float = 2.0,
        include_background: bool | None = None,
        batch: bool = False,
        **common: Unpack[RatioArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **common)
        self.background = include_background
        (self.tolerance,) = non_negative(tolerance=tolerance)
        if not self.tolerance:
            raise ValueError("tolerance must be above 0.")

    def loss(self, batch: SegBatch) -> Unreduced:
        view, counted = class_view(batch, self.background, self.batch), valid(batch)
        p, g = scored_maps(batch, view)
        one = (1,) * (batch.ndim - 2)
        edges = [inner_band(u, one, counted) for u in (g, p)]
        bands = [by_spacing(band, batch, u, counted, self.tolerance) for u in (p, g)]
        missed = [edge * (1 - near) for edge, near in zip(edges, bands, strict=True)]
        lost, total = (view.reduce_batch(batch.total(a + b)) for a, b in (missed, edges))
        return Unreduced.table(contour_dice(lost, total, self.smooth_nr, self.smooth_dr), view.voxel_count)


def band(spacing: Spacing, u: Tensor, counted: Tensor | None, tolerance: float) -> Tensor:
    """Voxels near a boundary, on both of its sides, softly (B, K, *S)."""
    radius = radii(tolerance, spacing)
    return dilation(u, radius, counted) - erosion(u, radius, counted)
