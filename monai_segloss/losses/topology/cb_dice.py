from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.kernels.recomputed import by_class, totals
from monai_segloss.losses.boundary.neighborhood import class_view, scored_maps, valid
from monai_segloss.losses.topology.depths import depths, thinness
from monai_segloss.losses.topology.soft_cldice import cldice
from monai_segloss.losses.topology.soft_skeletons import BOUNDS, Skeletons


@register("cb_dice", aliases=("centerline_boundary_dice",), tags=("tubular", "skeleton", "topology", "overlap"), size=6)
class CbDiceLoss(SegLoss):
    r"""One minus the Dice of centerlines in which a voxel counts by its depth, and a thin tube as much as a wide one.

    Formula: 1 - \frac{2\,T_p T_s}{T_p + T_s},\quad T_p = \frac{\sum I_p\, p\, D_g + s_n}{\sum I_p\, p\, W_p +
    s_d},\quad T_s = \frac{\sum I_g\, D_p\, p + s_n}{\sum I_g W_g + s_d}

    When: Tubes of very different widths, alongside Dice and cross-entropy. Never alone: the skeleton and the depth of the
    prediction are constants, so that a tube below a probability of 1/2 has no gradient.

    In the target g and the prediction p > 1/2, each a mask, D is the distance to the background over the largest radius R
    of the skeleton, at most 1, and 0 outside. On its skeleton I = ((R - r + r_min) / R)^{n - 1}, of n axes and the
    radius r there; elsewhere 0. W is what a voxel may reach: the D of the other mask where that has its skeleton too,
    else the larger D; D_p is multiplied by p. Published code takes its own D there, by which a prediction beside the
    centerline may be better than a perfect one; it merges the classes, and returns the negative. Skeletons are those of
    `SoftclDiceLoss`. An ignored voxel is in no mask and no background.

    Args:
        iter_: the number of erosions; take at least half of the width of the widest tube, in voxels (published code: 10).
        use_spacing: radii in mm, and skeletons as in `SoftclDiceLoss`; published code counts voxels.

    Example:
        >>> import torch
        >>> from monai_segloss import CbDiceLoss
        >>> label = torch.zeros(1, 1, 9, 12).long()
        >>> label[..., 3:6, 2:10] = 1
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = CbDiceLoss(softmax=True, to_onehot_y=True)
        >>> [round(loss(x, label).item(), 3) for x in (logits, logits.roll(1, dims=2), logits.roll(3, dims=2))]
        [0.0, 0.429, 0.833]

    Reference: Shi et al., Centerline boundary Dice loss for vascular segmentation, MICCAI 2024, arXiv:2407.01517.

    The formula is that of the authors' code, which changed after the paper.
    """

    bounds = BOUNDS
    in_float32 = True

    def __init__(
        self,
        *,
        iter_: int = 3,
        use_spacing: bool = False,
        batch: bool = False,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(batch=batch, smooth_nr=smooth_nr, smooth_dr=smooth_dr, **reading)
        self.skeletons = Skeletons(iter_, bool(use_spacing))

    def loss(self, batch: SegBatch) -> Unreduced:
        view = class_view(batch, None, self.batch)
        p, g = scored_maps(batch, view)
        facts = batch.required_spacing if self.skeletons.use_spacing else None, valid(batch)
        tubes = [
            depths(mask, find(batch, mask.to(p.dtype)), *facts)
            for mask, find in ((p.detach() > 0.5, self.skeletons), (g > 0.5, self.skeletons.of_target))
        ]
        maps = [x.expand_as(p) for tube in tubes for x in tube]
        terms = partial(_terms, sum(n > 1 for n in p.shape[2:]))
        sums = [view.reduce_batch(x) for x in by_class(terms, 0, p, *maps).unbind(2)]
        table = cldice(*sums, smooth_nr=self.smooth_nr, smooth_dr=self.smooth_dr, smooth=0.0)
        return Unreduced.table(table, view.voxel_count)


def _terms(
    axes: int,
    rows: slice,
    p: Tensor,
    depth_p: Tensor,
    line_p: Tensor,
    thinnest_p: Tensor,
    depth_g: Tensor,
    line_g: Tensor,
    thinnest_g: Tensor,
) -> Tensor:
    """What misses and what there is, of both ratios, (B, K, 4)."""
    thin_p, thin_g = (
        thinness(depth_p, line_p, thinnest_p, axes) * p,
        thinness(depth_g, line_g, thinnest_g, axes),
    )
    depth_p = depth_p * p
    larger = torch.maximum(depth_p, depth_g)
    reach_p, reach_g = torch.where(line_g, depth_g, larger), torch.where(line_p, depth_p, larger)
    terms = thin_p * (reach_p - depth_g), thin_p * reach_p, thin_g * (reach_g - depth_p), thin_g * reach_g
    return totals(rows, None, *terms)
