"""Means over the ball around each voxel, by the Fourier transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import learned
from monai_segloss.core.derivatives import pulled
from monai_segloss.core.exact import widest_dtype

CHORDS = 2**18
"""Lines through a ball that are counted one by one."""


class Balls:
    """Sums over the ball around each voxel, by the Fourier transform; beyond the image there is nothing."""

    def __init__(self, like: Tensor, radius: float, spacing: tuple[float, ...]) -> None:
        self.shape, self.spacing, self.like = tuple(like.shape[2:]), spacing, like
        self.radius, self.axes = radius, tuple(range(2, like.ndim))
        # offsets beyond the image connect no voxels of it
        self.reach = tuple(int(min(radius / s + 1e-6, n - 1)) for s, n in zip(spacing, self.shape, strict=True))
        self.size = tuple(smooth_length(n + reach) for n, reach in zip(self.shape, self.reach, strict=True))

    def transform(self, x: Tensor) -> Tensor:
        """Spectrum of maps (B, K, *S)."""
        x = torch.fft.rfft(x, self.size[-1])
        for axis, n in zip(reversed(self.axes[:-1]), reversed(self.size[:-1]), strict=True):
            x = torch.fft.fft(x, n, axis)  # one axis after the other: there is no room around the image yet
        return x

    def back(self, spectrum: Tensor) -> Tensor:
        """Maps of a spectrum."""
        for axis, n, kept in zip(self.axes[:-1], self.size[:-1], self.shape[:-1], strict=True):
            spectrum = torch.fft.ifft(spectrum, n, axis).narrow(axis, 0, kept)
        return torch.fft.irfft(spectrum, self.size[-1]).narrow(-1, 0, self.shape[-1])

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Spectrum of a ball, center included, which is real, and its number of voxels on an endless grid."""
        device = self.like.device
        offsets = [signed(n, reach, device) for n, reach in zip(self.size, self.reach, strict=True)]
        ball = squares(offsets, self.spacing, device) <= self.radius**2 * (1 + 1e-6)
        return torch.fft.rfftn(ball.to(self.like)).real.contiguous(), self.voxels().to(self.like)

    def sizes(self, kernel: Tensor, voxels: Tensor, counted: Tensor | None) -> Tensor:
        """Number of voxels of the ball around each voxel, without those of the image that are not ``counted``."""
        if counted is None:
            return voxels
        holes = self.back(self.transform((~counted).to(voxels.dtype)) * kernel)
        return (voxels - holes).clamp_min(1)

    def voxels(self) -> Tensor:
        """Number of voxels of a ball on an endless grid: the sum of its chords along the finest axis, or, with more than
        `CHORDS` of them, its volume, which is the same to 1e-4."""
        device, (step, *others) = self.like.device, sorted(self.spacing)
        if math.prod([2 * self.radius / s + 1 for s in others]) > CHORDS:
            n = len(self.spacing)
            unit = math.pi ** (n / 2) / math.gamma(n / 2 + 1)
            return torch.tensor(unit * self.radius**n / math.prod(self.spacing), device=device)
        ends = [int(self.radius / s + 1e-6) for s in others]
        across = [torch.arange(-end, end + 1, device=device, dtype=torch.float32) for end in ends]
        rest = self.radius**2 * (1 + 1e-6) - squares(across, others, device)
        chords = 2 * (rest.clamp_min(0).sqrt() / step).floor() + 1
        return (chords * (rest >= 0)).sum()


def squares(offsets: Sequence[Tensor], spacing: Sequence[float], device: torch.device) -> Tensor:
    """Squared lengths over the grid of these offsets in voxels."""
    total = torch.zeros((), device=device)
    for axis, (offset, step) in enumerate(zip(offsets, spacing, strict=True)):
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


def ball_sums(
    spacing: tuple[float, ...],
    p: Tensor,
    g: Tensor,
    counted: Tensor | None,
    radii: Sequence[float],
    alpha: float,
    tau: float,
) -> Tensor:
    """Sum over voxels and radii r of r^alpha (p - g)^2 where the ball of radius r lies on one side, (B, K).

    A ball lies on one side of the target or of the prediction softly, from a share ``tau`` of it on: f(share) is 0 up to
    there, then linear to 1.  The errors weigh p (f(1 - s_g) + f(s_p)) + g (f(s_g) + f(1 - s_p)), s the shares of the ball.

    Args:
        spacing: spacing.
        p, g: probabilities and target (B, K, *S), both 0 where not ``counted`` (B, 1, *S) or None.
    """
    settings = (spacing, tuple(radii), alpha, tau)
    if torch.compiler.is_compiling() or learned(g):
        return _definition(p, g, counted, *settings)
    found: Tensor = _BallSums.apply(p, g, counted, learned(p), *settings)[0]
    return found


