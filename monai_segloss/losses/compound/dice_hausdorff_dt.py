"""Hausdorff loss by distance transforms + Dice of the same size.  Karimi & Salcudean, IEEE TMI 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import ScoringArgs, SegLoss
from monai_segloss.core.reduce import Term
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.hausdorff_dt import HausdorffForm
from monai_segloss.losses.compound.scheduled import Scheduled, term_schedule
from monai_segloss.losses.region.dice import DiceForm
from monai_segloss.schedules import Ratio, TermWeight


@register(
    "dice_hausdorff_dt",
    family="compound",
    summary="The Hausdorff loss by distance transforms plus Dice, weighed in each epoch to be of the same size.",
    when="Where the largest error counts, e.g. HD95, and Dice has to stay. The weight of Dice follows the means of the "
    "epoch before, which the trainers hand over (set_epoch, end_epoch). one_sided=True halves the cost.",
    formula=r"\mathrm{HD} + \lambda_e\,\mathrm{Dice},\quad "
    r"\lambda_e = \overline{\mathrm{HD}}_{e-1} / \overline{\mathrm{Dice}}_{e-1},\ \lambda_0 = 1",
    paper="Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation with CNNs, IEEE TMI 2020",
    doi="arXiv:1904.10030",
    aliases=("dice_hausdorff",),
    tags=("overlap", "distance", "boundary", "schedule"),
    waive={
        "perfect_prediction_is_the_minimum": "a small step can take a probability past 1/2, where the distances of the "
        "prediction jump",
    },
)
class DiceHausdorffDTLoss(Scheduled, SegLoss):
    """``lambda_dice`` * `DiceLoss` + ``lambda_hausdorff`` * `HausdorffDTLoss`, from one reading.

    By default the weight of Dice is set in each epoch to mean(Hausdorff) / mean(Dice) of the epoch before, as published
    (from memory, the paper was not at hand), so that both terms are of the same size; it is 1 in the first epoch, of which
    the paper says nothing.  Dice has no unit, the Hausdorff term is in mm^alpha and its weight per mm^alpha.

    Args:
        lambda_dice: weight of Dice: a number, a schedule, its name or its mapping form (`monai_segloss.schedules`), where a
            ratio calls the terms ``"dice"`` and ``"hausdorff_dt"``; None is the ratio of the two.
        lambda_hausdorff: weight of the Hausdorff term per mm^alpha, likewise.
        alpha, one_sided, binarize: see `HausdorffDTLoss`, whose map (``target_field``) the call takes.
        squared_pred, jaccard: see `DiceLoss`.
        include_background: whether both terms score channel 0.
        batch: batch Dice; the Hausdorff term is a mean over samples.
        smooth_nr, smooth_dr, reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Raises:
        ValueError: a weight that is none; in ``set_epoch``: a ratio without the means of the epoch before.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceHausdorffDTLoss
        >>> loss = DiceHausdorffDTLoss(softmax=True, to_onehot_y=True)
        >>> logits, label = torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])
        >>> round(loss(logits, label, spacing=(2.0,)).item(), 4)
        3.0
        >>> loss.end_epoch(loss.last)
        >>> loss.set_epoch(1)
        >>> round(loss(logits, label, spacing=(2.0,)).item(), 4), round(loss.term_weights["dice"], 3)
        (5.0, 5.0)

    Reference:
        D. Karimi & S. E. Salcudean, IEEE TMI 39(2), 2020, arXiv:1904.10030.
    """

    scoring = ("include_background", "batch", "smooth_nr", "smooth_dr")
    scalar = True

    def __init__(
        self,
        *,
        lambda_dice: TermWeight | None = None,
        lambda_hausdorff: TermWeight = 1.0,
        alpha: float = 2.0,
        one_sided: bool = False,
        binarize: str = "threshold",
        squared_pred: bool = False,
        jaccard: bool = False,
        **common: Unpack[ScoringArgs],
    ) -> None:
        super().__init__(**common)
        self.dice = DiceForm(squared_pred, jaccard, self.smooth_nr, self.smooth_dr)
        self.hausdorff = HausdorffForm(alpha, one_sided, "both", binarize, self.reader.sigmoid)
        same_size = Ratio("dice", to="hausdorff_dt")
        self.follow(
            {
                "dice": same_size if lambda_dice is None else term_schedule("lambda_dice", lambda_dice),
                "hausdorff_dt": term_schedule("lambda_hausdorff", lambda_hausdorff),
            }
        )

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.hausdorff.field,)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return self.dice.statistics if batch.wide is batch else ()  # else of the copy that distances need anyway

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        batch = batch.wide
        view, each = batch.scored(self.include_background, self.batch), batch.scored(self.include_background)
        return self.weigh(
            batch, {"dice": lambda: self.dice.scores(view, None), "hausdorff_dt": lambda: self.hausdorff.scores(each)}
        )
