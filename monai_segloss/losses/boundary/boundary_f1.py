from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import SegLoss, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced, quotient
from monai_segloss.kernels.dilation import dilation
from monai_segloss.kernels.recomputed import by_class, totals
from monai_segloss.losses.boundary.neighborhood import (
    RatioArgs,
    Spacing,
    by_spacing,
    class_view,
    inner_band,
    scaled_radii,
    scored_maps,
    valid,
)


@register("boundary_f1", aliases=("boundary_f1_score", "bf1"), tags=("overlap", "contour", "morphology"))
class BoundaryF1Loss(SegLoss):
    r"""One minus the F1 score of contours that meet within a tolerance.

    Formula: 1 - \frac{2 P R}{P + R},\quad P = \frac{\sum b(p)\, \hat b(g)}{\sum b(p)},\quad R = \frac{\sum b(g)\, \hat
    b(p)}{\sum b(g)}

    When: Alongside Dice, cross-entropy or Jaccard, whose weight the authors lower as training goes on. Contours farther
    apart than the tolerance have no gradient that leads them together; a flat prediction has no contour.

    b(u) is u minus its erosion in a window of ``contour`` voxels; its wide form is the largest b in a window of
    ``tolerance`` voxels. Windows are voxels of the finest axis. Along an axis with coarser ``spacing`` they shrink to
    the same length, at least one voxel to each side. Neither the border of the image nor an ignored voxel is a contour.

    Args:
        contour: edge of the window of the contour, an odd number of voxels; theta_0 of the paper.
        tolerance: edge of the window of the tolerance, likewise; theta of the paper.
        include_background: whether channel 0 is scored; None: where channels are independent.
        smooth_nr, smooth_dr: added to numerator and denominator of precision and of recall.

    Example:
        >>> import torch
        >>> from monai_segloss import BoundaryF1Loss
        >>> label = torch.zeros(1, 1, 12, 12).long()
        >>> label[..., 2:7, 2:7] = 1
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = BoundaryF1Loss(softmax=True, to_onehot_y=True)
        >>> [round(loss(logits.roll(k, dims=3), label).item(), 4) for k in (2, 3, 4)]  # a shift within the tolerance is free
        [0.0, 0.3125, 0.4375]

    Reference: Bokhovkin & Burnaev, Boundary loss for remote sensing imagery semantic segmentation, ISNN 2019,
    arXiv:1905.07852.
    """

    def __init__(
        self,
        *,
        contour: int = 3,
        tolerance: int = 5,
        include_background: bool | None = None,
        batch: bool = False,
        **common: Unpack[RatioArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **common)
        self.background = include_background
        self.contour, self.tolerance = (
            half_window(name, edge) for name, edge in (("contour", contour), ("tolerance", tolerance))
        )

    def loss(self, batch: SegBatch) -> Unreduced:
        view, counted = class_view(batch, self.background, self.batch), valid(batch)
        sums = by_spacing(contour_sums, batch, *scored_maps(batch, view), counted, self.contour, self.tolerance)
        of_p, of_g = ([view.reduce_batch(x) for x in each.unbind(2)] for each in (sums[..., :2], sums[..., 2:]))

        def met(missed: Tensor, total: Tensor) -> Tensor:
            return 1 - quotient(missed + (self.smooth_dr - self.smooth_nr), total + self.smooth_dr)

        return Unreduced.table(boundary_f1(met(*of_p), met(*of_g)), view.voxel_count)


def boundary_f1(precision: Tensor, recall: Tensor) -> Tensor:
    """1 - 2 P R / (P + R) per (sample, class), (B | 1, C)."""
    return 1 - 2 * precision * recall / (precision + recall).clamp_min(1e-12)


def half_window(name: str, edge: int) -> int:
    """Voxels to each side of the center of a window."""
    if not 1 <= edge < float("inf") or edge % 2 != 1:
        raise ValueError(f"{name} must be an odd number of voxels, at least 1, got {edge!r}.")
    return int(edge) // 2


def contour_sums(
    spacing: Spacing, p: Tensor, g: Tensor, counted: Tensor | None, contour: int, tolerance: int
) -> Tensor:
    """Of the soft inner contours of masks (B, K, *S) what lies off the other one, and their size, (B, K, 2 each)."""
    thin, wide = (scaled_radii(radius, spacing, p) for radius in (contour, tolerance))

    def table(rows: slice, p: Tensor, g: Tensor, counted: Tensor | None) -> Tensor:
        p, g = (inner_band(u.to(p.dtype), thin, counted) for u in (p, g))
        wide_p, wide_g = (dilation(b, wide, counted) for b in (p, g))
        return totals(rows, counted, p * (1 - wide_g), p, g * (1 - wide_p), g)

    return by_class(table, thin[0] + wide[0], p, g, counted)
