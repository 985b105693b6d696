"""Dice + Hausdorff loss by distance transforms, of the same size.  Karimi & Salcudean, IEEE TMI 2020."""

from __future__ import annotations

from typing import ClassVar, Unpack

from monai_segloss.core.arguments import EXPONENT
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.schedules import Ratio, TermWeight


@register(
    "dice_hausdorff_dt",
    aliases=("dice_hausdorff",),
    tags=("overlap", "distance", "boundary", "schedule"),
)
class DiceHausdorffDTLoss(Compound):
    r"""Dice plus the Hausdorff loss by distance transforms, weighted in each epoch to be of the same size.

    Formula:
        \mathrm{Dice} + \lambda_e\,\mathrm{HD},\quad \lambda_e = \overline{\mathrm{Dice}}_{e-1} /
        \overline{\mathrm{HD}}_{e-1},\ \lambda_0 = 0.01

    When:
        Where the largest error counts, e.g. HD95, and Dice has to stay. The weight of the distances follows the means
        of the epoch before, which the trainers hand over (set_epoch, end_epoch). one_sided=True halves the cost.

    By default the weight of the Hausdorff term makes both terms of the same size. The published sum, Hausdorff +
    mean(Hausdorff) / mean(Dice) * Dice (from memory, the paper was not at hand), is this one times a number of some
    mm^alpha, which upsets optimizers that heed the scale. In the first epoch the weight is 0.01: the term is large
    there (a few dozen mm^2), and with 1 a short training of nnU-Net ended in an empty prediction. Dice has no unit; the
    Hausdorff term is in mm^alpha and its weight per mm^alpha.

    Args:
        lambda_dice: weight of Dice: a number, a schedule, its name or its mapping form (`monai_segloss.schedules`), where a
            ratio calls the terms ``"dice"`` and ``"hausdorff_dt"``.
        lambda_hausdorff: weight of the Hausdorff term per mm^alpha, likewise; None is the ratio of the two.
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
        0.525
        >>> loss.end_epoch(loss.last)
        >>> loss.set_epoch(1)
        >>> round(loss(logits, label, spacing=(2.0,)).item(), 4), round(loss.term_weights["hausdorff_dt"], 3)
        (1.0, 0.2)

    Reference:
        Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation with CNNs, IEEE TMI 39(2),
        2020, arXiv:1904.10030.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")
    bounds: ClassVar = {"alpha": EXPONENT}

    def __init__(
        self,
        *,
        lambda_dice: TermWeight = 1.0,
        lambda_hausdorff: TermWeight | None = None,
        alpha: float = 2.0,
        one_sided: bool = False,
        binarize: str = "threshold",
        squared_pred: bool = False,
        jaccard: bool = False,
        **common: Unpack[FormulaArgs],
    ) -> None:
        if lambda_hausdorff is None:
            lambda_hausdorff = Ratio("hausdorff_dt", to="dice", start=0.01)
        distance = {"alpha": alpha, "one_sided": one_sided, "binarize": binarize, "batch": False}
        super().__init__(
            common,
            dice=part("lambda_dice", lambda_dice, squared_pred=squared_pred, jaccard=jaccard),
            hausdorff_dt=part("lambda_hausdorff", lambda_hausdorff, **distance),
        )
