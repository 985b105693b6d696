"""Focal loss of the foreground, binarized by a map of thresholds.  After Yang et al., STACOM 2018."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.threshold_map_dice import Binarized, sharp


def focal_positive(focal: Tensor, volume: Tensor, smooth_dr: float) -> Tensor:
    """Mean focal loss of the voxels of each class, (B | 1, C); 0 for a class without voxels."""
    return focal / (volume + smooth_dr).clamp_min(torch.finfo(volume.dtype).tiny)


@register(
    "focal_positive",
    tags=("recall", "likelihood", "experimental"),
)
class FocalPositiveLoss(RegionLoss):
    r"""Focal loss of the voxels of each class, after a soft comparison with a threshold per voxel. Experimental.

    Formula:
        \frac{\sum_i g_i\,(1 - b_i)^{\gamma}(-\log b_i)}{\sum_i g_i + s_d},\quad b = \sigma\left(k (p - T)\right)

    When:
        Experiments with a network that predicts its own threshold per voxel, to raise sensitivity. A reconstruction,
        not verified against the paper. It knows no false positive: use it only alongside a loss that does.

    The formula of Yang et al. could not be read. Their abstract wants a loss that guides a threshold per voxel and
    stresses the foreground. This is the positive part of the focal loss on the differentiable binarization of Liao et
    al. A prediction of everything as foreground, or thresholds of 0, minimize it.

    A keyword ``threshold`` of the call holds logits of the thresholds, see `ThresholdMapDiceLoss`; without it T = 1/2.

    Args:
        gamma: exponent, at least 0.
        sharpness: k, above 0.
        common: see `SegLoss`; a class without voxels costs 0.

    Raises:
        ValueError, TypeError: a map of another shape, or of integers.

    Example:
        >>> import torch
        >>> from monai_segloss import FocalPositiveLoss
        >>> loss = FocalPositiveLoss(softmax=True, to_onehot_y=True, include_background=False, smooth_dr=0.0)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.1733

    Reference:
        Yang et al., Combating uncertainty with novel losses for automatic left atrium segmentation, STACOM 2018,
        arXiv:1812.05807; Liao et al., Real-time scene text detection with differentiable binarization, AAAI 2020,
        arXiv:1911.08947.
    """

    formula_arguments = ("include_background", "batch", "smooth_dr", "weight")
    accepts = ("threshold",)

    sums = ()

    def __init__(self, *, gamma: float = 2.0, sharpness: float = 50.0, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.gamma,) = non_negative(gamma=gamma)
        self.sharpness = sharp(sharpness)

    def view(self, batch: SegBatch) -> ClassView:
        return super().view(Binarized(batch, self.sharpness))

    def table(self, view: ClassView) -> Tensor:
        focal, volume = view.sums(Stat("focal", self.gamma), Stat("g"))
        return focal_positive(focal, volume, self.smooth_dr)
