"""Dice of a prediction that is binarized by a map of thresholds.  After Wang et al., MICCAI 2018, and Liao et al., 2020."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.kernels.binarized import binarized_statistics
from monai_segloss.losses.region.dice import DiceForm


class Binarized(SegBatch):
    """A batch whose statistics are those of b = sigmoid(k (p - T)), T the sigmoid of the map ``threshold`` or 1/2.

    Raises:
        ValueError: the map has not one value per voxel.
        TypeError: it holds integers.
    """

    def __init__(self, batch: SegBatch, sharpness: float) -> None:
        super().__init__(batch.logits, batch.target, batch.mask, batch.activation)
        self.sharpness = sharpness
        self.threshold: Tensor | None = None
        if "threshold" in batch.maps:
            z = check.voxel_shape("threshold", batch.maps["threshold"], batch.logits)
            if not z.is_floating_point():
                raise TypeError(f"threshold must be floating point (logits of thresholds) but has dtype {z.dtype}.")
            self.threshold = z

    def statistics(self, which: tuple[Stat, ...]) -> Tensor:
        return binarized_statistics(
            self.logits, self.target, which, self.activation, self.sharpness, self.threshold, self.mask
        )


def sharp(sharpness: float) -> float:
    """``sharpness``, checked: a number above 0."""
    (value,) = check.non_negative(sharpness=sharpness)
    if not value:
        raise ValueError(f"sharpness must be above 0, got {sharpness!r}.")
    return value


@register(
    "threshold_map_dice",
    tags=("overlap", "experimental"),
)
class ThresholdMapDiceLoss(RegionLoss):
    r"""Dice of the prediction after a soft comparison with a threshold per voxel. Experimental.

    Formula:
        1 - \frac{2 \sum_i b_i g_i + s_n}{\sum_i b_i + \sum_i g_i + s_d},\quad b = \sigma\left(k (p - T)\right)

    When:
        Experiments with a network that predicts its own threshold per voxel. A reconstruction, not verified against the
        paper. Its gradient vanishes away from the threshold, so it cannot undo confident mistakes: add cross-entropy.

    The formulas of Wang et al. could not be read: this is their idea, a map of thresholds alongside the prediction, in the
    differentiable binarization of Liao et al. Only p - T is trained, so T means nothing unless another loss, such as
    cross-entropy, holds p.

    A keyword ``threshold`` of the call holds logits of the thresholds, (B, 1, *S) or (B, *S), the same for all classes,
    and gets a gradient. Without it T = 1/2: the soft Dice of a nearly hard prediction, which is no experiment with
    thresholds.

    Args:
        sharpness: k, above 0; about 4 / k is the range of p - T that gets a gradient.
        common: see `SegLoss`; score the foreground with ``include_background=False``.

    Raises:
        ValueError, TypeError: a map of another shape, or of integers.

    Example:
        >>> import torch
        >>> from monai_segloss import ThresholdMapDiceLoss
        >>> loss = ThresholdMapDiceLoss(softmax=True, to_onehot_y=True, include_background=False)
        >>> logits, label = torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])
        >>> round(loss(logits, label).item(), 4), round(loss(logits, label, threshold=torch.full((1, 4), -0.2)).item(), 4)
        (0.6667, 0.6065)

    Reference:
        Wang et al., Densely deep supervised networks with threshold loss for cancer detection in automated breast
        ultrasound, MICCAI 2018, doi:10.1007/978-3-030-00937-3_73; Liao et al., Real-time scene text detection with
        differentiable binarization, AAAI 2020, arXiv:1911.08947.
    """

    accepts = ("threshold",)

    sums = ()

    def __init__(self, *, sharpness: float = 50.0, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        self.sharpness = sharp(sharpness)
        self.dice = DiceForm(False, False, self.smooth_nr, self.smooth_dr)

    def view(self, batch: SegBatch) -> ClassView:
        return super().view(Binarized(batch, self.sharpness))

    def table(self, view: ClassView) -> Tensor:
        return self.dice.table(view)
