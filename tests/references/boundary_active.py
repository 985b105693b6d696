"""The active boundary loss, voxel by voxel."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import ndimage

from .entry import reference
from .reading import Array, Reading, reduce_table


def _ahead(at: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The next voxel along each axis, where there is one."""
    return [(*at[:axis], at[axis] + 1, *at[axis + 1 :]) for axis in range(len(at)) if at[axis] + 1 < shape[axis]]


def _kl(log_p: Array, log_q: Array) -> float:
    return float((np.exp(log_p) * (log_p - log_q)).sum())


def _sample(
    log_p: Array, still: Array, label: Array, valid: Array, steps: tuple[float, ...], settings: tuple[float, ...]
) -> float:
    """`log_p` and `still` are (C, *S); everything but the voxel's own probabilities is that of `still`."""
    max_ratio, max_dist, smoothing = settings
    shape = valid.shape
    edge, differs = np.zeros(shape, bool), np.zeros(shape)
    for at in map(tuple, np.argwhere(valid)):
        for other in _ahead(at, shape):
            if valid[other]:
                edge[at] |= label[at] != label[other]
                differs[at] += _kl(still[(slice(None), *at)], still[(slice(None), *other)])
    if not edge.any():
        return 0.0
    distance = ndimage.distance_transform_edt(~edge, steps).astype(np.float32).astype(float)
    most = math.ceil(max_ratio * valid.sum())
    limit = max(np.sort(differs.ravel())[::-1][most] if most < differs.size else 0.0, 1e-5)
    near = ndimage.binary_dilation(differs > limit, np.ones([3] * len(shape))) & valid
    offsets = [o for o in itertools.product(*([-1, 0, 1] if n > 1 else [0] for n in shape)) if any(o)]
    values = []
    for at in map(tuple, np.argwhere(near)):
        reach, logits = [], []
        for offset in offsets:
            other = tuple(a + o for a, o in zip(at, offset, strict=True))
            inside = all(0 <= x < n for x, n in zip(other, shape, strict=True)) and valid[other]
            reach.append(distance[other] if inside else np.inf)
            logits.append(_kl(still[(slice(None), *other)], log_p[(slice(None), *at)]) if inside else 0.0)
        if min(reach) >= distance[at]:
            continue
        wanted = np.full(len(offsets), smoothing / len(offsets))
        wanted[int(np.argmin(reach))] += 1 - smoothing
        scores = np.array(logits) - np.logaddexp.reduce(logits)
        values.append(-min(distance[at], max_dist) / max_dist * (wanted * scores).sum())
    return float(np.mean(values)) if values else 0.0


@reference("active_boundary", max_ratio=0.01, max_dist=20.0, label_smoothing=0.2)
def active_boundary(r: Reading, max_ratio: float, max_dist: float, label_smoothing: float, reduction: str) -> Array:
    """Wang 2022 with exact distances."""
    settings = (max_ratio, max_dist, label_smoothing)
    maps = zip(r.log_p, r.still.log_p, r.g.argmax(axis=1), r.valid[:, 0] > 0, strict=True)
    values = [[_sample(*of_sample, r.steps, settings)] for of_sample in maps]
    return reduce_table(r, np.array(values), reduction)
