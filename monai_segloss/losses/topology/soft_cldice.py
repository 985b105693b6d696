from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, non_negative, register
from monai_segloss.core.formula import SegBatch, Unreduced, quotient
from monai_segloss.kernels.recomputed import by_class, totals
from monai_segloss.losses.boundary.neighborhood import scored_maps
from monai_segloss.losses.topology.soft_skeletons import BOUNDS, Skeletons


@register(
    "soft_cldice",
    positional="iter_ smooth_nr smooth_dr smooth include_background to_onehot_y sigmoid softmax other_act reduction",
    aliases=("cldice",),
    tags=("tubular", "skeleton", "topology", "overlap"),
)
class SoftclDiceLoss(SegLoss):
    r"""One minus the Dice of centerlines: the share of each skeleton that lies in the other mask.

    Formula: 1 - \frac{2\,T_p T_s}{T_p + T_s + s},\quad T_p = \frac{\sum S(p)\, g + s_n}{\sum S(p) + s_d},\quad T_s =
    \frac{\sum S(g)\, p + s_n}{\sum S(g) + s_d}

    When: Vessels, airways, nerves: tubes whose connection counts more than their volume. Only alongside Dice, as in
    dice_cldice: alone it says nothing of the width of a tube.

    S is the soft skeleton: what an opening takes away, summed over k erosions. It is 0 in a structure wider than 2 k +
    2 voxels, of which only the precision is then left: a warning says so. An ignored voxel is in no neighborhood, and
    nothing is eroded from the edge of the image. Memory for the gradient is one map, whatever k.

    Args:
        iter_: k, the number of erosions; take at least half of the width of the widest tube, in voxels.
        smooth_nr, smooth_dr: of both ratios.
        smooth: added to the denominator of the harmonic mean; a perfect prediction costs half of it.
        per_class: a value per class; False: all classes in one sum, in which a large one hides a small one (MONAI).
        use_spacing: erode an axis of larger voxels less often, by the ``spacing`` of the call; published code counts
            voxels.

    Example:
        >>> import torch
        >>> from monai_segloss import SoftclDiceLoss
        >>> label = torch.zeros(1, 1, 7, 12).long()
        >>> label[..., 2:5, 2:10] = 1
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = SoftclDiceLoss(softmax=True, to_onehot_y=True, include_background=False)
        >>> [round(loss(x, label).item(), 3) for x in (logits, logits.roll(1, dims=2), logits.roll(3, dims=2))]
        [0.0, 0.0, 0.909]

    Reference: Shit et al., clDice: a novel topology-preserving loss function for tubular structure segmentation, CVPR
    2021, arXiv:2003.07311.
    """

    bounds = BOUNDS
    in_float32 = True

    def __init__(
        self,
        *,
        iter_: int = 3,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        smooth: float = 1e-4,
        include_background: bool = True,
        batch: bool = False,
        per_class: bool = True,
        use_spacing: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(
            smooth_nr=smooth_nr, smooth_dr=smooth_dr, include_background=include_background, batch=batch, **reading
        )
        (self.smooth,), self.per_class = non_negative(smooth=smooth), bool(per_class)
        self.skeletons = Skeletons(iter_, bool(use_spacing))

    def loss(self, batch: SegBatch) -> Unreduced:
        view = batch.class_view(self.include_background, self.batch)
        p, g = scored_maps(batch, view)
        lines = self.skeletons(batch, p), self.skeletons.of_target(batch, g.to(p.dtype))
        sums = [view.reduce_batch(x) for x in by_class(_shares, 0, p, g, *lines).unbind(2)]
        if not self.per_class:
            sums = [x.sum(1, keepdim=True) for x in sums]
        table = cldice(*sums, smooth_nr=self.smooth_nr, smooth_dr=self.smooth_dr, smooth=self.smooth)
        return Unreduced.table(table, view.voxel_count)


def _shares(rows: slice, p: Tensor, g: Tensor, line_p: Tensor, line_g: Tensor) -> Tensor:
    """Sums of each skeleton outside of the other mask and of all of it, (B, K, 4)."""
    return totals(rows, None, line_p * (1 - g.to(p.dtype)), line_p, line_g * (1 - p), line_g)


def cldice(
    outside: Tensor,
    line_p: Tensor,
    missed: Tensor,
    line_g: Tensor,
    *,
    smooth_nr: float,
    smooth_dr: float,
    smooth: float,
) -> Tensor:
    """1 - 2 Tp Ts / (Tp + Ts + s), from the skeletons and what of them lies outside of the other mask."""
    shift = smooth_dr - smooth_nr
    a, b = quotient(outside + shift, line_p + smooth_dr), quotient(missed + shift, line_g + smooth_dr)
    mean = 2 - a - b + smooth
    return torch.where(mean == 0, 1, quotient(a + b - 2 * a * b + smooth, mean))  # no part of a skeleton is met
