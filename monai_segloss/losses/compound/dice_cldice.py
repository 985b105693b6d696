from __future__ import annotations

from monai_segloss.core.card import ReadingArgs, Unpack, register
from monai_segloss.losses.compound.scheduled import term_schedule
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.losses.topology.soft_skeletons import BOUNDS
from monai_segloss.schedules import Rest, TermWeight


@register("dice_cldice", tags=("overlap", "tubular", "skeleton", "topology"))
class DiceclDiceLoss(Compound):
    r"""Dice plus the Dice of centerlines, for tubes whose connection counts.

    Formula: (1 - \alpha)\,\mathrm{Dice} + \alpha\,\mathrm{clDice}

    When: Vessels, airways, nerves. The Dice term holds the width of a tube, the other its connection. Costs k + 1
    erosions and dilations of every scored class per step; skeleton_recall asks for connection at the cost of Dice.

    With ``smooth=1e-4`` and, for several scored classes, ``per_class=False`` it is MONAI's ``SoftDiceclDiceLoss``.

    Args:
        alpha: weight of the clDice term, from 0 to 1: a number, a schedule, its name or its mapping form
            (`monai_segloss.schedules`). The paper goes up to 0.5; 1 leaves the width of a tube open.
        iter_, smooth, per_class, use_spacing: see `SoftclDiceLoss`.
        squared_pred, jaccard: see `DiceLoss`.
        smooth_nr, smooth_dr: of the ratios of both terms.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceclDiceLoss
        >>> label = torch.zeros(1, 1, 7, 12).long()
        >>> label[..., 2:5, 2:10] = 1
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> loss = DiceclDiceLoss(softmax=True, to_onehot_y=True, include_background=False)
        >>> value = loss(logits.roll(1, dims=2), label)
        >>> round(value.item(), 3), {k: round(v.item(), 3) for k, v in loss.last.items()}
        (0.163, {'dice': 0.327, 'soft_cldice': 0.0})

    Reference: Shit et al., clDice: a novel topology-preserving loss function for tubular structure segmentation, CVPR
    2021, arXiv:2003.07311.
    """

    bounds = BOUNDS

    def __init__(
        self,
        *,
        alpha: TermWeight = 0.5,
        iter_: int = 3,
        smooth: float = 0.0,
        per_class: bool = True,
        use_spacing: bool = False,
        squared_pred: bool = False,
        jaccard: bool = False,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        include_background: bool = True,
        batch: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        cldice = term_schedule("alpha", alpha)
        if cldice.largest > 1:
            raise ValueError(f"alpha must lie in [0, 1], but reaches {cldice.largest:g}.")
        lines = {"iter_": iter_, "smooth": smooth, "per_class": per_class, "use_spacing": use_spacing}
        scoring = {"include_background": include_background, "batch": batch}
        super().__init__(
            {**reading, **scoring, "smooth_nr": smooth_nr, "smooth_dr": smooth_dr},
            dice=part("lambda_dice", Rest(cldice), squared_pred=squared_pred, jaccard=jaccard),
            soft_cldice=part("alpha", cldice, **lines),
        )
