"""Poly-1 cross-entropy: its first polynomial coefficient changed.  Leng et al., ICLR 2022."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import FORMULAS, Stat
from monai_segloss.core.module import ReadingArgs, SegLoss, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Scores
from monai_segloss.core.registry import register
from monai_segloss.losses.voxel.binary_cross_entropy import BINARY
from monai_segloss.losses.voxel.cross_entropy import CE, G, cross_entropy, cross_entropy_map
from monai_segloss.losses.voxel.weighting import class_factor, is_multilabel, voxels, weighted_map

FN, FP = Stat("fn"), Stat("fp")


def poly1_cross_entropy(batch: SegBatch, epsilon: float, weight: Tensor | None = None) -> Scores:
    """Cross-entropy + epsilon (1 - p_t), (B, C): the sum of 1 - p_t over voxels is FN, for regions FN + FP."""
    scores = cross_entropy(batch, weight)
    error = batch.sum(FN) if weight is None else weight.to(scores.total) * batch.sum(FN)
    if is_multilabel(batch):
        error = error + batch.sum(FP)
    return Scores(scores.total + epsilon * error, scores.count)


def poly1_cross_entropy_map(batch: SegBatch, epsilon: float, weight: Tensor | None = None) -> Tensor:
    """The same per voxel: (B, 1, *S) with one class per voxel, (B, C, *S) for regions; 0 where ignored."""
    v = voxels(batch)
    error = class_factor(batch, weight) * FORMULAS["fn"](v, 0)
    error = error + FORMULAS["fp"](v, 0) if is_multilabel(batch) else error.sum(1, keepdim=True)
    return cross_entropy_map(batch, weight) + epsilon * weighted_map(batch, error)


@register(
    "poly1_cross_entropy",
    family="voxel",
    summary="Cross-entropy plus epsilon (1 - p) of the true class.",
    when="A one-line change of cross-entropy to tune: epsilon above 0 keeps a gradient on voxels that are already "
    "right. The gain was reported on natural images; on medical data expect little.",
    formula=r"-\log p_{y} + \epsilon\,(1 - p_{y})",
    paper="Leng et al., PolyLoss: a polynomial expansion perspective of classification loss functions, ICLR 2022",
    doi="arXiv:2204.12511",
    aliases=("poly1", "poly1_ce", "poly_loss"),
    tags=("likelihood",),
    recommended=Recommended(include_background=None, batch=None),
)
class Poly1CrossEntropyLoss(SegLoss):
    """Poly-1 cross-entropy, the mean over voxels of -log p_t + epsilon (1 - p_t), p_t the probability of the truth.

    A class weight multiplies both terms (some code weighs the logarithm only) and the mean divides by the weights, as
    `CrossEntropyLoss` does.  Sigmoid, or a single channel: the mean over channels and voxels, p_t = p where the target
    is 1 and 1 - p where it is 0; the weight stands on the positive part.  ``reduction="none"``: (B, 1, *S), with sigmoid
    (B, C, *S), unnormalized.

    Args:
        epsilon: factor of 1 - p_t, at least -1, below which the loss would grow with p_t; 0 is the cross-entropy.
        weight: a factor per class, or one for all.
        reading: see `SegLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import Poly1CrossEntropyLoss
        >>> loss = Poly1CrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        1.1931

    Reference:
        Z. Leng et al., ICLR 2022, arXiv:2204.12511.
    """

    scoring = ("weight",)

    def __init__(self, *, epsilon: float = 1.0, weight: Weight | None = None, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(weight=weight, **reading)
        if not -1 <= epsilon < float("inf"):
            raise ValueError(f"epsilon must be a number of at least -1, got {epsilon!r}.")
        self.epsilon = float(epsilon)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        if self.reduction == "none":
            return ()
        if is_multilabel(batch):
            return (*BINARY, FN, FP)
        return (CE, FN) if self.class_weight is None else (CE, FN, G)

    def loss(self, batch: SegBatch) -> Scores:
        weight = self.weights(batch.classes)
        if self.reduction == "none":
            return Scores(poly1_cross_entropy_map(batch, self.epsilon, weight), batch.voxels)
        return poly1_cross_entropy(batch, self.epsilon, weight)
