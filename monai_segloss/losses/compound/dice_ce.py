from __future__ import annotations

from monai_segloss.core.card import FormulaArgs, Unpack, register
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.losses.region.dice_form import POSITIONAL


@register(
    "dice_ce",
    positional=POSITIONAL + " lambda_dice lambda_ce label_smoothing",
    aliases=("nnunet",),
    tags=("overlap", "likelihood"),
)
class DiceCELoss(Compound):
    r"""Dice plus cross-entropy, the default of nnU-Net.

    Formula: \lambda_{Dice}\,\mathrm{Dice} + \lambda_{CE}\,\mathrm{CE}

    When: The baseline to beat: start here, and compare every other loss with it on the same folds and seeds.

    Equals nnU-Net's default loss plus exactly 1 (nnU-Net counts minus Dice) with ``include_background=False``, also
    with ignored labels and batch Dice. With ``sigmoid=True`` it equals its loss for regions plus 1, unless voxels are
    ignored: there nnU-Net sums the cross-entropy over the regions, and here it is the mean. ``weight`` has one factor
    per class, background included: cross-entropy uses all (with sigmoid on the positive part), Dice those of the scored
    classes.

    Args:
        squared_pred, jaccard, soft_label: see `DiceLoss`.
        lambda_dice, lambda_ce: factors of the two terms, at least 0.
        label_smoothing: see `CrossEntropyLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceCELoss
        >>> loss = DiceCELoss(softmax=True, to_onehot_y=True)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]]))
        >>> round(value.item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}
        (1.1931, {'dice': 0.5, 'cross_entropy': 0.6931})

    Reference: Isensee et al., nnU-Net, Nat. Methods 2021, arXiv:1809.10486.
    """

    def __init__(
        self,
        *,
        squared_pred: bool = False,
        jaccard: bool = False,
        soft_label: bool = False,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        label_smoothing: float = 0.0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(
            common,
            dice=part("lambda_dice", lambda_dice, squared_pred=squared_pred, jaccard=jaccard, soft_label=soft_label),
            cross_entropy=part("lambda_ce", lambda_ce, label_smoothing=label_smoothing),
        )
