"""Boundary difference over union.  Sun, Luo & Li, MICCAI 2023."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import TP, SegBatch
from monai_segloss.core.check import within
from monai_segloss.core.counts import Stat
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.kernels.dilation import neighbor
from monai_segloss.losses.boundary.neighborhood import RatioArgs, valid
from monai_segloss.losses.region.dice import one_minus_ratio

SE = Stat("se")


def boundary_dou(tp: Tensor, error: Tensor, alpha: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """(U - I) / (U - alpha I) per (sample, class), (B | 1, C), with U - I = sum (p - g)^2 and I = ``tp``."""
    part = (1 - alpha) * tp
    return one_minus_ratio(part, error, smooth_nr, smooth_dr)


def boundary_share(surface: Tensor, size: Tensor, alpha_max: float, clamp_low: bool) -> Tensor:
    """alpha = 1 - 2 C / S of the boundary voxels C and all voxels S of a class; -1 without any."""
    alpha = torch.where(size > 0, 1 - 2 * surface / size.clamp_min(1), -1)
    return alpha.clamp(0 if clamp_low else -1, alpha_max)


@torch.no_grad()
def surface_and_size(batch: SegBatch) -> tuple[Tensor, Tensor]:
    """Boundary voxels and voxels of each class of the target, (B, C): those above 1/2."""
    counted = valid(batch)
    dtype = batch.voxels.dtype
    if batch.has_labels:
        edge = surface(batch.labels[:, None], counted)[:, 0]
        kept = torch.ones_like(edge) if batch.mask is None else batch.mask
        label, shape = batch.labels.flatten(1), (batch.logits.shape[0], batch.classes)
        empty = torch.zeros(shape, dtype=torch.int64, device=label.device)
        both = (empty.scatter_add(1, label, x.flatten(1).long()).to(dtype) for x in (edge & kept, kept))
        return next(both), next(both)
    mask = batch.one_hot > 0.5
    edge = surface(mask, counted) & mask
    return edge.flatten(2).sum(2).to(dtype), mask.flatten(2).sum(2).to(dtype)


def surface(x: Tensor, counted: Tensor | None) -> Tensor:
    """Voxels with a face neighbor of another value or at the border of the image, (B, K, *S); ignored ones do not count."""
    edge = torch.zeros_like(x, dtype=torch.bool)
    for axis in range(2, x.ndim):
        for step in (1, -1):
            other = neighbor(x, axis, step) != x
            if counted is not None:
                other = other & neighbor(counted, axis, step, fill=False)
            beyond = neighbor(torch.zeros_like(x[:1, :1], dtype=torch.bool), axis, step, fill=True)
            edge = edge | other | beyond
    return edge


@register(
    "boundary_dou",
    aliases=("bdou",),
    tags=("overlap", "contour"),
    recommended=Recommended(include_background=True, batch=True),
    exempt={
        "slice_equals_volume": Exempt(
            "in a volume of one slice every voxel lies on the surface", cases=("labels_2d", "one_class", "ignored_2d")
        )
    },
)
class BoundaryDoULoss(SegLoss):
    r"""Difference over partial union: Dice for thin classes, up to nearly the difference alone for compact ones.

    Formula:
        \frac{\sum (p - g)^2 + s_d - s_n}{\sum (p - g)^2 + (1 - \alpha) \sum p g + s_d},\quad \alpha = \min\{1 - 2 C /
        S, \alpha_{max}\}

    When:
        Compact organs, as an alternative to Dice that weighs the boundary more; published alone, on 2-D slices. It sees
        no distance: a wrong voxel costs the same wherever it lies.

    The mean runs over classes. S is the size of the class in the target, C the number of its boundary voxels: by face
    neighbors; the border of the image counts as boundary, as in the published code, an ignored voxel does not. alpha =
    0 is one minus the squared soft IoU, alpha = -1 the squared Dice loss. Thin classes have alpha below 0, down to -1,
    in the published code and here; ``clamp_low`` gives the range of the paper. alpha carries no gradient.

    A class that is absent costs error / (error + ``smooth_dr``), as in the Dice losses: 0 where nothing of it is
    predicted. The published code gives a constant 1 there, without a gradient.

    Args:
        alpha_max: largest alpha, -1 to 1; -1 gives the squared Dice loss.
        clamp_low: alpha is at least 0.
        batch: over the batch, the default of the published code, and over the processes of DistributedDataParallel.
        common: see `SegLoss`; background is scored, as published.

    Example:
        >>> import torch
        >>> from monai_segloss import BoundaryDoULoss
        >>> label = torch.zeros(1, 1, 8, 8).long()
        >>> label[..., 2:6, 2:6] = 1  # S = 16, C = 12: alpha = -1/2
        >>> loss = BoundaryDoULoss(softmax=True, to_onehot_y=True, include_background=False)
        >>> round(loss(torch.zeros(1, 2, 8, 8), label).item(), 4)  # 16 / (16 + 1.5 * 8)
        0.5714

    Reference:
        Sun, Luo & Li, Boundary difference over union loss for medical image segmentation, MICCAI 2023,
        arXiv:2308.00220.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

    def __init__(
        self,
        *,
        alpha_max: float = 0.8,
        clamp_low: bool = False,
        include_background: bool = True,
        batch: bool = True,
        **common: Unpack[RatioArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **common)
        (self.alpha_max,) = within(-1, 1, alpha_max=alpha_max)
        self.clamp_low = bool(clamp_low)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return (TP, SE)

    def loss(self, batch: SegBatch) -> Unreduced:
        view = batch.class_view(self.include_background, self.batch)
        tp, error = view.sums(TP, SE)
        c, s = (view.reduce_batch(x[:, view.first :]) for x in surface_and_size(batch))
        alpha = boundary_share(c, s, self.alpha_max, self.clamp_low)
        values = boundary_dou(tp, error, alpha, self.smooth_nr, self.smooth_dr)
        return Unreduced.table(values, view.voxel_count)
