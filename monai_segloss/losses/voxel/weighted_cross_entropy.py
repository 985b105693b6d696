"""Cross-entropy with class weights and a weight map.  Ronneberger et al., MICCAI 2015."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import ReadingArgs, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VOXELS, VoxelLoss, VoxelSum
from monai_segloss.losses.voxel.cross_entropy import G, cross_entropy

DIVISORS = ("weights", "voxels")


def weighted_cross_entropy(
    batch: SegBatch, weight: Tensor | None, weight_map: Tensor | None, normalize: str = "weights"
) -> VoxelSum:
    """w_i CE_i over the sum of the weights or the number of voxels."""
    ce = cross_entropy(batch, weight, 0.0, weight_map)
    if normalize == "voxels":
        return replace(ce, divisor=None, unweighted=True)
    if weight is None or not batch.multilabel:
        return ce
    return replace(ce, divisor={VOXELS: 1.0, G: weight - 1})


@register(
    "weighted_cross_entropy",
    aliases=("weighted_ce", "wce"),
    tags=("likelihood", "imbalance"),
    recommended=Recommended(include_background=None, batch=None),
)
class WeightedCrossEntropyLoss(VoxelLoss):
    r"""Cross-entropy with a factor per class and per voxel, over the sum of the factors or the voxels.

    Formula:
        \frac{\sum_i w_i\,(-\log p_{i,y_i})}{D},\quad w_i = w_{y_i} m_i,\quad D = \sum_i w_i \text{ or } N

    When:
        A known imbalance of classes, or borders that must be kept apart (weight_map). Large factors buy recall of rare
        classes with false positives and with calibration.

    m is the ``weight_map``. D is the sum of the weights, as in torch, or the number of voxels that count: then the
    weights also scale the loss. Without weights it is `CrossEntropyLoss`. Sigmoid, or a single channel: the weight of a
    class stands on its positive term and 1 on the negative one. D sums what stands on the terms; `CrossEntropyLoss` and
    torch's ``pos_weight`` divide by the voxels instead. Where all present classes have the weight 0 the loss is 0.

    Args:
        weight: a factor per class, background included, or one for all; None is uniform.
        normalize: ``"weights"`` or ``"voxels"``, what the mean divides by.

    A keyword ``weight_map`` of the call, (B, 1, *S) or (B, *S), weighs voxels: the paper's
    w_c + 10 exp(-(d1 + d2)^2 / 50) with the distances to the two nearest objects in pixels, for example.

    Raises:
        ValueError: another ``normalize``, or weights that do not fit the classes.

    Example:
        >>> import torch
        >>> from monai_segloss import WeightedCrossEntropyLoss
        >>> logits, label = torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])
        >>> for how in ("weights", "voxels"):
        ...     loss = WeightedCrossEntropyLoss(weight=[1, 3], normalize=how, softmax=True, to_onehot_y=True)
        ...     print(round(loss(logits, label).item(), 4))
        0.6931
        1.0397

    Reference:
        Ronneberger et al., U-Net, MICCAI 2015, arXiv:1505.04597, equations 1 and 2.
    """

    formula_arguments = ("weight",)
    accepts = ("weight_map",)

    def __init__(
        self, *, weight: Weight | None = None, normalize: str = "weights", **reading: Unpack[ReadingArgs]
    ) -> None:
        super().__init__(weight=weight, **reading)
        if normalize not in DIVISORS:
            raise ValueError(f"normalize must be 'weights' or 'voxels', got {normalize!r}.")
        self.normalize = normalize

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        return weighted_cross_entropy(batch, self.weights(batch.classes), batch.map("weight_map"), self.normalize)
