"""Hausdorff loss by convolution with balls of several radii.  Karimi & Salcudean, IEEE TMI 2020."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from monai_segloss.core.arguments import EXPONENT, numbers, shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative, within
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Scores
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.neighborhood import Steps, by_spacing, mean_table, scored_maps, scored_view, valid

CHORDS = 2**18
"""Lines through a ball that are counted one by one."""


def ball_error(
    steps: Steps, p: Tensor, g: Tensor, counted: Tensor | None, radii: Sequence[float], alpha: float, tau: float
) -> Tensor:
    """sum_r r^alpha of the errors whose ball of radius r lies on one side, per voxel of (B, K, *S).

    A ball lies on one side of the target or of the prediction softly, from a share ``tau`` of it on.
    """
    outside, inside = torch.zeros_like(p), torch.zeros_like(p)
    maps = [g, p] if counted is None else [g, p, (~counted).to(p.dtype)]
    spectra: dict[tuple[int, ...], list[Tensor]] = {}
    for r in radii:
        balls = Balls(p, r, steps)
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
        of_target, of_prediction = _Sides.apply(in_g, tau), _Sides.apply(in_p, tau)
        outside = outside + r**alpha * (of_target[1] + of_prediction[0])
        inside = inside + r**alpha * (of_target[0] + of_prediction[1])
    error = (p - g) ** 2
    return error * (p * outside + g * inside)


class _Sides(torch.autograd.Function):
    """How far a share of a ball, and what is left to 1, lie above ``tau``: 0 up to there, then linear to 1.

    Keeps where they do, two bytes per voxel.
    """

    @staticmethod
    def forward(share: Tensor, tau: float) -> tuple[Tensor, ...]:
        rest = 1 - share
        above = share > tau, rest > tau
        return (share - tau).clamp_min_(0).div_(1 - tau), rest.sub_(tau).clamp_min_(0).div_(1 - tau), *above

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*output[2:])
        ctx.tau = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, of_rest: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        above, rest = ctx.saved_tensors
        return (grad * above - of_rest * rest) / (1 - ctx.tau), None


class Balls:
    """Sums over the ball around each voxel, by the Fourier transform; beyond the image there is nothing."""

    def __init__(self, like: Tensor, radius: float, steps: Steps) -> None:
        self.shape, self.steps, self.like = tuple(like.shape[2:]), steps, like
        self.radius, self.axes = radius, tuple(range(2, like.ndim))
        # offsets beyond the image connect no voxels of it
        self.reach = tuple(int(min(radius / s + 1e-6, n - 1)) for s, n in zip(steps, self.shape, strict=True))
        self.size = tuple(smooth_length(n + reach) for n, reach in zip(self.shape, self.reach, strict=True))

    def transform(self, x: Tensor) -> Tensor:
        """Spectrum of maps (B, K, *S)."""
        return torch.fft.rfftn(x, self.size, self.axes)

    def back(self, spectrum: Tensor) -> Tensor:
        """Maps of a spectrum."""
        x = torch.fft.irfftn(spectrum, self.size, self.axes)
        for axis, n in zip(self.axes, self.shape, strict=True):
            x = x.narrow(axis, 0, n)
        return x

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Spectrum of a ball, center included, which is real, and its number of voxels on an endless grid."""
        device = self.like.device
        offsets = [signed(n, reach, device) for n, reach in zip(self.size, self.reach, strict=True)]
        ball = squares(offsets, self.steps, device) <= self.radius**2 * (1 + 1e-6)
        return torch.fft.rfftn(ball.to(self.like)).real.contiguous(), self.voxels().to(self.like)

    def voxels(self) -> Tensor:
        """Number of voxels of a ball on an endless grid: the sum of its chords along the finest axis, or, with more than
        `CHORDS` of them, its volume, which is the same to 1e-4."""
        device, (step, *others) = self.like.device, sorted(self.steps)
        if math.prod([2 * self.radius / s + 1 for s in others]) > CHORDS:
            n = len(self.steps)
            unit = math.pi ** (n / 2) / math.gamma(n / 2 + 1)
            return torch.tensor(unit * self.radius**n / math.prod(self.steps), device=device)
        ends = [int(self.radius / s + 1e-6) for s in others]
        across = [torch.arange(-end, end + 1, device=device, dtype=torch.float32) for end in ends]
        rest = self.radius**2 * (1 + 1e-6) - squares(across, others, device)
        chords = 2 * (rest.clamp_min(0).sqrt() / step).floor() + 1
        return (chords * (rest >= 0)).sum()


