from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, non_negative, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.boundary.neighborhood import class_view, scored_maps
from monai_segloss.losses.shape.perimeters import perimeters, unit_ball

ALONE = "it does not know the label: the most compact prediction is best, and a flat one has no perimeter"


@register(
    "compactness",
    aliases=("isoperimetric",),
    tags=("shape", "smoothness", "unsupervised"),
    exempt={
        "perfect_prediction_is_zero": ALONE,
        "perfect_prediction_is_the_minimum": ALONE,
        "flips": "forward differences along several axes meet in one voxel, another one after a flip",
    },
)
class CompactnessLoss(SegLoss):
    r"""Isoperimetric quotient of each class: 1 for a ball, more for what is less compact.

    Formula: \frac{P^N}{N^N \omega_N A^{N - 1}},\quad \mathrm{2\text{-}D}\ \frac{P^2}{4 \pi A},\quad \mathrm{3\text{-}D}\
    \frac{P^3}{36 \pi A^2}

    When: Alongside cross-entropy or Dice with a weight of 0.001 to 0.01, for compact organs of one part. Never alone: a
    constant prediction is best. The border of an image is no perimeter, so that an organ that it cuts seems more compact.

    One value per (sample, class). P is the sum of the lengths of gradients of p, in units of the ``spacing`` of the call,
    A the sum of p, omega_N the volume of the unit ball. The length is sqrt(|grad p|^2 + eps) - sqrt(eps): without the
    second root a flat image has a perimeter. A class with less than ``min_size`` voxels leaves the mean, since of a tiny one
    the value is large and its gradient takes away what is left. The paper's method is a graph cut; as a loss the quotient
    is that of Kervadec et al.

    Args:
        upper: value up to which a class costs nothing; 0: the quotient itself.
        isotropic: the length of a gradient is its Euclidean norm; False: the sum of its components, which is exact for
            edges along the axes.
        min_size: least sum of p, in voxels.
        eps: below the root of the norm, above 0.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Example:
        >>> import torch
        >>> from monai_segloss import CompactnessLoss
        >>> p = torch.zeros(1, 1, 8, 8)
        >>> p[..., 2:6, 2:6] = 1
        >>> round(CompactnessLoss(isotropic=False)(p, 0 * p).item(), 4)  # a square: 4 / pi
        1.2732

    Reference: Dolz et al., Unbiased shape compactness for segmentation, MICCAI 2017, arXiv:1704.08908; Kervadec et al., MIDL
    2021, arXiv:2105.00859.
    """

    def __init__(
        self,
        *,
        upper: float = 0.0,
        isotropic: bool = True,
        min_size: float = 1.0,
        eps: float = 1e-8,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background = include_background
        self.isotropic = bool(isotropic)
        self.upper, self.min_size, self.eps = non_negative(upper=upper, min_size=min_size, eps=eps)
        if not self.eps:
            raise ValueError("eps must be above 0.")

    def loss(self, batch: SegBatch) -> Unreduced:
        batch = batch.full_precision
        p, _ = scored_maps(batch, class_view(batch, self.background))
        perimeter, volume = perimeters(batch, p, self.eps, self.isotropic)
        mass = p.flatten(2).sum(2)
        there = (mass >= self.min_size) & (mass > 0)
        axes = sum(n > 1 for n in p.shape[2:])
        quotient = isoperimetric(perimeter, volume.masked_fill(~there, 1), axes)
        return Unreduced.table((quotient - self.upper).clamp_min(0), there & (batch.voxels > 0))


def isoperimetric(perimeter: Tensor, volume: Tensor, axes: int) -> Tensor:
    """P^N / (N^N omega_N A^(N - 1)); without any axis 0."""
    if not axes:
        return perimeter
    return perimeter**axes / (axes**axes * unit_ball(axes) * volume ** (axes - 1))
