"""Cross-entropy, over classes (softmax) or per region (sigmoid)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import FORMULAS, Stat
from monai_segloss.core.module import ReadingArgs, SegLoss, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Scores
from monai_segloss.core.registry import register
from monai_segloss.losses.voxel.binary_cross_entropy import BINARY, binary_cross_entropy, binary_cross_entropy_map
from monai_segloss.losses.voxel.weighting import (
    class_factor,
    is_multilabel,
    voxels,
    weighted_map,
    weighted_sums,
    weighted_voxels,
)

CE, NLP, G = Stat("ce"), Stat("nlp"), Stat("g")


def cross_entropy_statistics(multilabel: bool, weighted: bool, label_smoothing: float) -> tuple[Stat, ...]:
    """The sums that the mean needs."""
    if multilabel:
        return BINARY
    return (CE, *((G,) if weighted else ()), *((NLP,) if label_smoothing else ()))


def cross_entropy(
    batch: SegBatch, weight: Tensor | None = None, label_smoothing: float = 0.0, weight_map: Tensor | None = None
) -> Scores:
    """Cross-entropy of a batch from its statistics, (B, C) and its divisor.

    One class per voxel: sum_i w_i (-log p_y) / sum_i w_i with w_i the class weight times the map.  Regions: the mean over
    channels and voxels of -(w g log p + (1 - g) log(1 - p)).
    """
    multilabel = is_multilabel(batch)
    smoothing(label_smoothing, multilabel)
    if multilabel:
        return binary_cross_entropy(batch, weight, weight_map)
    which = cross_entropy_statistics(False, weight is not None, label_smoothing)
    sums = dict(zip(which, weighted_sums(batch, which, weight_map), strict=True))
    w = sums[CE].new_ones(()) if weight is None else weight.to(sums[CE])
    total = (1 - label_smoothing) * w * sums[CE]
    if label_smoothing:
        total = total + label_smoothing / batch.classes * w * sums[NLP]
    # the mean divides by weighted voxels, counted once and not once per class
    count = weighted_voxels(batch, weight_map) / batch.classes if weight is None else w * sums[G]
    return Scores(total, count)


def cross_entropy_map(
    batch: SegBatch, weight: Tensor | None = None, label_smoothing: float = 0.0, weight_map: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each voxel: (B, 1, *S) with one class per voxel, (B, C, *S) for regions; 0 where ignored."""
    smoothing(label_smoothing, is_multilabel(batch))
    if is_multilabel(batch):
        return binary_cross_entropy_map(batch, weight, weight_map)
    if batch.has_labels:  # no one-hot
        lp, w = batch.log_prob.contiguous(), class_factor(batch, weight)  # else nll_loss may have no gradient
        by_class = None if weight is None else weight.to(lp).expand(batch.classes)
        value = F.nll_loss(lp, batch.labels, by_class, reduction="none")[:, None]
        if label_smoothing:
            rest = (w * lp).sum(1, keepdim=True)
            value = (1 - label_smoothing) * value - label_smoothing / batch.classes * rest
        return weighted_map(batch, value, weight_map)
    v, w = voxels(batch), class_factor(batch, weight)
    value = w * FORMULAS["ce"](v, 0)
    if label_smoothing:
        value = (1 - label_smoothing) * value + label_smoothing / batch.classes * w * FORMULAS["nlp"](v, 0)
    return weighted_map(batch, value.sum(1, keepdim=True), weight_map)


@register(
    "cross_entropy",
    family="voxel",
    summary="Mean negative log probability of the true class of each voxel.",
    when="The baseline of every comparison; well calibrated. Small structures drown in the background without weights.",
    formula=r"\frac{\sum_i w_i\,(-\log p_{i,y_i})}{\sum_i w_i}",
    paper="Ronneberger et al., U-Net, MICCAI 2015 (voxel weights); Szegedy et al., Rethinking the Inception "
    "architecture, CVPR 2016 (label smoothing)",
    doi="arXiv:1505.04597; arXiv:1512.00567",
    aliases=("ce",),
    tags=("likelihood",),
    recommended=Recommended(include_background=None, batch=None),
)
class CrossEntropyLoss(SegLoss):
    """Cross-entropy.

    Softmax, or probabilities over classes: sum_i w_i (-log p_y) / sum_i w_i, w_i the class weight times the voxel's entry
    in ``weight_map``, as `torch.nn.CrossEntropyLoss` has it.  Sigmoid, or a single channel: binary cross-entropy, the mean
    over channels and voxels, ``weight`` on the positive term (torch's ``pos_weight``).  Background always counts; to leave
    it out give it the weight 0.  ``reduction="none"``: (B, 1, *S), with sigmoid (B, C, *S), unnormalized.

    Args:
        weight: a factor per class, or one for all.  Where all present classes have the weight 0 the loss is 0.
        label_smoothing: e in [0, 1): the target becomes (1 - e) g + e/C.  Softmax only.  The minimum is then not 0.  As
            in torch, w_c also multiplies the share e/C of class c at voxels of other classes, of weight 0 too: they then
            cost without being counted.
        reading: see `SegLoss`.

    A keyword ``weight_map`` of the call, (B, 1, *S) or (B, *S), weighs voxels.

    Example:
        >>> import torch
        >>> from monai_segloss import CrossEntropyLoss
        >>> loss = CrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 4, 8), torch.zeros(1, 1, 8, dtype=torch.long)).item(), 4)
        1.3863

    Reference:
        O. Ronneberger et al., MICCAI 2015, arXiv:1505.04597; C. Szegedy et al., CVPR 2016, arXiv:1512.00567.
    """

    scoring = ("weight",)
    accepts = ("weight_map",)

    def __init__(
        self, *, weight: Weight | None = None, label_smoothing: float = 0.0, **reading: Unpack[ReadingArgs]
    ) -> None:
        super().__init__(weight=weight, **reading)
        self.label_smoothing = smoothing(label_smoothing, self.reader.sigmoid)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        if self.reduction == "none" or "weight_map" in batch.maps:
            return ()
        return cross_entropy_statistics(is_multilabel(batch), self.class_weight is not None, self.label_smoothing)

    def loss(self, batch: SegBatch) -> Scores:
        weight, weight_map = self.weights(batch.classes), batch.map("weight_map")
        if self.reduction == "none":
            return Scores(cross_entropy_map(batch, weight, self.label_smoothing, weight_map), batch.voxels)
        return cross_entropy(batch, weight, self.label_smoothing, weight_map)


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
