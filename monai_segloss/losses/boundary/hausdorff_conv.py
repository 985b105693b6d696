"""Hausdorff loss by convolution with balls of several radii.  Karimi & Salcudean, IEEE TMI 2020."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from monai_segloss.core.arguments import EXPONENT, numbers, shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative, within
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.kernels.balls import Balls, Sides
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, class_view, mean_table, scored_maps, valid


def ball_error(
    spacing: Spacing, p: Tensor, g: Tensor, counted: Tensor | None, radii: Sequence[float], alpha: float, tau: float
) -> Tensor:
    """sum_r r^alpha of the errors whose ball of radius r lies on one side, per voxel of (B, K, *S).

    A ball lies on one side of the target or of the prediction softly, from a share ``tau`` of it on.
    """
    outside, inside = torch.zeros_like(p), torch.zeros_like(p)
    maps = [g, p] if counted is None else [g, p, (~counted).to(p.dtype)]
    spectra: dict[tuple[int, ...], list[Tensor]] = {}
    for r in radii:
        balls = Balls(p, r, spacing)
        if balls.size not in spectra:  # a small ball needs little room beyond the image
            spectra[balls.size] = [balls.transform(x) for x in maps]
        of_g, of_p, *holes = spectra[balls.size]
        kernel, voxels = balls.kernel()
        if holes:
            size = (voxels - balls.back(holes[0] * kernel)).clamp_min(1)
            in_g, in_p = balls.back(of_g * kernel) / size, balls.back(of_p * kernel) / size
        else:
            kernel = kernel / voxels
            in_g, in_p = balls.back(of_g * kernel), balls.back(of_p * kernel)
        of_target, of_prediction = Sides.apply(in_g, tau), Sides.apply(in_p, tau)
        outside = outside + r**alpha * (of_target[1] + of_prediction[0])
        inside = inside + r**alpha * (of_target[0] + of_prediction[1])
    error = (p - g) ** 2
    return error * (p * outside + g * inside)


@register(
    "hausdorff_conv",
    tags=("hausdorff", "distance", "morphology"),
    recommended=Recommended(batch=None),
    exempt={"slice_equals_volume": "above and below a volume of one slice there is background, so no ball lies inside"},
)
class HausdorffConvLoss(SegLoss):
    r"""Hausdorff loss without distance maps: an error weighs r^alpha where a ball of radius r around it lies on one side.

    Formula:
        \frac{1}{N} \sum_r r^\alpha \sum_i (p - g)^2 \big[p\,(f(B_r * \bar g) + f(B_r * p)) + g\,(f(B_r * g) + f(B_r *
        \bar p))\big],\quad f(x) = \frac{\max\{x - \tau, 0\}}{1 - \tau}

    When:
        Alongside Dice or cross-entropy, where distance maps of the prediction are too slow. It costs two Fourier
        transforms per class and radius; no public code exists to compare with, so prefer hausdorff_dt for published
        settings.

    One value per class. B_r * is the mean over a ball of radius r, f a soft threshold, and a bar the complement. A
    false positive counts by the largest ball around it without target, and by the largest full of prediction; a false
    negative likewise. Beyond the image there is background. Ignored voxels leave the mean. The gradient also runs
    through f.

    Args:
        alpha: exponent of the radius.
        radii: radii of the balls, in the unit of the ``spacing`` of the call, in voxels without one.
        tau: share of a ball from which on it lies on one side softly; 1/2 in the paper.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Raises:
        ValueError: ``radii`` empty or not above 0; ``tau`` outside of [0, 1).

    Example:
        >>> import torch
        >>> from monai_segloss import HausdorffConvLoss
        >>> logits = torch.full((1, 1, 1, 9), -50.0)
        >>> logits[..., 0] = 50  # one false positive, without target within 2 voxels, but with prediction in its center
        >>> loss = HausdorffConvLoss(sigmoid=True, radii=(2,))
        >>> round(loss(logits, torch.zeros(1, 1, 1, 9)).item(), 4)  # 2^2 / 9
        0.4444

    Reference:
        Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional neural
        networks, IEEE TMI 39(2), 2020, arXiv:1904.10030, section II-C.

        The formula was not verified against the paper: threshold, radii and padding are reconstructed.
    """

    formula_arguments = ("include_background",)
    bounds: ClassVar = {"alpha": EXPONENT}

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        radii: Sequence[float] = (3, 6, 9, 12, 15, 18),
        tau: float = 0.5,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background = include_background
        (self.alpha,) = non_negative(alpha=alpha)
        (self.tau,) = within(0, 1, tau=tau)
        if self.tau == 1:
            raise ValueError("tau must be below 1.")
        try:
            found = numbers("radii", radii, "numbers above 0, at least one", largest=1e4).tolist()
        except TypeError as error:
            raise ValueError(str(error)) from None
        self.radii = tuple(found) if isinstance(found, list) else ()
        if not self.radii or not all(self.radii):
            raise ValueError(f"radii must be numbers above 0, at least one, got {shown(radii)}.")

    def loss(self, batch: SegBatch) -> Unreduced:
        p, g = scored_maps(batch, class_view(batch, self.background))
        error = by_spacing(ball_error, batch, p, g, valid(batch), self.radii, self.alpha, self.tau)
        return mean_table(error, batch)
