"""Hausdorff loss by soft erosions of the error.  Karimi & Salcudean, IEEE TMI 2020."""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from monai_segloss.core.arguments import EXPONENT
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced, quotient
from monai_segloss.core.registry import register
from monai_segloss.kernels.filters import CrossSum, Erosions, cross_sum
from monai_segloss.losses.boundary.neighborhood import class_view, mean_table, scored_maps, valid

NORMS = ("rescale", "minmax", "none")


def erosion_error(e: Tensor, counted: Tensor | None, alpha: float, erosions: int, norm: str) -> Tensor:
    """sum_k k^alpha e_k of squared errors e (B, K, *S), e_k after k soft erosions, per voxel."""
    entries: float | Tensor = 2.0 * (e.ndim - 2) + 1
    if counted is not None:
        entries = (entries - cross_sum((~counted).to(e.dtype))).clamp_min(1)
    factor = (2.0 if norm == "rescale" else 1.0) / entries
    if counted is not None:
        factor = factor * counted  # nothing is left where nothing counts
    threshold = 1.0 if norm == "rescale" else 0.5
    if norm != "minmax":
        total: Tensor = Erosions.apply(e, factor, threshold, [k**alpha for k in range(1, erosions + 1)])[0]
        return total
    total = torch.zeros_like(e)
    for k in range(1, erosions + 1):
        e = spread((CrossSum.apply(e) * factor - threshold).clamp_min(0), counted)
        total = total + k**alpha * e
    return total


def spread(e: Tensor, counted: Tensor | None) -> Tensor:
    """Each map stretched so that its values that count run from 0 to 1; a constant map stays."""
    axes = tuple(range(2, e.ndim))
    high = e.amax(axes, keepdim=True)
    low = (e if counted is None else e.masked_fill(~counted, torch.inf)).amin(axes, keepdim=True)
    low = torch.where(low == torch.inf, 0, low)
    width = high - low
    stretched = quotient(e - low, width)
    e = torch.where(width == 0, e, stretched)
    return e if counted is None else e * counted


@register(
    "hausdorff_er",
    tags=("hausdorff", "distance", "morphology"),
    min_error_width=3,
    recommended=Recommended(batch=None),
    exempt={"slice_equals_volume": "in a volume of one slice the error also erodes from its two faces"},
)
class HausdorffERLoss(SegLoss):
    r"""Hausdorff loss without distance maps: errors that survive k erosions weigh k^alpha.

    Formula:
        \frac{1}{N} \sum_{k=1}^{K} k^\alpha \sum_i e_k(i),\quad e_0 = (p - g)^2,\quad e_k = \max\{2 (B * e_{k-1}) - 1,
        0\}

    When:
        Alongside Dice or cross-entropy, to shrink thick errors. Alone it is blind: an error narrower than three voxels
        costs almost nothing, and one thicker than twice the number of erosions no more than that. It counts voxels and
        not millimeters; for anisotropic images take hausdorff_dt.

    B * is the mean over a voxel and its face neighbors, max a soft threshold at 1/2. Beyond the image the error is 0.
    An ignored voxel leaves the mean, so that errors do not erode there. Steps are voxels: spacing has no influence.

    The threshold read literally, ``norm="none"``, leaves at most 1/2, and nothing after the second erosion; ports of
    the original do that. ``"rescale"`` maps 1/2 ... 1 to 0 ... 1, so that a flat error of 1 stays 1. ``"minmax"``
    stretches each map to 0 ... 1 as kornia and its predecessors do: parity with these, but a single voxel just above
    1/2 counts as a full error, and all voxels of a map depend on each other. Predecessors of kornia erode only two axes
    of a volume.

    Args:
        alpha: exponent of the number of erosions that an error survives.
        erosions: K, how many.
        norm: ``"rescale"``, ``"minmax"`` or ``"none"``.
        include_background: whether channel 0 is scored; None: where channels are independent.  With two classes and
            softmax it makes no difference.

    Raises:
        ValueError: another ``norm``; ``erosions`` that is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from monai_segloss import HausdorffERLoss
        >>> logits = torch.tensor([-50.0, 50.0]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
        >>> loss = HausdorffERLoss(softmax=True, to_onehot_y=True, erosions=1)
        >>> round(loss(logits, torch.zeros(1, 1, 5, 5)).item(), 4)  # 9 voxels of 1, 12 of 0.6, 4 of 0.2
        0.68

    Reference:
        Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional neural
        networks, IEEE TMI 39(2), 2020, arXiv:1904.10030, equation 11.

        The formula was not verified against the paper; its re-implementations agree on it but for the threshold.
    """

    formula_arguments = ("include_background",)
    bounds: ClassVar = {"alpha": EXPONENT}

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        erosions: int = 10,
        norm: str = "rescale",
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background = include_background
        (self.alpha,) = non_negative(alpha=alpha)
        if not 1 <= erosions < float("inf") or erosions != int(erosions):
            raise ValueError(f"erosions must be a whole number, at least 1, got {erosions!r}.")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))}, got {norm!r}.")
        self.erosions, self.norm = int(erosions), norm

    def loss(self, batch: SegBatch) -> Unreduced:
        p, g = scored_maps(batch, class_view(batch, self.background))
        error = erosion_error((p - g) ** 2, valid(batch), self.alpha, self.erosions, self.norm)
        return mean_table(error, batch)
