"""Linear filters of the spatial axes: a Gaussian window, and the sum over a voxel and its face neighbors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def smooth(x: Tensor, kernel: tuple[float, ...], repeat: bool = True) -> Tensor:
    """Separable convolution of the spatial axes; beyond the edge the edge repeats, or is 0."""
    for axis in range(2, x.ndim):
        x = smooth_axis(x, axis, kernel, repeat)
    return x


def smooth_axis(x: Tensor, axis: int, kernel: tuple[float, ...], repeat: bool = True) -> Tensor:
    """Convolution along one axis."""
    half, length = len(kernel) // 2, x.shape[axis]
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, length - 1, 1)
    if not repeat:
        first = last = torch.zeros_like(first)
    padded = torch.cat([first] * half + [x] + [last] * half, axis)
    x = kernel[0] * padded.narrow(axis, 0, length)
    for k, w in enumerate(kernel[1:], start=1):
        x = x.add_(padded.narrow(axis, k, length), alpha=w)
    return x


def gaussian(window: int, sigma: float) -> tuple[float, ...]:
    """Weights of a Gaussian window, which sum to 1."""
    weights = [math.exp(-((k - window // 2) ** 2) / (2 * sigma**2)) for k in range(window)]
    return tuple(w / sum(weights) for w in weights)


class CrossSum(torch.autograd.Function):
    """Sum of a voxel and its face neighbors, 0 beyond the image; its own transpose."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return cross_sum(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = CrossSum.apply(grad)
        return found


def cross_sum(x: Tensor) -> Tensor:
    """The sum without a gradient."""
    total = x.clone()
    for axis in range(2, x.ndim):
        n = x.shape[axis] - 1
        total.narrow(axis, 0, n).add_(x.narrow(axis, 1, n))
        total.narrow(axis, 1, n).add_(x.narrow(axis, 0, n))
    return total


class Erosions(torch.autograd.Function):
    """sum_k weight_k e_k with e_k = max(factor * cross sum of e_(k-1) - threshold, 0).

    Of each erosion only where something is left is kept, one byte per voxel; on the CPU it ends where nothing is.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(e: Tensor, factor: float | Tensor, threshold: float, weights: list[float]) -> tuple[Tensor, ...]:
        stops = e.device.type == "cpu" and not torch.compiler.is_compiling()
        total, left = torch.zeros_like(e), []
        for weight in weights:
            e = cross_sum(e).mul_(factor).sub_(threshold).clamp_min_(0)
            if stops and not e.any():
                break
            left.append(e > 0)
            total.add_(e, alpha=weight)
        return total, *left

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, ctx.factor, _, ctx.weights = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        left = ctx.saved_tensors
        found = torch.zeros_like(grad)
        for weight, there in zip(reversed(ctx.weights[: len(left)]), reversed(left), strict=True):
            found = CrossSum.apply((found + weight * grad) * there * ctx.factor)
        return found, None, None, None
