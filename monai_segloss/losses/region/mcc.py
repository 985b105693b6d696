"""Loss of the Matthews correlation coefficient.  Abhishek & Hamarneh, ISBI 2021."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import AREA, ClassView
from monai_segloss.core.counts import Counts, Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register

TN, G = Stat("tn"), Stat("g")


def mcc(n: Counts, tn: Tensor, smooth_nr: float = 0.0, smooth_dr: float = 1e-5) -> Tensor:
    """1 - (TP TN - FP FN + nr) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN) + dr), (B | 1, C).

    Counts are divided by the number of voxels first, dr by its fourth power: the same number, but the product of four
    counts overflows float32.  The complement is written out, so that small losses keep their digits.  Without any error it
    is 0 (the smoothing alone would leave about dr / N^4), with the same gradient.
    """
    voxels = n.n.clamp_min(1)
    tp, fp, fn, tn = (x / voxels for x in (n.tp, n.fp, n.fn, tn))
    nr, dr = smooth_nr / voxels**2, smooth_dr / voxels**2 / voxels**2
    difference = tp * tn - fp * fn
    # the two ways to pair the four factors, each less the difference
    one = fn * (tp + fp) + fp * (tn + fn)
    other = fp * (tp + fn) + fn * (tn + fp)
    square = (tp + fp) * (tn + fn) * (tp + fn) * (tn + fp) + dr
    root = square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
    good, score = difference.clamp_min(0), difference + nr
    gap = good * (one + other) + one * other + dr - nr * (2 * good + nr)
    table = torch.where(difference > 0, gap / (root * (root + good + nr)), 1 - score / root)
    return table - table.detach() * ((fp == 0) & (fn == 0))


@register(
    "mcc",
    positional="include_background to_onehot_y sigmoid softmax other_act reduction smooth_nr smooth_dr batch",
    aliases=("matthews",),
    tags=("correlation", "imbalance"),
)
class MCCLoss(RegionLoss):
    r"""One minus the soft Matthews correlation coefficient of each class.

    Formula:
        1 - \frac{TP \cdot TN - FP \cdot FN}{\sqrt{(TP + FP)(TP + FN)(TN + FP)(TN + FN)}}

    When:
        Where true negatives should count too, for example lesions that fill much of an image. A class that is absent,
        or everywhere, has no correlation and is left out: add cross-entropy, or use batch=True, to train it there.

    From 0 (right) over 1 (no relation) to 2 (inverted), mean over samples and classes. A class of which a sample has no
    voxel, or no other, leaves the mean: its numerator is 0 whatever is predicted. In MONAI it costs a constant 1
    without gradient. With two classes and softmax both channels have the same coefficient.

    Args:
        common: see `SegLoss`; ``smooth_nr`` is added to TP TN - FP FN, ``smooth_dr`` below the root, as in MONAI.

    Example:
        >>> import torch
        >>> from monai_segloss import MCCLoss
        >>> p = torch.tensor([[[0.9, 0.8, 0.1, 0.4]]])
        >>> round(MCCLoss()(p, torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])).item(), 4)
        0.397

    Reference:
        Abhishek & Hamarneh, Matthews correlation coefficient loss for deep convolutional networks: application to skin
        lesion segmentation, ISBI 2021, arXiv:2010.13454.
    """

    sums = (*AREA, TN, G)

    def __init__(self, *, smooth_nr: float = 0.0, **common: Unpack[FormulaArgs]) -> None:  # type: ignore[misc]
        super().__init__(smooth_nr=smooth_nr, **common)

    def table(self, view: ClassView) -> Tensor:
        return mcc(view.counts(), view.sums(TN)[0], self.smooth_nr, self.smooth_dr)

    def voxel_count(self, view: ClassView) -> Tensor:
        (g,) = view.sums(G)
        return (g > 0) & (g < view.voxel_count)
