from __future__ import annotations

from collections.abc import Sequence

from monai_segloss.core.card import Exempt, ReadingArgs, SegLoss, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.kernels.recomputed import by_class_in_steps
from monai_segloss.losses.boundary.neighborhood import class_view, scored_maps, valid
from monai_segloss.losses.shape.lines import bays, steps, whole_numbers

HOLED = ("labels_3d", "labels_2d", "two_classes", "five_classes", "one_class", "regions", "ignored", "regions_masked")
LABEL = "a label that is not convex costs something too"


@register(
    "convexity",
    tags=("shape", "unsupervised"),
    exempt={
        "perfect_prediction_is_zero": Exempt(LABEL, cases=HOLED),
        "perfect_prediction_is_the_minimum": LABEL,
    },
)
class ConvexityLoss(SegLoss):
    r"""How far the probability of a voxel falls below that of both ends of a line through it.

    Formula: \overline{\max(\min(p_{i - r d}, p_{i + r d}) - p_i, 0)}

    When: Alongside cross-entropy or Dice, for convex organs of one part: it fills holes and bays. Not for classes of
    several parts, between which it builds a bridge. An image that cuts a convex organ does no harm.

    One value per (sample, class), the mean over voxels i, the directions d to the neighbors of a voxel (4 in 2-D, 13 in
    3-D) and the offsets r. Lines that leave the image or have an end or middle that is ignored do not count. It is 0 if all
    level sets of p are convex along these lines. Radii count voxels: what is convex is so with any spacing. Published code
    has a smooth maximum that is never 0.

    Args:
        offsets: half lengths of the lines, in voxels.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Example:
        >>> import torch
        >>> from monai_segloss import ConvexityLoss
        >>> p = torch.tensor([[[0.0, 1.0, 0.2, 1.0, 0.0]]])
        >>> round(ConvexityLoss(offsets=[1])(p, 0 * p).item(), 4)  # 0.8 in one of three lines
        0.2667

    Reference: D-Convexity, CVPR 2026, arXiv:2605.19210 (quasi-concave probabilities; the zero-order form is ours).
    """

    def __init__(
        self,
        *,
        offsets: Sequence[int] = (1, 2, 4, 8),
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background = include_background
        self.offsets = whole_numbers(offsets)

    def loss(self, batch: SegBatch) -> Unreduced:
        counted, batch = valid(batch), batch.full_precision
        p, _ = scored_maps(batch, class_view(batch, self.background))
        depth, number = by_class_in_steps(bays, steps(p, self.offsets), p, counted).unbind(2)
        return Unreduced.table(depth / number.clamp_min(1), batch.voxels)
