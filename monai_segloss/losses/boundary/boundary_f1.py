"""F1 score of contours as a loss.  Bokhovkin & Burnaev, ISNN 2019."""

from __future__ import annotations

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
    scaled_radii,
    scored_maps,
    valid,
)


def boundary_f1(precision: Tensor, recall: Tensor) -> Tensor:
    """1 - 2 P R / (P + R) per (sample, class), (B | 1, C)."""
    return 1 - 2 * precision * recall / (precision + recall).clamp_min(1e-12)


@register(
    "boundary_f1",
    aliases=("boundary_f1_score", "bf1"),
    tags=("overlap", "contour", "morphology"),
)
class BoundaryF1Loss(SegLoss):
    r"""One minus the F1 score of contours that meet within a tolerance.

    Formula:
        1 - \frac{2 P R}{P + R},\quad P = \frac{\sum b(p)\, \hat b(g)}{\sum b(p)},\quad R = \frac{\sum b(g)\, \hat
        b(p)}{\sum b(g)}

    When:
        Alongside Dice, cross-entropy or Jaccard, whose weight the authors lower as training goes on. Contours farther
        apart than the tolerance have no gradient that leads them together; a flat prediction has no contour.

    b(u) is u minus its erosion in a window of ``contour`` voxels; its wide form is the largest b in a window of
    ``tolerance`` voxels. Windows are voxels of the finest axis. Along an axis with coarser ``spacing`` they shrink to
    the same length, at least one voxel to each side. Neither the border of the image nor an ignored voxel is a contour.

    Args:
        contour: edge of the window of the contour, odd; theta_0 of the paper.
        tolerance: edge of the window of the tolerance, odd; theta of the paper.
        include_background: whether channel 0 is scored; None: where channels are independent.
        batch, common: see `SegLoss`; ``smooth_nr`` and ``smooth_dr`` belong to precision and recall.

    Raises:
        ValueError: a window that is no odd number of voxels.

    Example:
        >>> import torch
        >>> from monai_segloss import BoundaryF1Loss
        >>> label = torch.zeros(1, 1, 12, 12).long()
        >>> label[..., 2:7, 2:7] = 1
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = BoundaryF1Loss(softmax=True, to_onehot_y=True)
        >>> [round(loss(logits.roll(k, dims=3), label).item(), 4) for k in (2, 3, 4)]  # a shift within the tolerance is free
        [0.0, 0.3125, 0.4375]

    Reference:
        Bokhovkin & Burnaev, Boundary loss for remote sensing imagery semantic segmentation, ISNN 2019,
        arXiv:1905.07852.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

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
        p, g = (by_spacing(contours, batch, u, counted, self.contour) for u in scored_maps(batch, view))
        wide_p, wide_g = (by_spacing(widened, batch, b, counted, self.tolerance) for b in (p, g))

        def met(b: Tensor, others: Tensor) -> Tensor:
            missed, total = (view.reduce_batch(batch.total(x)) for x in (b * (1 - others), b))
            return 1 - quotient(missed + (self.smooth_dr - self.smooth_nr), total + self.smooth_dr)

        return Unreduced.table(boundary_f1(met(p, wide_g), met(g, wide_p)), view.voxel_count)


def contours(spacing: Spacing, u: Tensor, counted: Tensor | None, radius: int) -> Tensor:
    """Soft inner contour of masks (B, K, *S)."""
    return inner_band(u, scaled_radii(radius, spacing, u), counted)


def widened(spacing: Spacing, b: Tensor, counted: Tensor | None, radius: int) -> Tensor:
    """The largest value around each voxel."""
    return dilation(b, scaled_radii(radius, spacing, b), counted)


def half_window(name: str, edge: int) -> int:
    """Voxels to each side of the center of a window."""
    if not 1 <= edge < float("inf") or edge % 2 != 1:
        raise ValueError(f"{name} must be an odd number of voxels, at least 1, got {edge!r}.")
    return int(edge) // 2
