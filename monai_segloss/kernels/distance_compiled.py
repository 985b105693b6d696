"""Exact distances on the CPU, compiled by numba (extra ``fast``), on all threads of torch.

Squared distances pass along one axis after the other: out(x) = min over q of f(q) + cost(x - q), where f(q) counts as 0 if q
has another label than x.  The first axis takes two sweeps.  Along the others 16 lines lie side by side, so that a vector
unit compares neighbors at growing offsets.  What is still open after a few offsets may be far from everything: two of the 16
lines then take the lower envelope of parabolas (Felzenszwalb & Huttenlocher, Theory of Computing 8, 2012), run by run of one
label, and show whether the others are done sooner by more offsets or by envelopes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from monai_segloss.kernels.distance import uniform

Volume = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

LANES = 16
"""Lines side by side: a vector of 512 bits, or two of 256."""
OFFSETS = 12
"""Neighbors on each side at first; noisy masks need fewer."""
FAR = 64
"""Offsets that cost more than an envelope."""
BLOCK = 1024
"""Lines of the first axis that stay in cache for its sweeps."""
ZERO, ONE, INF = np.float32(0), np.float32(1), np.float32(np.inf)


def distances(x: Volume, spacings: Sequence[tuple[float, ...]], n: int, surface: bool) -> Volume:
    """Distance to the nearest voxel that is not 0 (``n`` 0), or of another label.

    Args:
        x: (N, *S) of one to three axes, each volume by itself.
        spacings: spacing of each volume in mm, in array axis order.
        n: 0, or the number of labels.
        surface: to the faces of voxels instead of to their centers.

    Returns:
        (N, *S) float32, inf where there is nothing to measure to.
    """
    shape = (len(x), *(1,) * (4 - x.ndim), *x.shape[1:])
    labels = _as_labels(x, n).reshape(shape)
    out = np.empty(shape, np.float32)
    sweeps, planes = [], []
    half = np.float32(0.5 if surface else 0)
    threads = torch.get_num_threads()
    for own, volume, field, spacing in zip(x, labels, out, spacings, strict=True):
        alike = uniform(own, n)
        if alike is not None:
            field.fill(alike)
            continue
        deep, high, wide = ((1.0,) * (3 - len(spacing)) + tuple(spacing))[:3]
        across, along = squares(volume.shape[1], high, surface), squares(volume.shape[2], wide, surface)
        flat, flat_field = volume.reshape(len(volume), -1), field.reshape(len(field), -1)
        sweep = partial(_sweep, flat, np.float32(deep), half, flat_field)
        plane = partial(_planes, field, volume, across, along, surface, n == 0)
        sweeps += [partial(sweep, *part) for part in parts(flat.shape[1], threads)]
        planes += [partial(plane, *part) for part in parts(len(volume), threads)]
    in_stages([sweeps, planes], threads)
    return out.reshape(x.shape)


def in_stages(stages: Sequence[Sequence[Callable[[], None]]], threads: int) -> None:
    """Make the calls of each stage on several threads, one stage after the other."""
    if threads == 1 or max(map(len, stages)) == 1:
        for stage in stages:
            for call in stage:
                call()
        return
    with ThreadPoolExecutor(threads) as pool:
        for stage in stages:
            for done in [pool.submit(call) for call in stage]:
                done.result()


def _as_labels(x: Volume, n: int) -> Volume:
    """Labels as uint8 or int32; 0 are sources and 1 the others where ``n`` is 0."""
    if n == 0:
        return (x == 0).view(np.uint8)
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    return np.ascontiguousarray(x, np.uint8 if n <= 256 else np.int32)


def parts(size: int, threads: int) -> Iterator[tuple[int, int]]:
    """About equal ranges, one per thread."""
    length = -(-size // threads)
    return ((start, min(size, start + length)) for start in range(0, size, length))


def squares(length: int, step: float, surface: bool) -> NDArray[np.float32]:
    """Squared distance over each offset, at least two of them."""
    gap = np.maximum(np.arange(max(2, length)) - (0.5 if surface else 0), 0)
    return ((gap * step) ** 2).astype(np.float32)


def compiled(function: F) -> F:
    """Machine code without the interpreter's lock, kept on disk where that can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"nnan", "nsz", "contract"}}
    try:
        found: F = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        found = numba.njit(**options)(function)
    return found


@compiled
def _sweep(labels: Volume, step: np.float32, half: np.float32, out: Volume, start: int, stop: int) -> None:
    """Squared distance along the first axis of (D, M) to another label, lines ``start`` to ``stop``."""
    depth = labels.shape[0]
    for first in range(start, stop, BLOCK):
        last = min(stop, first + BLOCK)
        for line in range(first, last):
            out[0, line] = INF
        for d in range(1, depth):
            for line in range(first, last):
                out[d, line] = (out[d - 1, line] if labels[d, line] == labels[d - 1, line] else ZERO) + ONE
        for d in range(depth - 2, -1, -1):
            for line in range(first, last):
                back = (out[d + 1, line] if labels[d, line] == labels[d + 1, line] else ZERO) + ONE
                out[d, line] = back if back < out[d, line] else out[d, line]
        for d in range(depth):
            for line in range(first, last):
                gap = (out[d, line] - half) * step
                out[d, line] = gap * gap


