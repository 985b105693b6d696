from __future__ import annotations

from monai_segloss.core.card import FormulaArgs, Unpack, register
from monai_segloss.losses.compound.weighted_sum import Compound, part


@register(
    "dice_topk",
    tags=("overlap", "likelihood", "imbalance"),
    exempt={"shards_equal_the_batch": "under DDP each process takes the k percent of its own voxels, as in nnU-Net"},
)
class DiceTopKLoss(Compound):
    r"""Dice plus the cross-entropy of the k percent hardest voxels.

    Formula: \lambda_{Dice}\,\mathrm{Dice} + \lambda_{TopK}\,\mathrm{TopK}_k

    When: Small or difficult structures with clean labels; the most robust loss of the 2021 comparison of 20 losses.

    Under DistributedDataParallel each process takes the k percent of its own voxels, not of the whole batch.

    Args:
        k: percentage of the valid voxels, see `TopKCrossEntropyLoss`.
        squared_pred, jaccard, soft_label: see `DiceLoss`.
        lambda_dice, lambda_topk: factors of the two terms, at least 0.
        label_smoothing: see `CrossEntropyLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceTopKLoss
        >>> loss = DiceTopKLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        1.1931

    Reference: Isensee et al., nnU-Net, Nat. Methods 2021, arXiv:1809.10486; Ma et al., Loss odyssey in medical image
    segmentation, MedIA 2021, doi:10.1016/j.media.2021.102035.
    """

    def __init__(
        self,
        *,
        k: float = 10.0,
        squared_pred: bool = False,
        jaccard: bool = False,
        soft_label: bool = False,
        lambda_dice: float = 1.0,
        lambda_topk: float = 1.0,
        label_smoothing: float = 0.0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(
            common,
            dice=part("lambda_dice", lambda_dice, squared_pred=squared_pred, jaccard=jaccard, soft_label=soft_label),
            topk_cross_entropy=part("lambda_topk", lambda_topk, k=k, label_smoothing=label_smoothing),
        )
