"""Active contour loss: length and region.  Chen et al., CVPR 2019."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.neighborhood import (
    Spacing,
    by_spacing,
    class_view,
    mean_table,
    scored_maps,
    valid,
)


def contour_length(spacing: Spacing, u: Tensor, counted: Tensor | None, eps: float) -> Tensor:
    """Mean of sqrt(|grad u|^2 + eps) per (sample, class), (B, K), by forward differences.

    All differences of a voxel are taken at that voxel; the last one along each axis has none.  A difference with an
    ignored voxel is 0.
    """
    axes = [axis for axis in range(2, u.ndim) if u.shape[axis] > 1]

    def first(x: Tensor, ahead: int = 0) -> Tensor:
        """All but the last voxels of each axis, or those one further along one."""
        for axis in axes:
            x = x.narrow(axis, int(axis == ahead), x.shape[axis] - 1)
        return x

    here = first(u)
    kept = torch.ones_like(here[:, :1]) if counted is None else first(counted).to(u.dtype)
    square = torch.zeros_like(here)
    for axis in axes:
        difference = (first(u, axis) - here) / spacing[axis - 2]
        if counted is not None:
            difference = difference * (first(counted, axis) & first(counted))
        square = square + difference**2
    total = ((square + eps).sqrt() * kept).flatten(2).sum(2)
    return total / kept.flatten(2).sum(2).clamp_min(1)


def region(u: Tensor, v: Tensor, counted: Tensor | None, inside: float, outside: float, mu: float) -> Tensor:
    """mu u (c_in - v)^2 + (1 - u) (c_out - v)^2 per voxel, (B, K, *S)."""
    x = mu * u * (inside - v) ** 2 + (1 - u) * (outside - v) ** 2
    return x if counted is None else x * counted


@register(
    "active_contour",
    aliases=("ac",),
    tags=("contour", "smoothness"),
    recommended=Recommended(batch=None),
    exempt={
        "perfect_prediction_is_zero": "a perfect prediction pays for the length of the contour of the target",
        "perfect_prediction_is_the_minimum": Exempt(
            "a shorter contour may be worth some wrong voxels", cases=("labels_3d", "five_classes", "regions")
        ),
        "flips": "forward differences along several axes meet in one voxel, another one after a flip",
    },
)
class ActiveContourLoss(SegLoss):
    r"""Length of the predicted contour plus the misclassified region, after the active contour model.

    Formula:
        \lambda_l \overline{\sqrt{|\nabla p|^2 + \epsilon}} + \lambda_r \big(\mu\, \overline{p\,(c_1 - g)^2} +
        \overline{(1 - p)(c_2 - g)^2}\big)

    When:
        To smooth contours of compact organs. Published alone; unstable from scratch, so start from trained weights or
        add it to cross-entropy. The best prediction is smoother than the target: it shortens thin structures.

    One value per (sample, class). The gradient is per unit of the ``spacing`` of the call and taken at one voxel for
    all axes. The authors' code, and copies of it, mix differences of diagonal neighbors, and count 2-D images of one
    size only. Where a neighbor is ignored there is no contour. With c_in = 1 and c_out = 0 the region is linear: p off
    the target and 1 - p on it. ``last`` holds both terms.

    Args:
        w_length, w_region: factors of the two terms.
        mu: factor of the region inside of the prediction, p (c_in - g)^2, and of nothing else; 1 in the authors' code.
        c_in, c_out: value of the target that belongs inside and outside.
        eps: added below the root, whose slope is infinite at 0.
        include_background: whether channel 0 is scored; None: where channels are independent.  With two classes and
            softmax it makes no difference, as long as ``mu`` is 1.

    Raises:
        ValueError: ``eps`` not above 0.

    Example:
        >>> import torch
        >>> from monai_segloss import ActiveContourLoss
        >>> label = torch.tensor([0, 0, 1, 1, 1, 1]).expand(1, 1, 6, 6)
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = ActiveContourLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(logits, label).item(), 4)  # one step of 1 in a row of 5, and eps
        0.2001

    Reference:
        Chen, Williams, Vallabhaneni et al., Learning active contour models for medical image segmentation, CVPR 2019,
        doi:10.1109/CVPR.2019.01190.

        Where ``mu`` stands in the formula is from memory of the authors' code and was not verified against the paper.
    """

    formula_arguments = ("include_background",)

    def __init__(
        self,
        *,
        w_length: float = 1.0,
        w_region: float = 1.0,
        mu: float = 1.0,
        c_in: float = 1.0,
        c_out: float = 0.0,
        eps: float = 1e-8,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background = include_background
        self.w_length, self.w_region = non_negative(w_length=w_length, w_region=w_region)
        self.mu, self.c_in, self.c_out, self.eps = non_negative(mu=mu, c_in=c_in, c_out=c_out, eps=eps)
        if not self.eps:
            raise ValueError("eps must be above 0.")

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        p, g = scored_maps(batch, class_view(batch, self.background))
        length = by_spacing(contour_length, batch, p, valid(batch), self.eps)
        misplaced = region(p, g, valid(batch), self.c_in, self.c_out, self.mu)
        return {
            "length": Term(self.w_length, Unreduced.table(length, batch.voxels)),
            "region": Term(self.w_region, mean_table(misplaced, batch)),
        }
