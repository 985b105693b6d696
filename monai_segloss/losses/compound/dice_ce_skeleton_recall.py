from __future__ import annotations

from monai_segloss.core.card import FormulaArgs, Unpack, register
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.losses.topology.skeleton_recall import ORDER
from monai_segloss.schedules import TermWeight


@register(
    "dice_ce_skeleton_recall",
    tags=("overlap", "likelihood", "tubular", "skeleton", "topology"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    exempt={"flips": ORDER},
)
class DiceCESkeletonRecallLoss(Compound):
    r"""Dice plus cross-entropy, the default of nnU-Net, plus the recall of the tubes around centerlines.

    Formula: \lambda_{Dice}\,\mathrm{Dice} + \lambda_{CE}\,\mathrm{CE} + \lambda_{recall}\,\left(1 - \frac{\sum K
    p}{\sum K}\right)

    When: Thin connected structures: vessels, airways, nerves, cracks. Costs hardly more than dice_ce, since the workers
    make the tubes. Expect more false positives alongside tubes than with dice_ce.

    Args:
        lambda_dice, lambda_ce: factors of the two terms, at least 0.
        lambda_recall: weight of the recall: a number, a schedule, its name or its mapping form
            (`monai_segloss.schedules`).
        radius, radius_mm, per_class: of the tubes, see `SkeletonRecallLoss`, whose map (``tubed_skeleton``) the call
            takes.
        squared_pred, jaccard: see `DiceLoss`.
        label_smoothing: see `CrossEntropyLoss`.
        include_background: whether Dice scores channel 0; cross-entropy always does, the recall for regions only.
        batch: batch Dice and batch recall.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceCESkeletonRecallLoss
        >>> label = torch.zeros(1, 1, 4, 8).long()
        >>> label[..., 1:4, :] = 1
        >>> loss = DiceCESkeletonRecallLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4, 8), label).item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}
        (1.7265, {'dice': 0.5333, 'cross_entropy': 0.6931, 'skeleton_recall': 0.5})

    Reference: Kirchhoff, Rokuss et al., Skeleton recall loss for connectivity conserving and resource efficient
    segmentation of thin tubular structures, ECCV 2024, arXiv:2404.03010.
    """

    def __init__(
        self,
        *,
        lambda_dice: TermWeight = 1.0,
        lambda_ce: TermWeight = 1.0,
        lambda_recall: TermWeight = 1.0,
        radius: int = 2,
        radius_mm: float | None = None,
        per_class: bool = True,
        squared_pred: bool = False,
        jaccard: bool = False,
        label_smoothing: float = 0.0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        tube = {"radius": radius, "radius_mm": radius_mm, "per_class": per_class}
        super().__init__(
            common,
            dice=part("lambda_dice", lambda_dice, squared_pred=squared_pred, jaccard=jaccard),
            cross_entropy=part("lambda_ce", lambda_ce, label_smoothing=label_smoothing),
            skeleton_recall=part("lambda_recall", lambda_recall, **tube),
        )
