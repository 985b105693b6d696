"""Cross-entropy in which each class weighs as much as all others take up.  Xie & Tu, ICCV 2015."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.voxel.binary_cross_entropy import BINARY
from monai_segloss.losses.voxel.cross_entropy import CE, G


def balanced_cross_entropy(ce: Tensor, g: Tensor, n: Tensor) -> Tensor:
    """(1 - n_c/N) / N times the summed cross-entropy ``ce`` of the ``g`` = n_c voxels of each class, (B | 1, C)."""
    n = n.clamp_min(1)
    return (n - g) / n * ce / n


@register(
    "balanced_cross_entropy",
    aliases=("balanced_ce",),
    tags=("likelihood", "imbalance"),
    recommended=Recommended(include_background=None),
)
class BalancedCrossEntropyLoss(SegLoss):
    r"""Cross-entropy in which a class weighs the share of the voxels outside of it.

    Formula:
        \frac{1}{N}\sum_i \left(1 - \frac{n_{y_i}}{N}\right)(-\log p_{i,y_i})

    When:
        Thin or small structures in every image. An image of one class only has weight 0 and teaches nothing, so false
        positives of empty patches go unpunished: use batch=True, or add another term.

    n_c of the N voxels of a sample are of class c. Two classes have the paper's weights; more classes are our
    extension. The paper sums; here each sample is divided by its voxels and the samples are averaged. Sigmoid, or a
    single channel: the two-class form of each channel, averaged over channels too. The formula was not verified against
    the paper. ``reduction="none"``: a value per sample, (B, 1, ...), with sigmoid (B, C, ...).

    Args:
        batch: count the classes, and average, over the batch and the processes instead of each sample.

    Example:
        >>> import torch
        >>> from monai_segloss import BalancedCrossEntropyLoss
        >>> loss = BalancedCrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.2599

    Reference:
        Xie & Tu, Holistically-nested edge detection, ICCV 2015, arXiv:1504.06375, equation 2.
    """

    formula_arguments = ("batch",)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return (G, *(BINARY if batch.multilabel else (CE,)))

    def __init__(self, *, batch: bool = False, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(batch=batch, **reading)

    def loss(self, batch: SegBatch) -> Unreduced:
        view = batch.class_view(over_batch=self.batch)
        g, ce, *negative = view.sums(*self.statistics(batch))
        values = balanced_cross_entropy(ce, g, view.voxel_count)
        if negative:
            values = values + balanced_cross_entropy(negative[0], view.voxel_count - g, view.voxel_count)
        else:
            values = values.sum(1, keepdim=True)
        return Unreduced.table(values, view.voxel_count)
