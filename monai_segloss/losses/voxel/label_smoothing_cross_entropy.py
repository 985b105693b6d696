"""Cross-entropy with smoothed labels.  Szegedy et al., CVPR 2016."""

from __future__ import annotations

from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import ReadingArgs, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss, VoxelSum
from monai_segloss.losses.voxel.cross_entropy import (
    cross_entropy,
    smoothing,
)


@register(
    "label_smoothing_cross_entropy",
    aliases=("label_smoothing",),
    tags=("likelihood", "noise"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
    exempt={
        "perfect_prediction_is_the_minimum": "the minimum lies at p = (1 - e) g + e/C; the loss grows with certainty",
        "perfect_prediction_is_zero": "the minimum is the entropy of the smoothed labels",
    },
)
class LabelSmoothingCrossEntropyLoss(VoxelLoss):
    r"""Cross-entropy against labels that keep 1 - e and share e among all classes.

    Formula:
        -\frac{\sum_i \sum_c w_c\, q_{ic} \log p_{ic}}{\sum_i w_{y_i}},\quad q = (1 - e)\,g + e / C

    When:
        Overconfident networks, uncertain borders. The probabilities are drawn towards uniform everywhere, so rare
        structures lose most; the minimum is not 0 and does not lie at a certain prediction.

    It is `CrossEntropyLoss` with ``label_smoothing``, as torch has it. Ignored voxels neither contribute nor count. e
    is shared among all C classes, the true one included; code for bi-tempered losses shares it among the other C - 1.
    ``reduction="none"``: (B, 1, *S), unnormalized.

    Args:
        label_smoothing: e in [0, 1).
        weight: a factor per class, or one for all; the mean divides by that of the true class, as torch does.

    Raises:
        ValueError: ``sigmoid=True`` or a single channel: smoothing is defined for one class per voxel.

    Example:
        >>> import torch
        >>> from monai_segloss import LabelSmoothingCrossEntropyLoss
        >>> loss = LabelSmoothingCrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> round(loss(logits, torch.zeros(1, 1, 2, dtype=torch.long)).item(), 4)
        0.2181

    Reference:
        Szegedy et al., Rethinking the Inception architecture, CVPR 2016, arXiv:1512.00567, section 7.
    """

    formula_arguments = ("weight",)

    def __init__(
        self, *, label_smoothing: float = 0.1, weight: Weight | None = None, **reading: Unpack[ReadingArgs]
    ) -> None:
        super().__init__(weight=weight, **reading)
        self.label_smoothing = smoothing(label_smoothing, self.reader.sigmoid)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        return cross_entropy(batch, self.weights(batch.classes), self.label_smoothing)
