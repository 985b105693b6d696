"""Soft skeletons: what openings take away from a soft mask after each of several erosions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.derivatives import pulled
from monai_segloss.kernels.dilation import (
    by_chunks,
    dilate_along,
    dilate_along_backward,
    dilated,
    gradient_by_chunks,
    shares,
    to_largest,
)

Axes = tuple[tuple[int, ...], ...]
"""The axes of each step, of tensors (B, K, *S)."""


def soft_skeleton(x: Tensor, axes: Axes, counted: Tensor | None = None) -> Tensor:
    """The soft skeleton (B, K, *S) of soft masks, values of 0 to 1.

    Step j adds what the opening over ``axes[j]`` takes away, and erodes: the smallest value of the cross of a voxel and
    its two neighbors along each of the axes; the opening dilates by their box.  Beyond the image there is nothing, and
    neither is there where a voxel does not count.  Nothing but ``x`` is kept for the gradient; equal values share it.

    Args:
        x: (B, K, *S).
        axes: of each step, at least one.
        counted: (B, 1, *S) bool, or None where all voxels count.
    """
    found: Tensor = _SoftSkeleton.apply(x, None if counted is None else counted.expand_as(x), axes)
    return found


class _SoftSkeleton(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, counted: Tensor | None, axes: Axes) -> Tensor:
        return by_chunks(_skeleton, axes, *_given(x, counted), reach=_reach(axes))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, Axes], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.axes = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x, counted), axes = ctx.saved_tensors, ctx.axes
        if torch.is_grad_enabled():  # for a second derivative
            return pulled(lambda z: _skeleton(axes, *_given(z, counted)), grad, x)[0], None, None
        return gradient_by_chunks(_backward, axes, grad, *_given(x, counted), reach=_reach(axes)), None, None


def _given(x: Tensor, counted: Tensor | None) -> tuple[Tensor, ...]:
    return (x,) if counted is None else (x, counted)


def _reach(axes: Axes) -> int:
    """How many rows away a skeleton looks: as far as its erosions, and its last opening."""
    return sum(2 in each for each in axes) + 1


def _skeleton(axes: Axes, x: Tensor, counted: Tensor | None = None) -> Tensor:
    """The definition, in operations that autograd knows."""
    skeleton = torch.zeros_like(x)
    for each in axes:
        lost, x = _step(each, x, counted)
        skeleton = skeleton + torch.relu(lost - skeleton * lost)
    return skeleton if counted is None else skeleton * counted


def _backward(axes: Axes, grad: Tensor, x: Tensor, counted: Tensor | None = None) -> Tensor:
    """The gradient in ``x``, from that of the skeleton, with the states between the steps found once more."""
    states, rest, skeleton = [], x, torch.zeros_like(x)
    for each in axes:
        states.append((rest, skeleton))
        lost, rest = _step(each, rest, counted)
        skeleton = skeleton + torch.relu(lost - skeleton * lost)
    del skeleton, lost
    grad = grad if counted is None else grad * counted
    of_rest = torch.zeros_like(grad)
    for each in reversed(axes):
        x, skeleton = states.pop()
        opened = dilate_along(each, _filled(rest, counted, 0))
        lost, inside = torch.relu(x - opened), x > opened
        del opened
        adds = grad * (lost - skeleton * lost > 0)
        grad = grad - adds * lost
        of_lost = adds.mul_(1 - skeleton).mul_(inside)
        del lost, inside, adds, skeleton
        of_opened = dilate_along_backward(each, -of_lost, _filled(rest, counted, 0))
        of_rest = of_rest + (of_opened if counted is None else of_opened * counted)
        of_x = _eroded_backward(of_rest, _filled(x, counted, 1), each)
        of_rest = of_lost.add_(of_x if counted is None else of_x * counted)
        rest = x
    return of_rest


def _step(axes: tuple[int, ...], x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the opening takes away, and the erosion."""
    rest = _eroded(_filled(x, counted, 1), axes)
    return torch.relu(x - dilate_along(axes, _filled(rest, counted, 0))), rest


def _filled(x: Tensor, counted: Tensor | None, value: float) -> Tensor:
    """``value`` where a voxel does not count, which then is neither the smallest nor the largest."""
    return x if counted is None else x.masked_fill(~counted, value)


def _eroded(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The smallest value of the cross."""
    smallest = -dilated(-x, axes[0])
    for axis in axes[1:]:
        smallest = torch.minimum(smallest, -dilated(-x, axis))
    return smallest


def _eroded_backward(grad: Tensor, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    along = [dilated(-x, axis) for axis in axes]
    largest = [along[0]]
    for each in along[1:]:
        largest.append(torch.maximum(largest[-1], each))
    total = torch.zeros_like(grad)
    for i in reversed(range(len(axes))):
        largest.pop()
        grad, part = shares(grad, largest[-1], along.pop()) if i else (grad, grad)
        total += to_largest(part, -x, axes[i])
    return total
