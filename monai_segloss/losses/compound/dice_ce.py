"""Dice + cross-entropy, the default loss of nnU-Net.  Isensee et al., Nat. Methods 2021."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import ScoringArgs, SegLoss
from monai_segloss.core.reduce import Term
from monai_segloss.core.registry import register
from monai_segloss.losses.region.dice import POSITIONAL, DiceForm
from monai_segloss.losses.voxel.cross_entropy import cross_entropy, cross_entropy_statistics, smoothing
from monai_segloss.losses.voxel.weighting import is_multilabel


@register(
    "dice_ce",
    positional=POSITIONAL + " lambda_dice lambda_ce label_smoothing",
    family="compound",
    summary="Dice plus cross-entropy, the default of nnU-Net.",
    when="The baseline to beat: start here, and compare every other loss with it on the same folds and seeds.",
    formula=r"\lambda_{Dice}\,\mathrm{Dice} + \lambda_{CE}\,\mathrm{CE}",
    paper="Isensee et al., nnU-Net, Nat. Methods 2021",
    doi="arXiv:1809.10486",
    aliases=("nnunet",),
    tags=("overlap", "likelihood"),
)
class DiceCELoss(SegLoss):
    """``lambda_dice`` * `DiceLoss` + ``lambda_ce`` * `CrossEntropyLoss`, from one pass over the logits.

    Equals nnU-Net's default loss plus exactly 1 (nnU-Net counts minus Dice) with ``include_background=False``, also with
    ignored labels and batch Dice; with ``sigmoid=True`` it equals its loss for regions plus 1, unless voxels are ignored:
    there nnU-Net sums the cross-entropy over the regions, and here it is the mean.  ``weight`` has one factor per class,
    background included: cross-entropy uses all (with sigmoid on the positive part), Dice those of the scored classes.

    Args:
        squared_pred, jaccard: see `DiceLoss`.
        lambda_dice, lambda_ce: factors of the two terms, at least 0.
        label_smoothing: see `CrossEntropyLoss`.
        common: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceCELoss
        >>> loss = DiceCELoss(softmax=True, to_onehot_y=True)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]]))
        >>> round(value.item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}
        (1.1931, {'dice': 0.5, 'cross_entropy': 0.6931})

    Reference:
        F. Isensee et al., Nature Methods 2021; arXiv:1809.10486.
    """

    accepts = ("weight_map",)
    scalar = True

    def __init__(
        self,
        *,
        squared_pred: bool = False,
        jaccard: bool = False,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        label_smoothing: float = 0.0,
        **common: Unpack[ScoringArgs],
    ) -> None:
        super().__init__(**common)
        self.dice = DiceForm(squared_pred, jaccard, self.smooth_nr, self.smooth_dr)
        self.lambda_dice, self.lambda_ce = non_negative(lambda_dice=lambda_dice, lambda_ce=lambda_ce)
        self.label_smoothing = smoothing(label_smoothing, self.reader.sigmoid)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        area = self.dice.statistics
        if "weight_map" in batch.maps:
            return area
        weighted = self.class_weight is not None
        return area + cross_entropy_statistics(is_multilabel(batch), weighted, self.label_smoothing)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        weight = self.weights(batch.classes)
        view = batch.scored(self.include_background, self.batch)
        dice = self.dice.scores(view, view.foreground(weight))
        ce = cross_entropy(batch, weight, self.label_smoothing, batch.map("weight_map"))
        return {"dice": Term(self.lambda_dice, dice), "cross_entropy": Term(self.lambda_ce, ce)}
