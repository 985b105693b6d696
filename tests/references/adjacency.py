"""Losses of classes that must not touch, by filters and dilations of SciPy, rule by rule."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .entry import reference
from .reading import Array, Reading, reduce, reduce_table

Rules = Sequence[Sequence[int]]


def foreground_pairs(r: Reading) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(1, r.z.shape[1]), 2))


@reference("non_adjacency", radius=1, include_center=True)
def non_adjacency(r: Reading, forbidden: Rules | None, radius: int, include_center: bool, reduction: str) -> Array:
    """Ganaye 2019, of the pairs in both orders; an axis of one voxel is none."""
    pairs = foreground_pairs(r) if forbidden is None else forbidden
    box = [2 * radius + 1 if n > 1 else 1 for n in r.z.shape[2:]]
    size = np.prod(box)
    table = np.zeros((len(r.z), 1))
    for b, p in enumerate(r.p * r.valid):
        near = np.array([ndimage.uniform_filter(each, box, mode="constant") for each in p])
        if not include_center:
            near = (near * size - p) / max(size - 1, 1)
        both = [(p[i] * near[j]).sum() + (p[j] * near[i]).sum() for i, j in {tuple(sorted(pair)) for pair in pairs}]
        table[b] = np.mean(both) / 2 / max(r.valid[b].sum(), 1) if both else 0
    return reduce_table(r, table, reduction)


@reference("topological_interaction", radius=1, normalize=True)
def topological_interaction(
    r: Reading,
    inclusion: Rules | None,
    exclusion: Rules | None,
    radius: int,
    faces: bool,
    normalize: bool,
    reduction: str,
) -> Array:
    """Gupta 2022: of each rule the voxels of one side that the dilation of the other meets; a mean in the place of a sum."""
    if inclusion is None and exclusion is None:
        exclusion = foreground_pairs(r)
    predicted = np.where(r.valid[:, 0] > 0, r.still.z.argmax(axis=1), -1)
    cross = ndimage.generate_binary_structure(len(r.axes), 1 if faces else len(r.axes))
    critical = np.zeros(predicted.shape, dtype=bool)
    for sample, found in zip(predicted, critical, strict=True):

        def meet(one: np.ndarray, other: np.ndarray, found: np.ndarray = found) -> None:
            for a, b in ((one, other), (other, one)):
                found |= ndimage.binary_dilation(a, cross, radius) & b

        for a, b in inclusion or ():
            meet(sample == a, (sample >= 0) & (sample != a) & (sample != b))
        for a, b in exclusion or ():
            meet(sample == a, sample == b)
    w = critical[:, None].astype(float)
    if normalize and w.sum() > 0:
        w = w * r.valid.sum() / w.sum()
    return reduce(w * (-r.g * r.log_p).sum(axis=1, keepdims=True), r.valid, reduction)
