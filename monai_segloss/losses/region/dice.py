from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import FormulaArgs, RegionLoss, Unpack, register
from monai_segloss.core.formula import ClassView
from monai_segloss.losses.region.dice_form import POSITIONAL, DiceForm


@register(
    "dice", positional=POSITIONAL + " soft_label ignore_index", aliases=("soft_dice",), tags=("overlap", "imbalance")
)
class DiceLoss(RegionLoss):
    r"""One minus the soft Dice coefficient of each class.

    Formula: 1 - \frac{2\,TP + s_n}{2\,TP + FP + FN + s_d}

    When: The usual region loss. Alone it trains slowly and is unstable for small structures; add cross-entropy.

    The mean runs over samples and classes. ``batch=True`` sums over the batch, which cures classes that are absent from
    a sample.

    Args:
        squared_pred: square prediction and target in the denominator, the V-Net form.
        jaccard: Jaccard index instead of Dice, smoothed as in MONAI (half of the effect of the Dice smoothing).
        soft_label: TP = (|p| + |g| - |p - g|) / 2, whose minimum lies at p = g also for soft labels.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceLoss
        >>> logits, label = torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])
        >>> round(DiceLoss(softmax=True, to_onehot_y=True)(logits, label).item(), 4)
        0.5

    Reference: Drozdzal et al., The importance of skip connections in biomedical image segmentation, DLMIA 2016,
    arXiv:1608.04117; Milletari et al., V-Net, 3DV 2016 (squared_pred), arXiv:1606.04797; Kodym et al., GCPR 2018
    (batch), arXiv:1812.02427.
    """

    def __init__(
        self,
        *,
        squared_pred: bool = False,
        jaccard: bool = False,
        soft_label: bool = False,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        self.dice = DiceForm(squared_pred, jaccard, self.smooth_nr, self.smooth_dr, soft_label)
        self.sums = self.dice.statistics

    def table(self, view: ClassView) -> Tensor:
        return self.dice.table(view)
