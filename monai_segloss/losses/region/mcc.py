from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.card import FormulaArgs, RegionLoss, Unpack, register
from monai_segloss.core.formula import AREA, ClassView, Counts, Stat


@register(
    "mcc",
    positional="include_background to_onehot_y sigmoid softmax other_act reduction smooth_nr smooth_dr batch",
    aliases=("matthews",),
    tags=("correlation", "imbalance"),
)
class MCCLoss(RegionLoss):
    r"""One minus the soft Matthews correlation coefficient of each class.

    Formula: 1 - \frac{TP \cdot TN - FP \cdot FN}{\sqrt{(TP + FP)(TP + FN)(TN + FP)(TN + FN)}}

    When: Where true negatives should count too, for example lesions that fill much of an image.

    From 0 (right) over 1 (no relation) to 2 (inverted), mean over samples and classes. A class of which a sample has no
    voxel, or no other, leaves the mean, since its numerator is 0 whatever is predicted: add cross-entropy, or use
    batch=True, to train it there. With two classes and softmax both channels have the same coefficient.

    Args:
        smooth_nr, smooth_dr: added to TP TN - FP FN, and below the root, as in MONAI.

    Example:
        >>> import torch
        >>> from monai_segloss import MCCLoss
        >>> p, g = torch.tensor([[[0.9, 0.8, 0.1, 0.4]]]), torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> round(MCCLoss()(p, g).item(), 4)
        0.397

    Reference: Abhishek & Hamarneh, Matthews correlation coefficient loss for deep convolutional networks: application
    to skin lesion segmentation, ISBI 2021, arXiv:2010.13454.
    """

    sums = (*AREA, Stat("tn"), Stat("g"))

    def __init__(self, *, smooth_nr: float = 0.0, **common: Unpack[FormulaArgs]) -> None:  # type: ignore[misc]
        super().__init__(smooth_nr=smooth_nr, **common)

    def table(self, view: ClassView) -> Tensor:
        return mcc(view.counts(), view.sums(Stat("tn"))[0], self.smooth_nr, self.smooth_dr)

    def voxel_count(self, view: ClassView) -> Tensor:
        (g,) = view.sums(Stat("g"))
        return (g > 0) & (g < view.voxel_count)


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
    one = fn * (tp + fp) + fp * (tn + fn)  # the two ways to pair the four factors, each less the difference
    other = fp * (tp + fn) + fn * (tn + fp)
    square = (tp + fp) * (tn + fn) * (tp + fn) * (tn + fp) + dr
    root = square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
    good, score = difference.clamp_min(0), difference + nr
    gap = good * (one + other) + one * other + dr - nr * (2 * good + nr)
    table = torch.where(difference > 0, gap / (root * (root + good + nr)), 1 - score / root)
    return table - table.detach() * ((fp == 0) & (fn == 0))