@compiled
def _planes(
    f: Volume, labels: Volume, high: Volume, wide: Volume, surface: bool, sources: bool, start: int, stop: int
) -> None:
    """The other two axes of (D, H, W), planes ``start`` to ``stop``: squared distances become distances, in place."""
    _, height, width = f.shape
    longest = max(height, width)
    before, after = np.empty(longest * LANES, np.float32), np.empty(longest * LANES, np.float32)
    own = np.empty(longest * LANES, np.int32)
    stack = (np.empty(longest, np.int64), np.empty(longest, np.float32), np.empty(longest, np.float32))
    plane = np.empty((height, width), np.float32)
    for d in range(start, stop):
        for first in range(0, width, LANES):
            count = min(LANES, width - first)
            for h in range(height):
                for lane in range(LANES):
                    w = first + min(lane, count - 1)
                    before[h * LANES + lane], own[h * LANES + lane] = f[d, h, w], labels[d, h, w]
            _lines(before, own, high, after, height, surface, stack)
            for h in range(height):
                for lane in range(count):
                    plane[h, first + lane] = after[h * LANES + lane]
        for first in range(0, height, LANES):
            count = min(LANES, height - first)
            for lane in range(LANES):
                h = first + min(lane, count - 1)
                for w in range(width):
                    before[w * LANES + lane], own[w * LANES + lane] = plane[h, w], labels[d, h, w]
            _lines(before, own, wide, after, width, surface, stack)
            for lane in range(count):
                for w in range(width):
                    there = sources and own[w * LANES + lane] == 0
                    f[d, first + lane, w] = ZERO if there else np.sqrt(after[w * LANES + lane])


@compiled
def _lines(f: Volume, own: Volume, cost: Volume, out: Volume, n: int, surface: bool, stack: tuple[Volume, ...]) -> None:
    """One axis of 16 lines of n voxels, flat with the lines innermost."""
    for i in range(n * LANES):
        out[i] = f[i]
    done = n - 1 if surface else min(n - 1, OFFSETS)  # the distance to a face is no parabola
    if _offsets(f, own, cost, out, n, 1, done) or done == n - 1:
        return
    reach = -1
    for lane in range(0, LANES, LANES // 2):
        reach = max(reach, _envelope(f, own, cost[1], out, lane, n, stack))
    if 0 <= reach <= FAR:
        last = min(n - 1, FAR + OFFSETS)
        if _offsets(f, own, cost, out, n, done + 1, last) or last == n - 1:
            return
        done = last
    for lane in range(LANES):
        farthest = ZERO
        for i in range(n):
            value = out[i * LANES + lane]
            farthest = value if value > farthest else farthest
        if farthest > cost[done + 1]:
            _envelope(f, own, cost[1], out, lane, n, stack)


@compiled
def _offsets(f: Volume, own: Volume, cost: Volume, out: Volume, n: int, first: int, last: int) -> bool:
    """Compare with the neighbors ``first`` to ``last`` voxels away; whether farther ones cannot be nearer."""
    size = n * LANES
    bits, limits = out.view(np.int32), cost.view(np.int32)  # positive floats are in the order of their bits
    for k in range(first, last + 1):
        if k % 4 == 1:
            most = np.int32(0)
            for i in range(size):
                most = bits[i] if bits[i] > most else most
            if limits[k] >= most:
                return True
        shift = k * LANES
        ahead, labels_ahead, out_ahead = f[shift:], own[shift:], out[shift:]
        for i in range(size - shift):
            found = (ahead[i] if labels_ahead[i] == own[i] else ZERO) + cost[k]
            out[i] = found if found < out[i] else out[i]
        for i in range(size - shift):
            found = (f[i] if labels_ahead[i] == own[i] else ZERO) + cost[k]
            out_ahead[i] = found if found < out_ahead[i] else out_ahead[i]
    return False


@compiled
def _envelope(f: Volume, own: Volume, square: float, out: Volume, lane: int, n: int, stack: tuple[Volume, ...]) -> int:
    """One line: the lower envelope of the parabolas of each run of one label and of its two neighbors, whose f is 0.

    Returns how many voxels away the farthest vertex lies that a voxel takes, -1 if there is no parabola.
    """
    at, height, since = stack  # place and f of a parabola, and twice the place from which it is the lowest
    reach, a = -1, 0
    while a < n:
        b = a + 1
        while b < n and own[b * LANES + lane] == own[a * LANES + lane]:
            b += 1
        top = -1
        for q in range(max(a - 1, 0), min(b + 1, n)):
            value = f[q * LANES + lane] if a <= q < b else ZERO
            if value == INF:
                continue
            crossing = -INF
            while top >= 0:
                crossing = (value - height[top]) / (square * (q - at[top])) + np.float32(q + at[top])
                if crossing > since[top]:
                    break
                top -= 1
            top += 1
            at[top], height[top], since[top] = q, value, crossing if top > 0 else -INF
        lowest = 0
        for i in range(a, b if top >= 0 else a):
            while lowest < top and since[lowest + 1] < 2 * i:
                lowest += 1
            offset = i - at[lowest]
            reach = max(reach, abs(offset))
            out[i * LANES + lane] = height[lowest] + square * np.float32(offset) * np.float32(offset)
        a = b
    return reach
