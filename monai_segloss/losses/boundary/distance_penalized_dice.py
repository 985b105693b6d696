"""Dice with more weight near boundaries.  After Caliva et al., MIDL 2019; no paper of its own."""

from __future__ import annotations

from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import FormulaArgs, SegLoss
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.voxel_weights import penalty, penalty_weights, weighed_area
from monai_segloss.losses.region.dice import dice


@register(
    "distance_penalized_dice",
    aliases=("distance_weighted_dice",),
    tags=("overlap", "distance"),
)
class DistancePenalizedDiceLoss(SegLoss):
    r"""Dice whose voxels weigh more the nearer they are to the boundary of their class.

    Formula:
        1 - \frac{2 \sum_i w_i p_i g_i + s_n}{\sum_i w_i (p_i + g_i) + s_d},\quad w_i = 1 + \lambda \Phi_i

    When:
        A Dice that looks at boundaries, for comparison: no paper evaluates it. Weights lie between 1 and 2, so it stays
        close to Dice; boundary and generalized_surface change more.

    Phi is that of `DistancePenalizedCELoss`; the mean runs over classes. The weight of a voxel is that of its own
    class, background included, for all classes: false positives weigh more near the boundary too. The loss lies in [0,
    1] and is 0 where all is right. Published code has the weights in the numerator alone, where being right gives about
    -1.9 and being sure is rewarded.

    A keyword ``penalty`` of the call takes the precomputed Phi of all classes, see `DistancePenalizedCELoss`; with
    sigmoid its name is ``penalty_both_sides``.

    Args:
        lambda_phi: lambda; 0 is Dice.

    Raises:
        TypeError: ``penalty`` of integers.
        ValueError: ``penalty`` of another shape, or for a single channel without sigmoid; a negative ``lambda_phi``.

    Example:
        >>> import torch
        >>> from monai_segloss import DistancePenalizedDiceLoss
        >>> label = torch.tensor([[[0, 0, 1, 1, 1, 1]]])
        >>> logits = 50.0 * torch.tensor([[[1, 1, 0, 1, 1, 1], [0, 0, 1, 0, 0, 0]]])  # right where the weight is 2
        >>> loss = DistancePenalizedDiceLoss(include_background=False, softmax=True, to_onehot_y=True)
        >>> round(loss(logits, label, spacing=(1.0,)).item(), 4)
        0.5

    Reference:
        No paper; the weights of Caliva et al., Distance map loss penalty term for semantic segmentation, MIDL 2019
        (extended abstract), arXiv:1908.03679.
    """

    def __init__(self, *, lambda_phi: float = 1.0, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.lambda_phi,) = non_negative(lambda_phi=lambda_phi)
        self.map = penalty(self)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def loss(self, batch: SegBatch) -> Unreduced:
        view = batch.class_view(self.include_background, self.batch)
        sums = weighed_area(batch, penalty_weights(batch, self.map, self.lambda_phi))
        tp, fp, fn = (view.reduce_batch(view.drop_background(x)) for x in sums)
        table = dice(tp, fp + fn, self.smooth_nr, self.smooth_dr)
        return Unreduced.table(table, view.voxel_count, self.weights(view.classes))
