from __future__ import annotations

from monai_segloss.core.card import Exempt, FormulaArgs, Unpack, register
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.schedules import TermWeight


@register(
    "dice_ce_ace",
    tags=("overlap", "likelihood", "calibration"),
    exempt={
        "tensor_arguments": Exempt(
            "hard bins jump where a probability crosses an edge, as one does within the step", cases=("soft_labels",)
        )
    },
)
class DiceCEACELoss(Compound):
    r"""Dice plus cross-entropy, the default of nnU-Net, plus the average calibration error.

    Formula: \lambda_{Dice}\,\mathrm{Dice} + \lambda_{CE}\,\mathrm{CE} + \lambda_{ACE}\,\mathrm{ACE}

    When: Probabilities that are used as such, at the Dice of dice_ce: Dice alone makes a network too sure of itself.
    Report calibration (ACE, ECE, reliability diagram) next to Dice.

    Args:
        lambda_dice, lambda_ce: factors of the two terms, at least 0.
        lambda_ace: weight of the calibration error: a number, a schedule, its name or its mapping form
            (`monai_segloss.schedules`). Published: from 0.1 to 0.3.
        bins, soft_bins: see `L1ACELoss`.
        squared_pred, jaccard: see `DiceLoss`.
        label_smoothing: see `CrossEntropyLoss`.
        include_background: whether Dice scores channel 0; the other terms always do.
        batch: batch Dice, and bins of the batch.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceCEACELoss
        >>> loss = DiceCEACELoss(softmax=True, to_onehot_y=True)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]]))
        >>> round(value.item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}
        (1.2515, {'dice': 0.5333, 'cross_entropy': 0.6931, 'l1_ace': 0.25})

    Reference: Barfoot et al., Average calibration error: a differentiable loss for improved reliability in image
    segmentation, MICCAI 2024, arXiv:2403.06759.
    """

    def __init__(
        self,
        *,
        lambda_dice: TermWeight = 1.0,
        lambda_ce: TermWeight = 1.0,
        lambda_ace: TermWeight = 0.1,
        bins: int = 20,
        soft_bins: bool = False,
        squared_pred: bool = False,
        jaccard: bool = False,
        label_smoothing: float = 0.0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(
            common,
            dice=part("lambda_dice", lambda_dice, squared_pred=squared_pred, jaccard=jaccard),
            cross_entropy=part("lambda_ce", lambda_ce, label_smoothing=label_smoothing),
            l1_ace=part("lambda_ace", lambda_ace, bins=bins, soft_bins=soft_bins, include_background=True),
        )
