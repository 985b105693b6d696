"""Combo loss: weighted binary cross-entropy of each class and Dice.  Taghanaki et al., CMIG 2019."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from monai_segloss.core import check
from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.region.dice import DiceForm
from monai_segloss.losses.voxel.binary_cross_entropy import BINARY


def combo_ce(view: ClassView, beta: float) -> Unreduced:
    """-(beta sum g log p + (1 - beta) sum (1 - g) log(1 - p)), (B | 1, C), and the voxels."""
    positive, negative = view.sums(*BINARY)
    return Unreduced(beta * positive + (1 - beta) * negative, view.voxel_count)


@register(
    "combo",
    aliases=("combo_loss",),
    tags=("overlap", "likelihood", "imbalance", "recall"),
    exempt={
        "false_positives_and_negatives": "alpha and beta are the paper's: alpha the share of the cross-entropy, beta the "
        "weight of missed foreground, 1 - beta that of false foreground",
    },
)
class ComboLoss(SegLoss):
    r"""Dice plus binary cross-entropy with a weight between missed and false foreground.

    Formula:
        -\frac{\alpha}{C N}\sum_{c,i}\left[\beta\, g \log p + (1 - \beta)(1 - g)\log(1 - p)\right] + (1 -
        \alpha)\,\mathrm{Dice}

    When:
        Few structures, where one number should move errors between false negatives and false positives. The weight beta
        costs calibration.

    The cross-entropy takes each class against the rest, with softmax too (log(1 - p) from the other logits). Dice is
    the Dice loss of the foreground classes, 1 - D, smoothed by 1. The paper subtracts the sum of D over the classes:
    its value is lower and its Dice gradient larger by the number of classes. The authors' code has a wrong sign at the
    second logarithm, which rewards false foreground.

    Args:
        alpha: share of the cross-entropy, in [0, 1].
        beta: weight of the positive part, in [0, 1]; above .5 it lowers false negatives.
        include_background: None leaves channel 0 out with one class per voxel and scores every channel of regions.  With
            two classes, softmax and the background, beta would cancel.
        smooth_nr, smooth_dr: added to the numerator and the denominator of Dice.
        batch, reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Example:
        >>> import torch
        >>> from monai_segloss import ComboLoss
        >>> loss = ComboLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.3733

    Reference:
        Taghanaki et al., Combo loss: handling input and output imbalance in multi-organ segmentation, CMIG 2019,
        arXiv:1805.02798.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")
    scalar_only = True

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 0.5,
        include_background: bool | None = None,
        batch: bool = False,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        formula_arguments = {"include_background": include_background, "smooth_nr": smooth_nr, "smooth_dr": smooth_dr}
        super().__init__(batch=batch, **formula_arguments, **reading)
        self.by_activation = include_background is None
        self.alpha, self.beta = check.within(0, 1, alpha=alpha, beta=beta)
        self.dice = DiceForm(False, False, self.smooth_nr, self.smooth_dr)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return self.dice.statistics + BINARY

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        view = batch.class_view(batch.multilabel if self.by_activation else self.include_background, self.batch)
        return {
            "cross_entropy": Term(self.alpha, combo_ce(view, self.beta)),
            "dice": Term(1 - self.alpha, self.dice.unreduced(view, None)),
        }
