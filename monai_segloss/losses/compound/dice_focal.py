from __future__ import annotations

from monai_segloss.core.card import FormulaArgs, Unpack, register
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.losses.region.dice_form import POSITIONAL
from monai_segloss.losses.voxel.focal import Alpha


@register(
    "dice_focal",
    positional=POSITIONAL.replace(" weight", " gamma weight") + " lambda_dice lambda_focal alpha",
    tags=("overlap", "likelihood", "imbalance"),
)
class DiceFocalLoss(Compound):
    r"""Dice plus focal loss.

    Formula: \lambda_{Dice}\,\mathrm{Dice} + \lambda_{focal}\,\mathrm{Focal}

    When: Many classes of very different size; among the most robust in comparisons, within seed noise of dice_ce.

    Both terms are of the same probabilities: with ``softmax=True`` the focal term is the softmax form (MONAI's class
    takes the sigmoid of the same logits there). The paper sums the Dice losses of the classes and gives the focal term
    .5 (from memory, its text was not at hand). Here both terms are means, and their factors 1.

    Args:
        squared_pred, jaccard, soft_label: see `DiceLoss`.
        gamma, alpha: see `FocalLoss`.
        lambda_dice, lambda_focal: factors of the two terms, at least 0.
        include_background: whether both terms score channel 0.
        weight: one factor per scored class, for both terms.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceFocalLoss
        >>> loss = DiceFocalLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.6733

    Reference: Zhu et al., AnatomyNet, Med. Phys. 2019, arXiv:1808.05238.
    """

    def __init__(
        self,
        *,
        squared_pred: bool = False,
        jaccard: bool = False,
        soft_label: bool = False,
        gamma: float = 2.0,
        alpha: Alpha | None = None,
        lambda_dice: float = 1.0,
        lambda_focal: float = 1.0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(
            common,
            dice=part("lambda_dice", lambda_dice, squared_pred=squared_pred, jaccard=jaccard, soft_label=soft_label),
            focal=part("lambda_focal", lambda_focal, gamma=gamma, alpha=alpha),
        )
