"""Cross-entropy, over classes (softmax) or per region (sigmoid)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import FORMULAS, Stat, Voxels, soft_statistics
from monai_segloss.core.module import ReadingArgs, SegLoss, Weight
from monai_segloss.core.reduce import Scores
from monai_segloss.core.registry import NnUNetPolicy, register

CE, CE_NEG, NLP, G = Stat("ce"), Stat("ce_neg"), Stat("nlp"), Stat("g")


def cross_entropy_statistics(multilabel: bool, weighted: bool, label_smoothing: float) -> tuple[Stat, ...]:
    """The sums that the mean needs."""
    if multilabel:
        return (CE, CE_NEG)
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
    which = cross_entropy_statistics(multilabel, weight is not None, label_smoothing)
    sums = _statistics(batch, which, weight_map)
    voxels = batch.voxels if weight_map is None else _map_sum(batch, weight_map)
    if multilabel:
        positive = sums[CE] if weight is None else sums[CE] * weight.to(sums[CE])
        return Scores(positive + sums[CE_NEG], voxels)
    classes = batch.classes
    w = sums[CE].new_ones(()) if weight is None else weight.to(sums[CE])
    total = (1 - label_smoothing) * w * sums[CE]
    if label_smoothing:
        total = total + label_smoothing / classes * w * sums[NLP]
    # the mean divides by weighted voxels, counted once and not once per class
    return Scores(total, voxels / classes if weight is None else w * sums[G])


def cross_entropy_map(
    batch: SegBatch, weight: Tensor | None = None, label_smoothing: float = 0.0, weight_map: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each voxel: (B, 1, *S) with one class per voxel, (B, C, *S) for regions; 0 where ignored."""
    smoothing(label_smoothing, is_multilabel(batch))
    voxels = Voxels(batch.clean, batch.one_hot.to(batch.clean.dtype), batch.activation)
    shape = (1, -1, *(1,) * (batch.ndim - 2))
    w = 1 if weight is None else weight.to(batch.clean).expand(batch.classes).reshape(shape)
    value = w * FORMULAS["ce"](voxels, 0)
    if is_multilabel(batch):
        value = value + FORMULAS["ce_neg"](voxels, 0)
    else:
        if label_smoothing:
            value = (1 - label_smoothing) * value + label_smoothing / batch.classes * w * FORMULAS["nlp"](voxels, 0)
        value = value.sum(1, keepdim=True)
    if weight_map is not None:
        value = value * weight_map[:, None].to(value.dtype)
    return value if batch.mask is None else value * batch.mask[:, None]


def is_multilabel(batch: SegBatch) -> bool:
    """Whether channels are independent (sigmoid, or a single channel) rather than one class per voxel."""
    return batch.activation == "sigmoid" or batch.classes == 1


def _statistics(batch: SegBatch, which: tuple[Stat, ...], weight_map: Tensor | None) -> dict[Stat, Tensor]:
    if weight_map is None:
        batch.request(*which)
        return {stat: batch.sum(stat) for stat in which}
    w = weight_map if batch.mask is None else weight_map * batch.mask
    sums = soft_statistics(batch.logits, batch.target, which, batch.activation, w)
    return dict(zip(which, sums.unbind(2), strict=True))


def _map_sum(batch: SegBatch, weight_map: Tensor) -> Tensor:
    w = weight_map if batch.mask is None else weight_map * batch.mask
    return w.flatten(1).sum(1, keepdim=True, dtype=batch.voxels.dtype)


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
    nnunet=NnUNetPolicy(include_background=None, batch=None),
)
class CrossEntropyLoss(SegLoss):
    """Cross-entropy.

    Softmax, or probabilities over classes: sum_i w_i (-log p_y) / sum_i w_i, w_i the class weight times the voxel's entry
    in ``weight_map``, as `torch.nn.CrossEntropyLoss` has it.  Sigmoid, or a single channel: binary cross-entropy, the mean
    over channels and voxels, ``weight`` on the positive term (torch's ``pos_weight``).  Background always counts; to leave
    it out give it the weight 0.  ``reduction="none"``: (B, 1, *S), with sigmoid (B, C, *S), unnormalized.

    Args:
        weight: a factor per class, or one for all.
        label_smoothing: e in [0, 1): the target becomes (1 - e) g + e/C.  Softmax only.  The minimum is then not 0.
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
