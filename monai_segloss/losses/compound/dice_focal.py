"""Dice + focal loss.  Zhu et al., AnatomyNet, Med. Phys. 2019."""

from __future__ import annotations

from typing import Unpack

from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.losses.region.dice import POSITIONAL
from monai_segloss.losses.voxel.focal import Alpha


@register(
    "dice_focal",
    positional=POSITIONAL.replace(" weight", " gamma weight") + " lambda_dice lambda_focal alpha",
    tags=("overlap", "likelihood", "imbalance"),
)
class DiceFocalLoss(Compound):
    r"""Dice plus focal loss.

    Formula:
        \lambda_{Dice}\,\mathrm{Dice} + \lambda_{focal}\,\mathrm{Focal}

    When:
        Many classes of very different size; among the most robust in comparisons, within seed noise of dice_ce.

    Both terms are of the same probabilities: with ``softmax=True`` the focal term is the softmax form (MONAI's class
    takes the sigmoid of the same logits there). The paper sums the Dice losses of the classes and gives the focal term
    .5 (from memory, its text was not at hand). Here both terms are means, and their factors 1.

    Args:
        squared_pred, jaccard: see `DiceLoss`.
        gamma, alpha: see `FocalLoss`.
        lambda_dice, lambda_focal: factors of the two terms, at least 0.
        common: see `SegLoss`; ``weight`` and ``include_background`` hold for both terms, ``reduction="none"`` is refused.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceFocalLoss
        >>> loss = DiceFocalLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.6733

    Reference:
        Zhu et al., AnatomyNet, Med. Phys. 2019, arXiv:1808.05238.
    """

    fixed_weights = True

    def __init__(
        self,
        *,
        squared_pred: bool = False,
        jaccard: bool = False,
        gamma: float = 2.0,
        alpha: Alpha | None = None,
        lambda_dice: float = 1.0,
        lambda_focal: float = 1.0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(
            common,
            dice=part("lambda_dice", lambda_dice, squared_pred=squared_pred, jaccard=jaccard),
            focal=part("lambda_focal", lambda_focal, gamma=gamma, alpha=alpha),
        )
        self.lambda_dice, self.lambda_focal = float(lambda_dice), float(lambda_focal)
