"""Points of a target, and how near a prediction comes to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.derivatives import no_second_derivative
from monai_segloss.kernels.components import Segments, connected_components

EPS = 1e-6
"""Keeps ratios and powers finite; of distances in units of the largest one."""
CHUNK = {"cpu": 2**18}
"""Most elements of a table of distances, points times voxels, by device; on the CPU it stays in cache."""


def centers(mask: Tensor) -> Tensor:
    """The voxel at the center of mass of each connected component of masks (B, C, *S), bool; halves round up."""
    segments = Segments.of(connected_components(mask))
    shape, out = mask.shape[2:], torch.zeros(mask.shape, dtype=torch.bool, device=mask.device)
    grids = [torch.arange(n, device=mask.device).view(-1, *(1,) * (len(shape) - 1 - a)) for a, n in enumerate(shape)]
    count, *sums = segments.sums(torch.ones((), device=mask.device), *grids)
    place = segments.owner
    for total, n in zip(sums, shape, strict=True):
        place = place * n + (total / count + 0.5).floor().long()
    out.view(-1)[place] = True
    return out


def subsample(points: Tensor, most: int) -> Tensor:
    """Indices (K, ndim) of the points of one map (*S); of more than ``most`` every n-th one."""
    index = points.nonzero()
    if len(index) <= most:
        return index
    return index[torch.arange(most, device=index.device) * len(index) // most]


def generalized_mean_distance(p: Tensor, index: Tensor, spacing: Tensor, counted: Tensor, exponent: float) -> Tensor:
    """Mean over points of M_a[p d + (1 - p) d_max], M_a the generalized mean over the voxels that count, in mm.

    Value and gradient come from one pass over the table of distances, in chunks of which nothing is kept; a second
    derivative is refused.  Powers are taken of ratios to the least value, since numbers near 0 to the power of -9 are out of
    range; `EPS` is added in units of d_max.

    Args:
        p, counted: probabilities, 0 where they do not count, and which voxels count, (*S).
        index: of the points, (K, ndim).
        spacing: spacing, (ndim,).
        exponent: a, below 0.
    """
    wanted = p.requires_grad and torch.is_grad_enabled()
    p = no_second_derivative(p, "WeightedHausdorffLoss")
    value: Tensor = _GeneralizedMeanDistance.apply(p, index, spacing, counted, exponent, wanted)[0]
    return value


class _GeneralizedMeanDistance(torch.autograd.Function):
    """The value, and with it the gradient."""

    @staticmethod
    def forward(
        p: Tensor, index: Tensor, spacing: Tensor, counted: Tensor, exponent: float, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        axes = [torch.arange(n, device=p.device) * step for n, step in zip(p.shape, spacing, strict=True)]
        longest = torch.stack([place[-1] ** 2 for place in axes]).sum().sqrt().clamp_min(EPS)
        flat, voxels = p.flatten(), counted.sum().to(p.dtype)
        rest = (1 - flat + EPS).masked_fill(~counted.flatten(), torch.inf)
        total, slope = p.new_zeros(()), torch.zeros_like(flat)
        for part in torch.split(index, max(1, CHUNK.get(p.device.type, 2**24) // p.numel())):
            d = _table(part, axes).div_(longest)
            cost = torch.addcmul(rest, flat, d)
            least = cost.amin(1, keepdim=True)
            powers = _raised(least / cost, -exponent)
            mass = powers.sum(1)
            mean = least[:, 0] * (mass / voxels) ** (1 / exponent)
            total += mean.sum()
            if wanted:
                slope += (mean / mass) @ powers.div_(cost).mul_(d.sub_(1))
        scale = longest / len(index)
        return scale * total, (scale * slope).view_as(p)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None, None, None, None


def _table(index: Tensor, axes: list[Tensor]) -> Tensor:
    """Distance of each point to each voxel, (K, N)."""
    square = torch.zeros((), dtype=axes[0].dtype, device=index.device)
    for axis, place in enumerate(axes):
        gap = (place - place[index[:, axis], None]) ** 2
        square = square + gap.reshape(len(index), *(-1 if a == axis else 1 for a in range(len(axes))))
    return square.sqrt().flatten(1)


def _raised(x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent`` for x >= 0, a new tensor; by squares or base 2, which take a third of the time of `pow`."""
    if not 1 <= exponent <= 32 or exponent != int(exponent):
        return x.log2().mul_(exponent).exp2_()
    found, times = None, int(exponent)
    while times:
        if times & 1:
            found = x.clone() if found is None else found.mul_(x)
        x, times = x * x, times >> 1
    assert found is not None
    return found
