"""Poly-1 cross-entropy: its first polynomial coefficient changed.  Leng et al., ICLR 2022."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import ReadingArgs, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss, VoxelSum
from monai_segloss.losses.voxel.cross_entropy import cross_entropy

FN, FP = Stat("fn"), Stat("fp")


def poly1_cross_entropy(batch: SegBatch, epsilon: float, weight: Tensor | None = None) -> VoxelSum:
    """Cross-entropy + epsilon (1 - p_t): over voxels the sum of 1 - p_t is FN, for regions FN + FP."""
    ce = cross_entropy(batch, weight)
    error = {FN: epsilon * (1.0 if weight is None else weight)} | ({FP: epsilon} if batch.multilabel else {})
    return replace(ce, parts={**ce.parts, **error})


@register(
    "poly1_cross_entropy",
    aliases=("poly1", "poly1_ce", "poly_loss"),
    tags=("likelihood",),
    recommended=Recommended(include_background=None, batch=None),
)
class Poly1CrossEntropyLoss(VoxelLoss):
    r"""Cross-entropy plus epsilon (1 - p) of the true class.

    Formula:
        -\log p_{y} + \epsilon\,(1 - p_{y})

    When:
        A one-line change of cross-entropy to tune: epsilon above 0 keeps a gradient on voxels that are already right.
        The gain was reported on natural images; on medical data expect little.

    A class weight multiplies both terms (some code weighs the logarithm only). The mean over voxels divides by the
    weights, as `CrossEntropyLoss` does. Sigmoid, or a single channel: the mean over channels and voxels, where p_t, the
    probability of the truth, is p at a target of 1 and 1 - p at 0; the weight stands on the positive part.
    ``reduction="none"``: (B, 1, *S), with sigmoid (B, C, *S), unnormalized.

    Args:
        epsilon: factor of 1 - p_t, at least -1, below which the loss would grow with p_t; 0 is the cross-entropy.
        weight: a factor per class, or one for all.

    Example:
        >>> import torch
        >>> from monai_segloss import Poly1CrossEntropyLoss
        >>> loss = Poly1CrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        1.1931

    Reference:
        Leng et al., PolyLoss: a polynomial expansion perspective of classification loss functions, ICLR 2022,
        arXiv:2204.12511.
    """

    formula_arguments = ("weight",)

    def __init__(self, *, epsilon: float = 1.0, weight: Weight | None = None, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(weight=weight, **reading)
        if not -1 <= epsilon < float("inf"):
            raise ValueError(f"epsilon must be a number of at least -1, got {epsilon!r}.")
        self.epsilon = float(epsilon)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        return poly1_cross_entropy(batch, self.epsilon, self.weights(batch.classes))