def squares(offsets: Sequence[Tensor], steps: Sequence[float], device: torch.device) -> Tensor:
    """Squared lengths over the grid of these offsets in voxels."""
    total = torch.zeros((), device=device)
    for axis, (offset, step) in enumerate(zip(offsets, steps, strict=True)):
        shape = [-1 if i == axis else 1 for i in range(len(offsets))]
        total = total + (offset * step).square().reshape(shape)
    return total


def signed(n: int, reach: int, device: torch.device) -> Tensor:
    """Offsets of a periodic axis: 0 ... reach, then those out of reach as infinity, then -reach ... -1."""
    offset = torch.arange(n, dtype=torch.float32, device=device)
    offset = torch.where(offset >= max(n - reach, reach + 1), offset - n, offset)
    return torch.where(offset.abs() <= reach, offset, torch.inf)


def smooth_length(n: int) -> int:
    """The next length without prime factors above 5, for which a Fourier transform is fast."""
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


@register(
    "hausdorff_conv",
    family="boundary",
    summary="Hausdorff loss without distance maps: an error weighs r^alpha where a ball of radius r around it lies on one "
    "side.",
    when="Beside Dice or cross-entropy, where distance maps of the prediction are too slow. It costs two Fourier "
    "transforms per class and radius; no public code exists to compare with, so prefer hausdorff_dt for published settings.",
    formula=r"\frac{1}{N} \sum_r r^\alpha \sum_i (p - g)^2 \big[p\,(f(B_r * \bar g) + f(B_r * p)) + "
    r"g\,(f(B_r * g) + f(B_r * \bar p))\big],\quad f(x) = \frac{\max\{x - \tau, 0\}}{1 - \tau}",
    paper="Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional neural "
    "networks, IEEE TMI 39(2), 2020",
    doi="arXiv:1904.10030",
    tags=("hausdorff", "distance", "morphology"),
    recommended=Recommended(batch=None),
    exempt={"slice_equals_volume": "above and below a volume of one slice there is background, so no ball lies inside"},
)
class HausdorffConvLoss(SegLoss):
    """Hausdorff loss by circular kernels: errors weigh r^alpha where the ball of radius r lies on one side of a boundary.

    Per class, mean over voxels of (p - g)^2 sum_r r^alpha [p (f(B_r * (1 - g)) + f(B_r * p)) + g (f(B_r * g) +
    f(B_r * (1 - p)))], B_r * the mean over a ball and f a soft threshold.  A false positive counts by the largest ball
    around it without target, and by the largest full of prediction; a false negative likewise.  Beyond the image there is
    background; ignored voxels leave the mean.  The gradient also runs through f.

    Args:
        alpha: exponent of the radius.
        radii: radii of the balls, in the unit of the ``spacing`` of the call, in voxels without one.
        tau: share of a ball from which on it lies on one side softly; 1/2 in the paper.
        include_background: whether channel 0 is scored; None: where channels are independent.
        common: see `SegLoss`.

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
        D. Karimi, S. E. Salcudean, IEEE Transactions on Medical Imaging 39(2), 2020, arXiv:1904.10030, section II-C.  The
        formula was not verified against the paper: threshold, radii and padding are reconstructed.
    """

    scoring = ("include_background",)
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

    def loss(self, batch: SegBatch) -> Scores:
        p, g = scored_maps(batch, scored_view(batch, self.background))
        error = by_spacing(ball_error, batch, p, g, valid(batch), self.radii, self.alpha, self.tau)
        return mean_table(error, batch)
