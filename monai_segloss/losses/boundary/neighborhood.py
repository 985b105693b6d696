"""Neighborhoods of voxels, which losses of contours share.

An ignored voxel is in no neighborhood, and neither is what lies beyond the image unless a function says otherwise: what
is cut off there is no contour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.batch import Scored, SegBatch
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.module import ReadingArgs
from monai_segloss.core.reduce import Scores

Steps = tuple[float, ...]
"""Voxel spacing of one sample, in array axis order."""
FARTHEST = 2**31
"""Voxels that no axis has."""
CHUNK = 2**17
"""Most voxels that a dilation on the CPU handles at once."""


class RatioArgs(ReadingArgs, total=False):
    """Shared arguments of the ratios of sums."""

    smooth_nr: float
    smooth_dr: float


def scored_view(batch: SegBatch, include_background: bool | None, over_batch: bool = False) -> Scored:
    """The view of the scored classes; None leaves channel 0 out where there is one class per voxel."""
    return batch.scored(batch.multilabel if include_background is None else include_background, over_batch)


def scored_maps(batch: SegBatch, view: Scored) -> tuple[Tensor, Tensor]:
    """Probabilities and target of the scored classes, (B, K, *S), both 0 where ignored."""
    p, g = view.prob, batch.one_hot[:, view.first :]
    if batch.mask is not None:
        p = p.masked_fill(~batch.mask[:, None], 0)
    return p, g.to(p.dtype)


def valid(batch: SegBatch) -> Tensor | None:
    """The voxels that count, (B, 1, *S), or None."""
    refuse_points(batch)
    return None if batch.mask is None else batch.mask[:, None]


def mean_table(x: Tensor, batch: SegBatch) -> Scores:
    """The mean over the voxels that count of a map (B, K, *S) that is 0 elsewhere, per (sample, class)."""
    return Scores.table(x.flatten(2).sum(2) / batch.voxels.clamp_min(1), batch.voxels)


def by_spacing(f: Callable[..., Tensor], batch: SegBatch, *maps: Any) -> Tensor:
    """``f(steps, *maps)`` of the batch, or of sample after sample where their spacing differs; what is no map stays."""
    refuse_points(batch)
    rows = spacing_rows(batch)
    if len(set(rows)) == 1:
        return f(rows[0], *maps)
    one = [f(row, *(x[b : b + 1] if isinstance(x, Tensor) else x for x in maps)) for b, row in enumerate(rows)]
    return torch.cat(one)


def spacing_rows(batch: SegBatch) -> tuple[Steps, ...]:
    """The spacing in numbers: one row for all samples, or one per sample; 1 where none was given."""
    if batch.spacing is None:
        return ((1.0,) * (batch.ndim - 2),)
    if batch.steps is not None:
        return batch.steps
    return tuple(tuple(row) for row in batch.spacing.reshape(-1, batch.ndim - 2).tolist())


def refuse_points(batch: SegBatch) -> None:
    """Voxels without a place, (B, C), have no neighbors."""
    if batch.ndim < 3:
        raise LossShapeError(
            f"input has shape {tuple(batch.logits.shape)}; a loss of neighborhoods needs spatial axes."
        )


def radii(length: float, steps: Steps) -> tuple[int, ...]:
    """Voxels along each axis that cover a length in the unit of the spacing, at least one."""
    return tuple(max(1, math.ceil(min(length / step, FARTHEST) - 1e-6)) for step in steps)


def spanned(steps: Steps, x: Tensor) -> Steps:
    """The spacing of the axes of (B, K, *S) that have several voxels: a slice is its volume, however thick."""
    return tuple(step for step, n in zip(steps, x.shape[2:], strict=True) if n > 1) or steps


def scaled_radii(radius: int, steps: Steps, x: Tensor) -> tuple[int, ...]:
    """A radius in voxels of the finest axis of (B, K, *S), as voxels of each axis."""
    return radii(radius * min(spanned(steps, x)), steps) if radius else (0,) * len(steps)


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


class _Dilation(torch.autograd.Function):
    """Dilation by one voxel to both sides along one axis after the other, as ``steps`` names them."""

    @staticmethod
    def forward(x: Tensor, steps: tuple[int, ...]) -> Tensor:
        return _by_chunks(_dilate, steps, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, tuple[int, ...]], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.steps = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _by_chunks(_dilate_backward, ctx.steps, grad, ctx.saved_tensors[0].detach()), None


def _by_chunks(f: Callable[..., Tensor], steps: tuple[int, ...], *maps: Tensor) -> Tensor:
    """``f(steps, *maps)`` of maps (B, K, *S); on the CPU of so many (sample, class) at once that they stay in cache."""
    shape, space = maps[0].shape, maps[0].shape[2:]
    each = max(1, CHUNK // space.numel())
    if maps[0].device.type != "cpu" or torch.compiler.is_compiling() or each >= shape[:2].numel():
        return f(steps, *maps)
    parts = zip(*(torch.split(x.reshape(-1, 1, *space), each) for x in maps), strict=True)
    return torch.cat([f(steps, *part) for part in parts]).view(shape)


def _dilate(steps: tuple[int, ...], x: Tensor) -> Tensor:
    for axis in steps:
        x = _dilated(x, axis)
    return x


def _dilate_backward(steps: tuple[int, ...], grad: Tensor, x: Tensor) -> Tensor:
    before = [x]  # each step, once more
    for axis in steps[:-1]:
        before.append(_dilated(before[-1], axis))
    for axis in reversed(steps):
        grad = _to_largest(grad, before.pop(), axis)
    return grad


def _dilated(x: Tensor, axis: int) -> Tensor:
    """One step: the largest of each pair, then of each pair of pairs."""
    pairs = torch.maximum(*_shifted(x, axis))
    ends = pairs.narrow(axis, 0, 1), pairs.narrow(axis, pairs.shape[axis] - 1, 1)
    return torch.cat((ends[0], torch.maximum(*_shifted(pairs, axis)), ends[1]), axis)


def _to_largest(grad: Tensor, x: Tensor, axis: int) -> Tensor:
    """The gradient of one step, from that of its result."""
    before, after = _shifted(x, axis)
    n = before.shape[axis]
    left, right = _shares(grad.narrow(axis, 1, n - 1), *_shifted(torch.maximum(before, after), axis))
    ends = grad.narrow(axis, 0, 1), grad.narrow(axis, n, 1)
    pairs = torch.cat((ends[0], right), axis) + torch.cat((left, ends[1]), axis)
    left, right = _shares(pairs, before, after)
    nothing = torch.zeros_like(ends[0])
    return torch.cat((left, nothing), axis) + torch.cat((nothing, right), axis)


def _shifted(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """All but the last, and all but the first, along an axis."""
    n = x.shape[axis] - 1
    return x.narrow(axis, 0, n), x.narrow(axis, 1, n)


def _shares(grad: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """What the larger of two gets of the gradient of their maximum; half each where they are equal."""
    first = torch.where(a > b, grad, 0.5 * grad * (a == b))
    return first, grad - first


def erosion(x: Tensor, radius: tuple[int, ...], counted: Tensor | None = None) -> Tensor:
    """Smallest value in the box of so many voxels to each side; values are at most 1."""
    return 1 - dilation(1 - x, radius, counted)


def inner_band(x: Tensor, radius: tuple[int, ...], counted: Tensor | None = None) -> Tensor:
    """What erosion takes away: the voxels of a mask that are near another side, 0 where ignored."""
    rest = 1 - x
    band = dilation(rest, radius, counted) - rest  # exactly 0 where the mask is flat
    return band if counted is None else band * counted
