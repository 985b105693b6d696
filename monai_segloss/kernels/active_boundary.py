"""Where a predicted boundary is, and its cross-entropy over the directions to the boundary of the target."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from monai_segloss.core.exact import sum_by
from monai_segloss.kernels.dilation import dilation, neighbor

Offset = tuple[int, ...]
CHUNK = {"cpu": 2**19}
"""Most numbers that are measured at once, by device."""
FLAT = 1e-5
"""A divergence between neighbors of at most this is no boundary."""


def directions(shape: tuple[int, ...]) -> list[Offset]:
    """Offsets to all neighbors, diagonal ones included, along the axes that have several voxels."""
    steps = [(-1, 0, 1) if n > 1 else (0,) for n in shape]
    return [offset for offset in product(*steps) if any(offset)]


def at(x: Tensor, offset: Offset, fill: float | None = None) -> Tensor:
    """Value at an offset from each voxel; beyond the image ``fill``, or the last value again."""
    for axis, step in enumerate(offset, start=2):
        if step:
            x = neighbor(x, axis, step, fill)
    return x


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over the classes, (B, 1, *S)."""
    return (log_p.exp() * (log_p - log_q)).sum(1, keepdim=True)


def ahead(x: Tensor) -> list[Offset]:
    """One voxel ahead along each axis."""
    n = x.ndim - 2
    return [tuple(int(axis == other) for other in range(n)) for axis in range(n)]


def _to_the_next(log_p: Tensor, counted: Tensor) -> Tensor:
    """Sum over axes of the divergences between each voxel and the next one, (B, 1, *S)."""
    difference = torch.zeros_like(log_p[:, :1])
    for offset in ahead(log_p):
        difference = difference + divergence(log_p, at(log_p, offset)) * (counted & at(counted, offset, False))
    return difference


