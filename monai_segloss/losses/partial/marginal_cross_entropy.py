"""Cross-entropy with unlabeled classes as background.  Shi et al., MedIA 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import ReadingArgs, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss, VoxelSum
from monai_segloss.losses.partial.merging import labeled_classes, labeled_indices, merged, refuse_sigmoid
from monai_segloss.losses.voxel.cross_entropy import cross_entropy


@register(
    "marginal_cross_entropy",
    aliases=("marginal_ce",),
    tags=("partial labels", "likelihood"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
)
class MarginalCrossEntropyLoss(VoxelLoss):
    r"""Cross-entropy in which the classes that a sample has no labels of count as its background.

    Formula:
        -\frac{1}{N} \sum_i \log q_{i,y_i},\quad q_0 = p_0 + \sum_{k\ \mathrm{unlabeled}} p_k,\ q_k = p_k\ \mathrm{else}

    When:
        Several data sets that label different organs, trained together. It says nothing about the unlabeled organs of a
        sample; every class must be labeled in some of them. Usually with marginal_dice and the exclusion losses.

    log q_0 is a log-sum-exp of the merged logits. A target voxel of a class that is not labeled is read as background.
    With all classes labeled this is `CrossEntropyLoss`. Label-set code takes the mean of the merged probabilities, not
    their sum, which adds the constant log of their number per background voxel. One class per voxel only.
    ``reduction="none"``: (B, 1, *S), unnormalized.

    A keyword ``labeled`` of the call, (B, C) of 0 and 1, says which classes each sample has labels of; it comes before
    the argument. The background is labeled in any case.

    Args:
        labeled: indices of the labeled classes, the same for all samples; None is all.
        weight: a factor per class, or one for all; the merged classes weigh as background.

    Raises:
        ValueError: ``sigmoid=True``, or ``labeled`` does not fit.

    Example:
        >>> import torch
        >>> from monai_segloss import MarginalCrossEntropyLoss
        >>> loss = MarginalCrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> labeled = torch.tensor([[True, True, False]])
        >>> round(loss(torch.zeros(1, 3, 2), torch.tensor([[[0, 1]]]), labeled=labeled).item(), 4)
        0.752

    Reference:
        Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, MedIA 2021,
        arXiv:2007.03868; Fidon et al., Label-set loss functions for partial supervision, MICCAI 2021, arXiv:2107.03846.
    """

    formula_arguments = ("weight",)
    own_pass = True
    accepts = ("labeled",)

    def __init__(
        self, *, labeled: Sequence[int] | None = None, weight: Weight | None = None, **reading: Unpack[ReadingArgs]
    ) -> None:
        super().__init__(weight=weight, **reading)
        refuse_sigmoid(self.reader.sigmoid)
        self.labeled = labeled_indices(labeled)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        return cross_entropy(merged(batch, labeled_classes(batch, self.labeled)), self.weights(batch.classes))