def _definition(
    p: Tensor,
    g: Tensor,
    counted: Tensor | None,
    spacing: tuple[float, ...],
    radii: tuple[float, ...],
    alpha: float,
    tau: float,
) -> Tensor:
    g = g.to(p.dtype)
    outside, inside = torch.zeros_like(p), torch.zeros_like(p)
    for r in radii:
        balls = Balls(p, r, spacing)
        kernel, voxels = balls.kernel()
        size = balls.sizes(kernel, voxels, counted)
        of_g, of_p = (balls.back(balls.transform(x) * kernel) / size for x in (g, p))
        (g_in, g_out), (p_in, p_out) = sides(of_g, tau), sides(of_p, tau)
        outside = outside + r**alpha * (g_out + p_in)
        inside = inside + r**alpha * (g_in + p_out)
    return ((p - g) ** 2 * (p * outside + g * inside)).flatten(2).sum(2)


def sides(share: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """How far a share of a ball, and what is left to 1, lie above ``tau``: 0 up to there, then linear to 1."""
    return (share - tau).clamp_min(0) / (1 - tau), (1 - share - tau).clamp_min(0) / (1 - tau)


class _BallSums(torch.autograd.Function):
    """The sums, and with them their slope in p: the weights of all radii are in memory for one class at a time."""

    @staticmethod
    def forward(
        p: Tensor,
        g: Tensor,
        counted: Tensor | None,
        wanted: bool,
        spacing: tuple[float, ...],
        radii: tuple[float, ...],
        alpha: float,
        tau: float,
    ) -> tuple[Tensor, Tensor]:
        value = p.new_zeros(p.shape[:2], dtype=widest_dtype(p.device))
        slope = torch.zeros_like(p) if wanted else p.new_empty(0)
        every = [Balls(p, r, spacing) for r in radii]
        for size in dict.fromkeys(balls.size for balls in every):  # a small ball needs little room beyond the image
            some = [(balls, *balls.kernel()) for balls in every if balls.size == size]
            for b, c in product(range(p.shape[0]), range(p.shape[1])):
                u, v = p[b : b + 1, c : c + 1], g[b : b + 1, c : c + 1]
                sizes = [
                    ball.sizes(kernel, n, None if counted is None else counted[b : b + 1]) for ball, kernel, n in some
                ]
                found = slope[b : b + 1, c : c + 1] if wanted else None
                value[b, c] += _of_class(u, v, some, sizes, alpha, tau, found)
        return value.to(p.dtype), slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        p, g, counted, _, *ctx.settings = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(p, g, counted, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        p, g, counted, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph is wanted: differentiate the definition
            (found,) = pulled(lambda x: _definition(x, g, counted, *ctx.settings), grad, p)
        else:
            found = slope * grad.reshape(*grad.shape, *(1,) * (p.ndim - 2))
        return found, *(None,) * 7


def _of_class(
    p: Tensor,
    g: Tensor,
    some: Sequence[tuple[Balls, Tensor, Tensor]],
    sizes: Sequence[Tensor],
    alpha: float,
    tau: float,
    slope: Tensor | None,
) -> Tensor:
    """The sum over balls of one size of image, of one class (1, 1, *S); its slope in p is added to ``slope``."""
    outside, inside = torch.zeros_like(p), torch.zeros_like(p)
    spectrum = some[0][0].transform(g.to(p.dtype))
    for (balls, kernel, _), size in zip(some, sizes, strict=True):
        full, rest = sides(balls.back(spectrum * kernel).div_(size), tau)
        outside.add_(rest, alpha=balls.radius**alpha)
        inside.add_(full, alpha=balls.radius**alpha)
    del full, rest
    spectrum = some[0][0].transform(p)
    pull = None
    for (balls, kernel, _), size in zip(some, sizes, strict=True):
        share, weight = balls.back(spectrum * kernel).div_(size), balls.radius**alpha
        full, rest = sides(share, tau)
        outside.add_(full, alpha=weight)
        inside.add_(rest, alpha=weight)
        if slope is None:
            continue
        push = torch.where(full > 0, p, 0).sub_(g.to(p.dtype).masked_fill(rest <= 0, 0))
        del full, rest, share
        push = push.mul_((p - g.to(p.dtype)).square_()).mul_(weight / (1 - tau)).div_(size)
        push = balls.transform(push).mul_(kernel)
        pull = push if pull is None else pull.add_(push)
        del push
    del spectrum
    if slope is not None and pull is not None:
        slope += some[0][0].back(pull)
        del pull
    difference = p - g.to(p.dtype)
    if slope is not None:
        slope.addcmul_(difference.square(), outside)
    mixed = outside.mul_(p).add_(inside.mul_(g))
    if slope is not None:
        slope.addcmul_(difference, mixed, value=2)
    return difference.square_().mul_(mixed).sum(dtype=widest_dtype(p.device))
