"""Losses of distance maps, with every distance measured by brute force.

Distances are rounded to float32, as the library's maps are; everything after that is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .entry import reference
from .reading import Array, Reading, reduce_table, spanned

Mask = NDArray[np.bool_]


def nearest(sources: Mask, steps: Array, to_faces: bool = False) -> Array:
    """Distance of every voxel to the nearest of the sources, or to the nearest point of their boxes."""
    points, every = np.argwhere(sources), np.argwhere(np.ones_like(sources))
    if not len(points):
        return np.full(sources.shape, np.inf)
    squares = np.zeros((len(every), len(points)))
    for axis, step in enumerate(steps):
        gap = np.abs(every[:, None, axis] - points[None, :, axis]).astype(float)
        squares += (np.maximum(gap - 0.5, 0) * step if to_faces else gap * step) ** 2
    out: Array = np.sqrt(squares.min(axis=1)).reshape(sources.shape)
    return out


def edge(inside: Mask, outside: Mask, full: bool) -> Mask:
    """Voxels inside with a neighbor outside."""
    kind = ndimage.generate_binary_structure(inside.ndim, inside.ndim if full else 1)
    found: Mask = inside & ndimage.binary_dilation(outside, kind)
    return found


def signed(
    g: Mask,
    valid: Mask,
    steps: Array,
    mode: str = "kervadec",
    empty: str = "zero",
    full: str = "zero",
    clip: float | Sequence[float] | None = None,
    normalize: bool = False,
) -> Array:
    """Signed distance map of one mask, by the table of modes."""
    single = np.float32
    inside, outside = g & valid, ~g & valid
    far_out = nearest(inside, steps, mode == "surface").astype(single)
    source = edge(inside, outside, mode == "maurer") if mode in ("inner", "maurer") else outside
    depth = nearest(source, steps, mode == "surface").astype(single)
    shift = {
        "kervadec": single(min(spanned(g.shape, steps))),
        "literal": single(1.0),
    }.get(mode, single(0.0))
    depth = depth - shift
    if mode == "kervadec":
        depth = np.maximum(depth, single(0.0))
    if mode == "swdm":
        depth = np.where(edge(inside, outside, False), single(0.0), depth)
    diagonal = single(np.linalg.norm(spanned(g.shape, np.array(g.shape) * steps)))
    if not inside.any():
        far_out = np.full(g.shape, diagonal if empty == "diagonal" else single(0.0))
    if not source.any():
        depth = np.full(g.shape, diagonal if full == "diagonal" else single(0.0))
    phi = np.where(valid, np.where(g, -depth, far_out), single(0.0))
    if clip is not None:
        low, high = (clip, clip) if isinstance(clip, int | float) else clip
        phi = np.clip(phi, single(-low), single(high))
    if normalize:
        top, bottom = phi.max(), -phi.min()
        phi = np.where(phi > 0, phi / (top if top > 0 else single(1.0)), phi / (bottom if bottom > 0 else single(1.0)))
    return phi.astype(np.float64)


def unsigned(g: Mask, valid: Mask, steps: Array, inside_only: bool = False) -> Array:
    """Distance to the other side; 0 for a mask that is empty or full, and where nothing counts."""
    inside, outside = g & valid, ~g & valid
    if not inside.any() or not outside.any():
        return np.zeros(g.shape)
    found = np.where(g, nearest(outside, steps), 0.0 if inside_only else nearest(inside, steps))
    return np.where(valid, found.astype(np.float32), 0.0).astype(np.float64)


def by_class(r: Reading, of: Callable[[int, int], Array]) -> Array:
    """A map of each sample and class."""
    return np.stack([np.stack([of(b, c) for c in range(r.p.shape[1])]) for b in range(len(r.p))])


def voxel_mean(r: Reading, x: Array, reduction: str, batch: bool = False) -> Array:
    """Mean over the valid voxels of the sample or of the batch, then over classes and samples."""
    total, voxels = (x * r.valid).sum(axis=r.axes), r.valid.sum(axis=r.axes)
    if batch:
        total, voxels = total.sum(axis=0, keepdims=True), voxels.sum(axis=0, keepdims=True)
    return reduce_table(r, total / np.maximum(voxels, 1), reduction)


@reference("boundary", mode="kervadec", empty="zero")
def boundary(
    r: Reading,
    mode: str,
    normalize: bool,
    offset: bool,
    empty: str,
    clip: float | Sequence[float] | None,
    include_background: bool,
    batch: bool,
    reduction: str,
) -> Array:
    """Kervadec 2019: mean phi s, or mean phi (s - g)."""

    def phi(b: int, c: int) -> Array:
        return signed(r.g[b, c] > 0.5, r.valid[b, 0] > 0, r.steps, mode, empty=empty, clip=clip, normalize=normalize)

    values = by_class(r, phi) * (r.p - r.g if offset else r.p)
    return voxel_mean(r, values[:, r.first(include_background) :], reduction, batch)


@reference("hausdorff_dt", alpha=2.0, include_background=False, field="both", binarize="threshold")
def hausdorff_dt(
    r: Reading,
    alpha: float,
    one_sided: bool,
    field: str,
    binarize: str,
    include_background: bool,
    batch: bool,
    reduction: str,
) -> Array:
    """Karimi & Salcudean 2020: mean (s - g)^2 (d_g^alpha + d_s^alpha)."""
    if binarize == "argmax" and r.p.shape[1] > 1:
        predicted = r.p.argmax(axis=1)[:, None] == np.arange(r.p.shape[1]).reshape(1, -1, *[1] * len(r.axes))
    else:
        predicted = r.p > 0.5

    def weight(b: int, c: int) -> Array:
        masks = [r.g[b, c] > 0.5] if one_sided else [r.g[b, c] > 0.5, predicted[b, c]]
        return sum(unsigned(m, r.valid[b, 0] > 0, r.steps, field == "inside") ** alpha for m in masks)

    values = by_class(r, weight) * (r.p - r.g) ** 2
    return voxel_mean(r, values[:, r.first(include_background) :], reduction, batch)


@reference("log_hausdorff_dt", alpha=2.0, include_background=False, field="both", binarize="threshold")
def log_hausdorff_dt(r: Reading, **arguments: Any) -> Array:
    """log(1 + the reduced loss)."""
    return np.log1p(hausdorff_dt(r, **arguments))
