"""Means over the ball around each voxel, by the Fourier transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

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
        ball = squares(offsets, self.spacing, device) <= self.radius**2 * (1 + 1e-6)
        return torch.fft.rfftn(ball.to(self.like)).real.contiguous(), self.voxels().to(self.like)

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


class Sides(torch.autograd.Function):
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
