"""Cross-entropy, over classes (softmax) or per region (sigmoid)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import ReadingArgs, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss, VoxelSum
from monai_segloss.losses.voxel.binary_cross_entropy import binary_cross_entropy

CE, NLP, G = Stat("ce"), Stat("nlp"), Stat("g")


def cross_entropy(
    batch: SegBatch, weight: Tensor | None = None, label_smoothing: float = 0.0, weight_map: Tensor | None = None
) -> VoxelSum:
    """-w_y ((1 - e) log p_y + e/C sum_c log p_c), e the label smoothing; of regions the binary cross-entropy."""
    smoothing(label_smoothing, batch.multilabel)
    if batch.multilabel:
        return binary_cross_entropy(batch, weight, weight_map)
    w = 1.0 if weight is None else weight
    parts = {CE: (1 - label_smoothing) * w}
    if label_smoothing:
        parts[NLP] = label_smoothing / batch.classes * w
    return VoxelSum(batch, parts, divisor=None if weight is None else {G: weight}, weight_map=weight_map)


@register(
    "cross_entropy",
    aliases=("ce",),
    tags=("likelihood",),
    recommended=Recommended(include_background=None, batch=None),
)
class CrossEntropyLoss(VoxelLoss):
    r"""Mean negative log probability of the true class of each voxel.

    Formula:
        \frac{\sum_i w_i\,(-\log p_{i,y_i})}{\sum_i w_i}

    When:
        The baseline of every comparison; well calibrated. Small structures drown in the background without weights.

    Softmax, or probabilities over classes: w_i is the class weight times the voxel's entry in ``weight_map``, as in
    `torch.nn.CrossEntropyLoss`. Sigmoid, or a single channel: binary cross-entropy, the mean over channels and voxels,
    ``weight`` on the positive term (torch's ``pos_weight``). Background always counts; to leave it out give it the
    weight 0. ``reduction="none"``: (B, 1, *S), with sigmoid (B, C, *S), unnormalized.

    Args:
        weight: a factor per class, or one for all.  Where all present classes have the weight 0 the loss is 0.
        label_smoothing: e in [0, 1): the target becomes (1 - e) g + e/C.  Softmax only.  The minimum is then not 0.  As
            in torch, w_c also multiplies the share e/C of class c at voxels of other classes, of weight 0 too: they then
            cost without being counted.

    A keyword ``weight_map`` of the call, (B, 1, *S) or (B, *S), weighs voxels.

    Example:
        >>> import torch
        >>> from monai_segloss import CrossEntropyLoss
        >>> loss = CrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 4, 8), torch.zeros(1, 1, 8, dtype=torch.long)).item(), 4)
        1.3863

    Reference:
        Ronneberger et al., U-Net, MICCAI 2015 (voxel weights), arXiv:1505.04597; Szegedy et al., Rethinking the
        Inception architecture, CVPR 2016 (label smoothing), arXiv:1512.00567.
    """

    formula_arguments = ("weight",)
    accepts = ("weight_map",)

    def __init__(
        self, *, weight: Weight | None = None, label_smoothing: float = 0.0, **reading: Unpack[ReadingArgs]
    ) -> None:
        super().__init__(weight=weight, **reading)
        self.label_smoothing = smoothing(label_smoothing, self.reader.sigmoid)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        return cross_entropy(batch, self.weights(batch.classes), self.label_smoothing, batch.map("weight_map"))


def smoothing(value: float, multilabel: bool) -> float:
    """``label_smoothing``, checked: in [0, 1), and 0 where channels are independent."""
    if not 0 <= value < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {value!r}.")
    if value and multilabel:
        raise ValueError(
            f"label_smoothing={value!r} is defined for one class per voxel; it cannot be combined with sigmoid=True or a "
            "single channel."
        )
    return float(value)
