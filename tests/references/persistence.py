"""Losses of persistent homology: boundary matrices over Z/2, reduced column by column."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .boundary_local import scored
from .entry import reference
from .reading import Array, Reading, reduce_table

Feature = tuple[int, int, int | None]
"""Dimension, voxel of birth, voxel of death."""


@functools.cache
def cells(shape: tuple[int, ...]) -> tuple[Array, list[list[int]], list[list[int]]]:
    """The dimension of each cell of a grid of cubes, the cells that bound it, and the cubes that it is part of."""
    fine = tuple(2 * n + 1 for n in shape)
    places = np.indices(fine).reshape(len(shape), -1).T
    sides, cubes = [], []
    for place in places:
        odd = [axis for axis in range(len(shape)) if place[axis] % 2]
        steps = [place + sign * np.eye(len(shape), dtype=int)[axis] for axis in odd for sign in (-1, 1)]
        sides.append([int(np.ravel_multi_index(tuple(step), fine)) for step in steps])
        reach = [
            [i // 2] if i % 2 else [j for j in (i // 2 - 1, i // 2) if 0 <= j < n]
            for i, n in zip(place, shape, strict=True)
        ]
        cubes.append([int(np.ravel_multi_index(cube, shape)) for cube in itertools.product(*reach)])
    return (places % 2).sum(1), sides, cubes


@functools.lru_cache(maxsize=4096)
def _features(raw: bytes, shape: tuple[int, ...]) -> tuple[Feature, ...]:
    u = np.frombuffer(raw)
    dimension, sides, cubes = cells(shape)
    owner = np.array([max(each, key=u.__getitem__) for each in cubes])
    order = np.lexsort((dimension, -u[owner]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    columns = [functools.reduce(lambda x, s: x | 1 << int(place[s]), sides[cell], 0) for cell in order]
    killer: dict[int, int] = {}
    for j, column in enumerate(columns):
        while column and (low := column.bit_length() - 1) in killer:
            column ^= columns[killer[low]]
        columns[j] = column
        if column:
            killer[column.bit_length() - 1] = j
    found: list[Feature] = []
    for i, column in enumerate(columns):
        if column:
            continue
        born, died = owner[order[i]], owner[order[killer[i]]] if i in killer else None
        if died is None or u[born] > u[died]:
            found.append((int(dimension[order[i]]), int(born), None if died is None else int(died)))
    return tuple(found)


def features(u: Array) -> tuple[Feature, ...]:
    """Births and deaths in the superlevel sets of a map of cubes, voxels by their flat index."""
    return _features(np.ascontiguousarray(u, dtype=float).tobytes(), u.shape)


def ranked(u: Array, dimension: int) -> list[tuple[int, int | None]]:
    """The features of a dimension, the most persistent first; a component without an end ends at 0."""
    flat = u.ravel()
    each = [(born, died) for k, born, died in features(u) if k == dimension]
    return sorted(each, key=lambda x: -(flat[x[0]] - (0 if x[1] is None else flat[x[1]])))


def values(u: Array, pairs: Sequence[tuple[int, int | None]]) -> list[tuple[float, float]]:
    """Birth and death."""
    return [(u.ravel()[born], 0.0 if died is None else u.ravel()[died]) for born, died in pairs]


@reference("persistence_matching", patch_size=64, every=1)
def persistence_matching(
    r: Reading, dimensions: Sequence[int] | None, patch_size: int, every: int, reduction: str
) -> Array:
    """Hu 2019, with all dimensions and the component that stays, in tiles; the first step of a training."""
    (p, g), (still, _) = scored(r, None), scored(r.still, None)
    table = np.zeros(p.shape[:2])
    corners = itertools.product(*(range(0, n, patch_size) for n in p.shape[2:]))
    parts = [tuple(slice(i, i + patch_size) for i in corner) for corner in corners]
    for (b, c), part in itertools.product(np.ndindex(table.shape), parts):
        for k in range(3) if dimensions is None else dimensions:
            found = values(p[b, c][part], ranked(still[b, c][part], k))
            wanted = sum(dimension == k and g[b, c][part].any() for dimension, _, _ in features(g[b, c][part]))
            costs = [(1 - x) ** 2 + y**2 if i < wanted else (x - y) ** 2 / 2 for i, (x, y) in enumerate(found)]
            table[b, c] += sum(costs) + max(wanted - len(found), 0) / 2
    return reduce_table(r, every * table, reduction)


@reference("betti_prior", betti=(1,), squared=True, every=1)
def betti_prior(r: Reading, betti: Any, squared: bool, every: int, reduction: str) -> Array:
    """Clough 2020, equation 6, and Byrne 2022 without squares; the first step of a training.

    Of an interval of numbers what lies below its lower end is asked for, and what lies above its upper one is too much.
    """
    first = 0 if not r.exclusive else 1
    entries = betti if isinstance(betti, dict) else {(c,): betti for c in range(first, r.p.shape[1])}
    table = np.zeros((len(r.p), len(entries)))
    for b, (i, (classes, numbers)) in itertools.product(range(len(r.p)), enumerate(entries.items())):
        u, still = ((x.p * x.valid)[b, list(classes)].sum(axis=0) for x in (r, r.still))
        for k in range(3):
            wanted = numbers[k] if k < len(numbers) else 0
            low, high = wanted if isinstance(wanted, (tuple, list)) else (wanted, wanted)
            lengths = [x - y for x, y in values(u, ranked(still, k))]
            costs = [x**2 if squared else x for x in lengths]
            table[b, i] += sum(1 - x for x in costs[:low]) + sum(costs[high:]) + max(low - len(costs), 0)
    return reduce_table(r, every * table, reduction)
