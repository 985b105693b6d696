"""Dilation and erosion by boxes, with the gradient of the largest value, and the values of neighbors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from monai_segloss.kernels.slabs import in_slabs, slabs

CHUNK = 2**17
"""Voxels that a dilation on the CPU handles at once, where its reach allows it."""
LEAST_ROWS = 6
"""Least rows of a part for each row of its reach, of which twice as many are computed once more."""


def neighbor(x: Tensor, axis: int, step: int, fill: Any = None) -> Tensor:
    """The value one voxel further (``step`` 1) or before (-1); beyond the image ``fill``, or the last value again."""
    n = x.shape[axis]
    edge = x.narrow(axis, n - 1 if step > 0 else 0, 1)
    edge = edge if fill is None else torch.full_like(edge, fill)
    inner = x.narrow(axis, 1 if step > 0 else 0, n - 1)
    return torch.cat((inner, edge) if step > 0 else (edge, inner), axis)


def dilation(x: Tensor, radius: tuple[int, ...], counted: Tensor | None = None) -> Tensor:
    """Largest value in the box of so many voxels to each side; values are at least 0.

    The gradient goes to the largest value of each box; equal ones share it.  Nothing but ``x`` is kept for it.
    """
    x = x if counted is None else x * counted
    steps = tuple(axis for axis, r in enumerate(radius, start=2) for _ in range(min(r, x.shape[axis] - 1)))
    if not steps:
        return x
    dilated: Tensor = _Dilation.apply(x, steps)
    return dilated


def erosion(x: Tensor, radius: tuple[int, ...], counted: Tensor | None = None) -> Tensor:
    """Smallest value in the box of so many voxels to each side; values are at most 1."""
    return 1 - dilation(1 - x, radius, counted)


class _Dilation(torch.autograd.Function):
    """Dilation by one voxel to both sides along one axis after the other, as ``steps`` names them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, steps: tuple[int, ...]) -> Tensor:
        return by_chunks(dilate_along, steps, x, reach=reach_of(steps))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, tuple[int, ...]], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.steps = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        maps = grad, ctx.saved_tensors[0].detach()
        return gradient_by_chunks(dilate_along_backward, ctx.steps, *maps, reach=reach_of(ctx.steps)), None


def reach_of(steps: tuple[int, ...]) -> int:
    """How many rows away a dilation looks."""
    return steps.count(2)


def by_chunks(f: Callable[..., Tensor], steps: tuple[Any, ...], *maps: Tensor, reach: int) -> Tensor:
    """``f(steps, *maps)`` of maps (B, K, *S), each voxel of which depends on those at most ``reach`` rows away.

    On the CPU of so many (sample, class) at once that they stay in cache, or of some rows of a large one.
    """
    found = _by_classes(f, steps, maps)
    return in_slabs(partial(f, steps), reach, _most(reach, maps[0]), *maps) if found is None else found


def gradient_by_chunks(
    f: Callable[..., Tensor], steps: tuple[Any, ...], grad: Tensor, *maps: Tensor, reach: int
) -> Tensor:
    """``f(steps, grad, *maps)``, the gradient of what `by_chunks` computes, linear in that of its result."""
    found = _by_classes(f, steps, (grad, *maps))
    if found is not None:
        return found
    out = torch.zeros_like(grad)
    for part, around, start in slabs(grad.shape, reach, _most(reach, grad)):
        own = torch.zeros_like(grad[around])
        own.narrow(2, start, grad[part].shape[2]).copy_(grad[part])
        out[around] += f(steps, own, *(each[around] for each in maps))
    return out


def _by_classes(f: Callable[..., Tensor], steps: tuple[Any, ...], maps: tuple[Tensor, ...]) -> Tensor | None:
    """All at once, or so many (sample, class) at a time; None on the CPU where one of these is too large."""
    x = maps[0]
    if x.device.type != "cpu" or torch.compiler.is_compiling() or x.numel() <= CHUNK:
        return f(steps, *maps)
    each = CHUNK // x.shape[2:].numel()
    if not each:
        return None
    parts = zip(*(torch.split(x.reshape(-1, 1, *x.shape[2:]), each) for x in maps), strict=True)
    return torch.cat([f(steps, *part) for part in parts]).view(x.shape)


def _most(reach: int, x: Tensor) -> int:
    """Voxels of some rows, without those that only their neighbors see."""
    return max(CHUNK, LEAST_ROWS * reach * x.shape[3:].numel())


def dilate_along(steps: tuple[int, ...], x: Tensor) -> Tensor:
    for axis in steps:
        x = dilated(x, axis)
    return x


def dilate_along_backward(steps: tuple[int, ...], grad: Tensor, x: Tensor) -> Tensor:
    before = [x]  # each step, once more
    for axis in steps[:-1]:
        before.append(dilated(before[-1], axis))
    for axis in reversed(steps):
        grad = to_largest(grad, before.pop(), axis)
    return grad


def dilated(x: Tensor, axis: int) -> Tensor:
    """One step: the largest of each pair, then of each pair of pairs."""
    pairs = torch.maximum(*_shifted(x, axis))
    ends = pairs.narrow(axis, 0, 1), pairs.narrow(axis, pairs.shape[axis] - 1, 1)
    return torch.cat((ends[0], torch.maximum(*_shifted(pairs, axis)), ends[1]), axis)


def to_largest(grad: Tensor, x: Tensor, axis: int) -> Tensor:
    """The gradient of one step, from that of its result."""
    before, after = _shifted(x, axis)
    n = before.shape[axis]
    left, right = shares(grad.narrow(axis, 1, n - 1), *_shifted(torch.maximum(before, after), axis))
    ends = grad.narrow(axis, 0, 1), grad.narrow(axis, n, 1)
    pairs = torch.cat((ends[0], right), axis) + torch.cat((left, ends[1]), axis)
    left, right = shares(pairs, before, after)
    nothing = torch.zeros_like(ends[0])
    return torch.cat((left, nothing), axis) + torch.cat((nothing, right), axis)


def _shifted(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """All but the last, and all but the first, along an axis."""
    n = x.shape[axis] - 1
    return x.narrow(axis, 0, n), x.narrow(axis, 1, n)


def shares(grad: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """What the larger of two gets of the gradient of their maximum; half each where they are equal."""
    first = torch.where(a > b, grad, 0.5 * grad * (a == b))
    return first, grad - first
