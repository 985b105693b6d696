"""Elastic interaction of two boundaries.  Lan, Xiang & Zhang, MICCAI 2020."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, class_view, scored_maps


def elastic_energy(spacing: Spacing, d: Tensor, physical: bool, periodic: bool) -> Tensor:
    """Sum over frequencies of |k| |F(d)|^2 per (sample, class), (B, K), F orthonormal.

    |k| counts periods of the image, or with ``physical`` periods per unit of the spacing.
    """
    axes = tuple(range(2, d.ndim))
    size = [n if periodic or n == 1 else 2 * n for n in d.shape[2:]]
    spectrum = torch.fft.rfftn(d, size, axes, norm="ortho")
    square = spectrum.real**2 + spectrum.imag**2
    k = torch.zeros((), dtype=d.dtype, device=d.device)
    for axis, (n, step, length) in enumerate(zip(size, spacing, d.shape[2:], strict=True)):
        fold = axis == len(size) - 1
        frequency = (torch.fft.rfftfreq if fold else torch.fft.fftfreq)(n, dtype=d.dtype, device=d.device)
        scaled = frequency / step if physical else frequency * length
        k = k + scaled.square().reshape([-1 if other == axis else 1 for other in range(len(size))])
    # of the last axis half of the frequencies are stored: the others are their mirror images
    twice = torch.full((square.shape[-1],), 2.0, dtype=d.dtype, device=d.device)
    twice[0] = 1
    if size[-1] % 2 == 0:
        twice[-1] = 1
    return (k.sqrt() * twice * square).flatten(2).sum(2)


@register(
    "elastic_interaction",
    aliases=("elastic",),
    tags=("contour", "fourier"),
    recommended=Recommended(batch=None),
)
class ElasticInteractionLoss(SegLoss):
    r"""Elastic energy between the boundaries of prediction and target: they attract over the whole image.

    Formula:
        \frac{1}{N} \sum_k |k|\, |\mathcal{F}(\alpha p - g)_k|^2

    When:
        Alongside Dice or cross-entropy, for long thin structures: a boundary far from the target is still drawn to it. A
        constant added to a probability costs nothing, so it does not train alone; opposite edges of an image interact
        unless periodic=False.

    F is the Fourier transform; one value per (sample, class). Without ``spacing`` |k| counts periods of the image along
    each axis, as published; with it periods per unit of the spacing, so that the size of the image has no influence. In
    float32 also for half precision.

    With ``alpha`` 1 the minimum is p = g. The authors' code adds where this subtracts, so that its minimum is the
    complement of g, which is right for the background channel only; and its gradient is not that of its value. Their
    ``alpha`` is 0.35; the minimum then lies beyond probability 1.

    Args:
        alpha: factor of the prediction.
        periodic: the image repeats beyond its edges, as published; False: the difference is 0 there.
        include_background: whether channel 0 is scored; None: where channels are independent.  With two classes and
            softmax it makes no difference, as long as ``alpha`` is 1.

    Example:
        >>> import torch
        >>> from monai_segloss import ElasticInteractionLoss
        >>> label = torch.tensor([[[0, 1, 0, 1]]])  # 2 periods of amplitude 1/2 at the highest frequency: 2 / 4
        >>> loss = ElasticInteractionLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), label).item(), 4)
        0.5

    Reference:
        Lan, Xiang & Zhang, An elastic interaction-based loss function for medical image segmentation, MICCAI 2020,
        arXiv:2007.02663.
    """

    formula_arguments = ("include_background",)

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        periodic: bool = True,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background = include_background
        (self.alpha,) = non_negative(alpha=alpha)
        self.periodic = bool(periodic)

    def loss(self, batch: SegBatch) -> Unreduced:
        p, g = scored_maps(batch, class_view(batch, self.background))
        physical = batch.spacing is not None
        energy = by_spacing(elastic_energy, batch, self.alpha * p - g, physical, self.periodic)
        return Unreduced.table(energy / batch.voxels.clamp_min(1), batch.voxels)
