from __future__ import annotations

from monai_segloss.core.card import ReadingArgs, Unpack, VoxelLoss, Weight, check, one_of, register
from monai_segloss.core.formula import SegBatch, Stat, VoxelSum
from monai_segloss.losses.structural.class_shares import spatially_smoothed
from monai_segloss.losses.voxel.cross_entropy import cross_entropy

SHARES = {"uniform": 0.1, "spatial": 0.5}
"""Published share of the label that is given away, by kind."""


@register(
    "label_smoothing_cross_entropy",
    aliases=("label_smoothing",),
    tags=("likelihood", "noise"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    exempt={
        "perfect_prediction_is_the_minimum": "the minimum lies at p = (1 - e) g + e/C; the loss grows with certainty",
        "perfect_prediction_is_zero": "the minimum is the entropy of the smoothed labels",
    },
)
class LabelSmoothingCrossEntropyLoss(VoxelLoss):
    r"""Cross-entropy against labels that keep 1 - e and share e among all classes, or those of the neighbors.

    Formula: -\frac{\sum_i \sum_c w_c\, q_{ic} \log p_{ic}}{\sum_i w_{y_i}},\quad q = (1 - e)\,g + e / C

    When: Overconfident networks, uncertain borders. The probabilities are drawn towards uniform everywhere, so rare
    structures lose most; the minimum is not 0 and does not lie at a certain prediction. Spatial: only borders soften.

    It is `CrossEntropyLoss` with ``label_smoothing``, as torch has it. Ignored voxels neither contribute nor count. e
    is shared among all C classes, the true one included; code for bi-tempered losses shares it among the other C - 1.
    ``kind="spatial"``, spatially varying label smoothing: e goes to the classes of the 3^d - 1 neighbors, weighed by a
    Gaussian of sigma 1 voxel; at e = 1/2 the center weighs as much as they do together, as published. Neighbors beyond
    the image and ignored ones have no part. The window counts voxels of the grid, also of a coarser scale.

    Args:
        label_smoothing: e in [0, 1); None: 0.1, spatial 0.5, as published.
        kind: ``"uniform"`` or ``"spatial"``.
        weight: a factor per class, or one for all; the mean divides by that of the true class, as torch does; spatial,
            by those of the smoothed label.

    Raises:
        ValueError: ``sigmoid=True`` or a single channel: smoothing is defined for one class per voxel.

    Example:
        >>> import torch
        >>> from monai_segloss import LabelSmoothingCrossEntropyLoss
        >>> loss = LabelSmoothingCrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> round(loss(logits, torch.zeros(1, 1, 2, dtype=torch.long)).item(), 4)
        0.2181

    Reference: Szegedy et al., Rethinking the Inception architecture, CVPR 2016, arXiv:1512.00567, section 7; Islam &
    Glocker, Spatially varying label smoothing, IPMI 2021 (spatial; formula from memory), arXiv:2104.05788.
    """

    def __init__(
        self,
        *,
        label_smoothing: float | None = None,
        kind: str = "uniform",
        weight: Weight | None = None,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(weight=weight, **reading)
        one_of(tuple(SHARES), kind=kind)
        share = SHARES[kind] if label_smoothing is None else label_smoothing
        self.label_smoothing, self.spatial = check.smoothing(share, self.reader.sigmoid), kind == "spatial"

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return () if self.spatial else super().statistics(batch)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        weight = self.weights(batch.classes)
        if not self.spatial:
            return cross_entropy(batch, weight, self.label_smoothing)
        check.smoothing(self.label_smoothing, batch.multilabel)
        smoothed = spatially_smoothed(batch, self.label_smoothing)
        return cross_entropy(SegBatch(batch.logits, smoothed, batch.mask, batch.activation), weight)
