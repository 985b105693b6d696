"""The active boundary loss, voxel by voxel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from .boundary_local import Spacing, steps_of, table
from .reading import Array, Reading, read


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


def active_boundary(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    spacing: Spacing = None,
    max_ratio: float = 0.01,
    max_dist: float = 20.0,
    label_smoothing: float = 0.2,
    at: Array | None = None,
    reduction: str = "mean",
) -> Array:
    """Wang 2022 with exact distances; what carries no gradient is that of the logits `at`."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    still: Reading = r if at is None else read(at, target, activation, mask, labels=labels, ignore_index=ignore_index)
    values = [
        [
            _sample(
                r.log_p[b], still.log_p[b], r.g[b].argmax(axis=0), r.valid[b, 0] > 0, steps_of(r, spacing),
                (max_ratio, max_dist, label_smoothing),
            )
        ]
        for b in range(len(r.z))
    ]  # fmt: skip
    return table(np.array(values), r, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {"active_boundary": active_boundary}

UNIFORM: dict[str, Callable[[float, float, int], float]] = {}
