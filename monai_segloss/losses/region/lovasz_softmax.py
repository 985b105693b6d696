"""Lovász-Softmax loss: the Lovász extension of the Jaccard loss.  Berman et al., CVPR 2018."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import FormulaArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.kernels.sorting import RankedErrors

CLASSES = ("present", "all")


def lovasz(
    batch: SegBatch, x: Tensor, g: Tensor, margin: float, per_image: bool, absent: bool = True
) -> tuple[Tensor, Tensor]:
    """Lovász extension of the Jaccard loss of each (sample, class), and which classes are there, both (B | 1, C).

    Args:
        batch: what the voxels come from; ignored ones cost nothing.
        x: (B, C, *S) probabilities or scores: the error of a voxel is 1 - x in the class and margin + x outside of it,
            and costs nothing where it is at most 0.
        g: (B, C, *S) bool, the voxels of the class.
        margin: 0 for probabilities, 1 for the hinge of scores.
        per_image: rank the voxels of each sample, otherwise those of the batch.
        absent: whether classes without a voxel must be computed too; otherwise they are 0 on the CPU, which can tell
            without waiting.
    """
    valid = None if batch.mask is None else _lines(batch.mask[:, None], per_image)
    g = _lines(g, per_image)
    return RankedErrors.apply(_lines(x, per_image), g, valid, margin, absent, jaccard_steps)[0], g.any(2)


def voxels_behind(batch: SegBatch, per_image: bool) -> Tensor:
    """Number of voxels that each row sums over of `lovasz`, (B | 1, 1)."""
    return batch.voxels if per_image else batch.voxels.sum(0, keepdim=True)


def _lines(x: Tensor, per_image: bool) -> Tensor:
    """(B, C, *S) as (B, C, N), or as (1, C, B N)."""
    return x.reshape(*x.shape[:2], -1) if per_image else x.transpose(0, 1).flatten(1)[None]


def jaccard_steps(g: Tensor, dtype: torch.dtype) -> Tensor:
    """By how much the Jaccard loss grows as the voxels ``g`` (N,), true in the class, become wrong one after the other.

    Counts are integers and steps no difference of neighbors: with F voxels in the class, c of them among the first i, the
    union is U = F + i - c; a voxel of the class adds 1 / U, another one (F - c) / (U (U - 1)).
    """
    counted = g.cumsum(0, dtype=torch.int32 if g.shape[0] < 2**31 else torch.int64)
    total = counted[-1].clone()
    counted.neg_().add_(total)
    left = counted.to(dtype)
    union = counted.add_(torch.arange(1, g.shape[0] + 1, dtype=counted.dtype, device=g.device)).to(dtype)
    steps = torch.where(g, 1, left.div_((union - 1).clamp_min_(1))).div_(union)
    # without a voxel in the class the first wrong one brings the loss from 0 to 1
    steps[0] = torch.where(total > 0, steps[0], 1)
    return steps


@register(
    "lovasz_softmax",
    aliases=("lovasz",),
    tags=("overlap", "sorting"),
    support=("labels", "regions", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=True, batch=None),
    exempt={
        "shards_equal_the_batch": "ranks are those of the voxels of one process; sorting over processes is not done"
    },
)
class LovaszSoftmaxLoss(SegLoss):
    r"""Lovász extension of the Jaccard loss: a convex surrogate of IoU on the errors of the voxels.

    Formula:
        \frac{1}{|C|} \sum_c \sum_i m_{(i)}\,[J_c(i) - J_c(i - 1)],\quad m = |g - p|\ \text{descending}

    When:
        To raise IoU, best after training with cross-entropy or added to it; from scratch it is often unstable. It sorts
        the voxels of every class: slow for large 3-D patches with many classes.

    It reads probabilities: one number for the batch, or (`per_image`) per sample. Counts are integers and the sort is
    in float32, so that it is right beyond 2^24 voxels. It keeps one map of slopes per class and no sorted copies. With
    sigmoid each channel is a class. Hard labels only. Under DistributedDataParallel each process ranks its own voxels,
    not those of the whole batch.

    Args:
        classes: ``"present"``: the mean over classes that the batch (or the sample) has voxels of; ``"all"``: over all
            scored ones, an absent class costing its largest probability.
        per_image: rank the voxels of each sample by themselves, and take the mean over samples.
        include_background: whether channel 0 is scored.

    Raises:
        ValueError: another value of ``classes``; a target of fractions.

    Example:
        >>> import torch
        >>> from monai_segloss import LovaszSoftmaxLoss
        >>> loss = LovaszSoftmaxLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 4, 8), torch.tensor([[[0, 0, 0, 0, 1, 1, 2, 3]]])).item(), 4)
        0.75

    Reference:
        Berman, Rannen Triki & Blaschko, The Lovász-Softmax loss, CVPR 2018, arXiv:1705.08790.
    """

    formula_arguments = ("include_background",)

    def __init__(self, *, classes: str = "present", per_image: bool = False, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        if classes not in CLASSES:
            raise ValueError(f"classes must be one of {', '.join(map(repr, CLASSES))}, got {classes!r}.")
        self.classes, self.per_image = classes, bool(per_image)

    def loss(self, batch: SegBatch) -> Unreduced:
        view = batch.class_view(self.include_background)
        g = check.hard(batch.one_hot)[:, view.first :]
        table, there = lovasz(batch, view.prob, g, 0.0, self.per_image, absent=self.classes == "all")
        counted = (there if self.classes == "present" else torch.ones_like(there)).to(table.dtype)
        mean = (table * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp_min(1)
        return Unreduced.table(mean, voxels_behind(batch, self.per_image))
