from __future__ import annotations

from functools import partial
from itertools import product

from torch import Tensor

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, check, register
from monai_segloss.core.formula import SegBatch
from monai_segloss.core.reduce import Unreduced
from monai_segloss.kernels.recomputed import by_class_in_steps
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, class_view, mean_table, scored_maps, valid
from monai_segloss.losses.shape.rays import after, follow, row_slices, strides


@register("star_shape", tags=("shape", "unsupervised"), support=("labels", "regions", "ignore", "2-D", "3-D"))
class StarShapeLoss(SegLoss):
    r"""Wrong voxels whose probability differs from that on the way to the center of their class.

    Formula: \frac{1}{N} \sum_i \sum_{q \in \ell(i, c)} [g_i = g_q]\, |g_i - p_i|\, |p_i - p_q|

    When: Alongside cross-entropy, with a weight of 40 in the paper, for organs or lesions that are seen whole from their
    center: no holes, no other parts. A wrong prior for bent or branched ones.

    One value per (sample, class). The ray l from voxel i goes by ``steps`` voxels towards the centroid c of the label,
    each time to the neighbor nearest to that direction, measured with the ``spacing`` of the call, and ends at c. A class
    whose centroid lies outside of it is no star and costs nothing. ``hinge=True`` sums max(p_i - p_q, 0) instead: no
    probability may rise outwards, whatever the label says there. The authors' code adds up the differences of a ray, which
    cancel, wants all of its labels equal, and has one center for all classes.

    Args:
        steps: voxels of a ray, 1 or more.
        hinge: compare with the ray alone.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Example:
        >>> import torch
        >>> from monai_segloss import StarShapeLoss
        >>> label = torch.tensor([[[0, 1, 1, 1, 1, 1, 0]]])
        >>> p = torch.tensor([[[0.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.0]]])
        >>> loss = StarShapeLoss(to_onehot_y=True)
        >>> round(loss(torch.cat((1 - p, p), 1), label).item(), 4)  # 1/2 wrong, 1/2 less than the center, in 7
        0.0357

    Reference: Mirikharaji & Hamarneh, Star shape prior in fully convolutional networks for skin lesion segmentation,
    MICCAI 2018, arXiv:1806.08437.
    """

    def __init__(
        self,
        *,
        steps: int = 6,
        hinge: bool = False,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background, self.hinge = include_background, bool(hinge)
        if steps != int(steps) or steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}.")
        self.steps = int(steps)

    def loss(self, batch: SegBatch) -> Unreduced:
        batch = batch.full_precision
        p, g = scored_maps(batch, class_view(batch, self.background))

        def falls(spacing: Spacing, p: Tensor, g: Tensor, counted: Tensor | None) -> Tensor:
            maps = p, g, counted, *strides(g, spacing, self.steps, p.dtype)
            parts = list(product(range(1, self.steps + 1), row_slices(g)))
            return by_class_in_steps(partial(rising, self.hinge), parts, *maps)

        return mean_table(by_spacing(falls, batch, p, check.hard(g), valid(batch)), batch)


def rising(
    hinge: bool,
    step: tuple[int, slice],
    p: Tensor,
    mask: Tensor,
    counted: Tensor | None,
    stride: Tensor,
    number: Tensor,
) -> Tensor:
    """Sum over some rows of what the k-th voxel of the rays of their voxels costs, (B, K)."""
    k, rows = step
    there = number[:, :, rows] >= k
    index = after(k, stride[:, :, rows], there, rows)
    if counted is not None:
        there = there & counted[:, :, rows] & follow(counted.expand_as(mask), index).view_as(there)
    own, own_mask = p[:, :, rows], mask[:, :, rows]
    fall = own - follow(p, index).view_as(own)
    near = (own_mask.to(p.dtype) - own).abs() * (own_mask == follow(mask, index).view_as(own))
    cost = fall.clamp_min(0) if hinge else near * fall.abs()
    return (cost * there).flatten(2).sum(2)