def predicted_boundary(log_p: Tensor, counted: Tensor, max_ratio: float) -> Tensor:
    """The share of voxels that differ most from the next ones, and their neighbors, (B, 1, *S) bool."""
    n, each = log_p.shape[2], max(1, CHUNK.get(log_p.device.type, 2**26) // log_p[:, :, 0].numel())
    parts = []
    for start in range(0, n, each):
        rows = slice(start, start + each + 1)  # and the next one
        parts.append(_to_the_next(log_p[:, :, rows], counted[:, :, rows])[:, :, :each])
    difference = torch.cat(parts, 2)
    flat = difference.flatten(1)
    most = math.ceil(max_ratio * flat.shape[1])
    each = CHUNK.get(log_p.device.type, 2**26)  # the largest of all are among the largest of each part
    largest = [part.topk(min(most + 1, part.shape[1])).values for part in torch.split(flat, each, 1)]
    ranked = torch.cat(largest, 1).topk(min(most + 1, flat.shape[1])).values
    rank = (max_ratio * counted.flatten(1).sum(1, keepdim=True)).ceil().long()
    limit = ranked.gather(1, rank.clamp_max(ranked.shape[1] - 1)) * (rank < flat.shape[1])
    edge = difference > limit.clamp_min(FLAT).reshape(-1, *(1,) * (log_p.ndim - 1))
    return (dilation(edge.to(log_p.dtype), (1,) * (log_p.ndim - 2)) > 0) & counted


def value_and_slope(
    log_p: Tensor, distance: Tensor, counted: Tensor, max_ratio: float, max_dist: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    """The loss of each sample (B, 1), and its derivative in the logarithms of the probabilities (B, C, *S).

    Both are sums over the voxels of the predicted boundary and over directions, so that no direction has to keep its
    neighbors' probabilities.

    Args:
        log_p: logarithms of the probabilities (B, C, *S).
        distance: of each voxel to the boundary of the target, (B, 1, *S).
        counted: which voxels count, (B, 1, *S) bool.
        max_ratio, max_dist, smoothing: see `ActiveBoundaryLoss`.
    """
    found: tuple[Tensor, Tensor] = torch.ops.segloss.active_boundary(
        log_p, distance, counted, max_ratio, max_dist, smoothing
    )
    return found


# One operation for the compiler, which does not know how many voxels a boundary has.
@torch.library.custom_op("segloss::active_boundary", mutates_args=())
def _value_and_slope(
    log_p: Tensor, distance: Tensor, counted: Tensor, max_ratio: float, max_dist: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    samples, shape = log_p.shape[0], log_p.shape[2:]
    value, slope = log_p.new_zeros(samples, 1), torch.zeros(log_p.shape, dtype=log_p.dtype, device=log_p.device)
    offsets = directions(tuple(shape))
    if not offsets:
        return value, slope
    edge = Voxels.of(predicted_boundary(log_p, counted, max_ratio)[:, 0])
    own, target = edge.values(distance)[:, 0], torch.zeros_like(edge.place)
    nearest = torch.full_like(own, torch.inf)
    for direction, offset in enumerate(offsets):
        ahead = edge.moved(offset, counted)
        far = ahead.values(distance)[:, 0].masked_fill(~ahead.known, torch.inf)
        target.masked_fill_(far < nearest, direction)
        nearest = torch.minimum(nearest, far)
    moving = nearest < own
    edge, own, target = edge.only(moving), own[moving].to(log_p.dtype), target[moving]
    weight = own.clamp_max(max_dist) / max_dist / torch.bincount(edge.sample, minlength=samples)[edge.sample]
    index = torch.arange(len(offsets), device=log_p.device)[:, None]
    chunk = max(1, CHUNK.get(log_p.device.type, 2**26) // (len(offsets) * log_p.shape[1]))
    for start in range(0, len(own), chunk):
        part = slice(start, start + chunk)
        some = edge.only(part)
        around, log_own = [some.moved(offset, counted) for offset in offsets], some.values(log_p)
        logits = log_own.new_empty(len(offsets), len(log_own))
        for logit, ahead in zip(logits, around, strict=True):
            log_ahead = ahead.values(log_p)
            logit.copy_((log_ahead.exp() * (log_ahead - log_own)).sum(1) * ahead.known)
        logits = logits.log_softmax(0)
        wanted = (index == target[part]).to(log_p.dtype) * (1 - smoothing) + smoothing / len(offsets)
        costs = weight[part] * (wanted * logits).sum(0)
        value -= sum_by(costs, some.sample, samples)[:, None]
        pull = torch.zeros_like(log_own)
        for push, ahead in zip(weight[part] * (wanted - logits.exp()), around, strict=True):
            pull += (push * ahead.known)[:, None] * ahead.values(log_p).exp()
        slope.flatten(2)[some.sample, :, some.place] = pull
    return value, slope


@_value_and_slope.register_fake
def _(
    log_p: Tensor, distance: Tensor, counted: Tensor, max_ratio: float, max_dist: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    return log_p.new_empty(log_p.shape[0], 1), log_p.new_empty(log_p.shape)


@dataclass(frozen=True)
class Voxels:
    """Some voxels of a batch: their sample and place, (M,) each, in images of a shape; ``known`` whether they count."""

    sample: Tensor
    place: Tensor
    known: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, mask: Tensor) -> Voxels:
        """Those of a mask (B, *S)."""
        sample, place = mask.flatten(1).nonzero().unbind(1)
        return cls(sample, place, torch.ones_like(place, dtype=torch.bool), tuple(mask.shape[1:]))

    def only(self, kept: Tensor | slice) -> Voxels:
        """Those where ``kept`` (M,) is true, or a part of them."""
        return Voxels(self.sample[kept], self.place[kept], self.known[kept], self.shape)

    def values(self, x: Tensor) -> Tensor:
        """Their values in (B, C, *S), (M, C)."""
        return x.flatten(2)[self.sample, :, self.place]

    def moved(self, offset: Offset, counted: Tensor) -> Voxels:
        """Their neighbors in a direction, and the voxels themselves where it leads out of the image.

        A neighbor is known if it lies in the image and counts, (B, 1, *S).
        """
        inside, stride, shift = torch.ones_like(self.known), 1, 0
        for step, length in zip(reversed(offset), reversed(self.shape), strict=True):
            if step:
                ahead = self.place // stride % length + step
                inside &= (ahead >= 0) & (ahead < length)
            stride, shift = stride * length, shift + step * stride
        there = Voxels(self.sample, self.place + shift * inside, inside, self.shape)
        return replace(there, known=inside & there.values(counted)[:, 0])
