"""Losses of distances to a surface, with every distance measured by brute force, as in `boundary`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .boundary import Mask, by_class, edge, signed
from .boundary_local import covering, each, inner, largest, scored
from .entry import reference
from .reading import Array, Reading, Weight, reduce
from .region import Table
from .voxel import cross_entropy_voxels


def surface_maps(r: Reading, first: int, mode: str, empty: str = "zero", normalize: bool = False) -> Array:
    """Signed distances of the classes from ``first`` on, (B, K, *S)."""

    def of(b: int, c: int) -> Array:
        return signed(r.g[b, c] > 0.5, r.valid[b, 0] > 0, r.steps, mode, empty=empty, normalize=normalize)

    return by_class(r, of)[:, first:]


@reference("generalized_surface", mode="maurer", empty="zero", include_background=None)
def generalized_surface(
    r: Reading, mode: str, empty: str, per_class: bool, weight: Weight, **formula_arguments: Any
) -> Array:
    """Celaya 2023, as printed: 1 - sum w (D (1 - (g + s)))^2 / sum w D^2."""
    table = Table(r, **formula_arguments)
    distance = surface_maps(r, table.first, mode, empty)
    p, g = scored(r, table.include_background)
    w = r.per_class(weight).ravel()[table.first :]
    kept, whole = table.sum((distance * (1 - (g + p))) ** 2), table.sum(distance**2)
    if per_class:
        ratio = np.divide(kept, whole, out=np.ones_like(kept), where=whole > 0)
        return table.reduce(w * (1 - ratio), whole > 0)
    kept, whole = ((w * x).sum(axis=1, keepdims=True) for x in (kept, whole))
    return table.reduce(1 - np.divide(kept, whole, out=np.ones_like(kept), where=whole > 0))


@reference("surface_dice", include_background=None)
def surface_dice(
    r: Reading, tolerance: float | None, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """MIST: Dice of the dilated contours."""
    table = Table(r, **formula_arguments)
    box = covering(1.25 * max(r.steps) if tolerance is None else tolerance, r.steps)
    p, g = (
        each(inner(u, [1] * len(r.axes), r), lambda x, valid: largest(x, box, valid) * valid, r)
        for u in scored(r, table.include_background)
    )
    return table.reduce(1 - (2 * table.sum(p * g) + smooth_nr) / (table.sum(p + g) + smooth_dr))


def contour_distance(predicted: Mask, target: Mask, valid: Mask, distance: Array) -> float | None:
    """Mean distance of the predicted contour; None where one of the contours is missing."""
    drawn = edge(predicted & valid, ~predicted & valid, False)
    if not drawn.any() or not edge(target & valid, ~target & valid, False).any():
        return None
    return float(distance[drawn].mean())


@reference("shape_aware", w_shape=1.0, domain="mismatch")
def shape_aware(r: Reading, w_shape: float, domain: str, reduction: str) -> Array:
    """Al Arif 2017: CE + w mean over the wrong voxels of E CE; prediction and E carry no gradient."""
    value = cross_entropy_voxels(r)
    exclusive, p = r.exclusive, r.still.p
    if exclusive:
        predicted = p.argmax(axis=1)[:, None] == np.arange(p.shape[1]).reshape(1, -1, *[1] * len(r.axes))
    else:
        predicted = p > 0.5
    target, first = r.g > 0.5, int(exclusive)
    distance = np.abs(surface_maps(r, 0, "inner"))
    error = np.zeros((len(p), 1 if exclusive else p.shape[1]))
    for b in range(len(p)):
        found = [
            contour_distance(predicted[b, c], target[b, c], r.valid[b, 0] > 0, distance[b, c])
            for c in range(first, p.shape[1])
        ]
        known = [x for x in found if x is not None]
        error[b] = np.mean(known) if exclusive and known else [x or 0.0 for x in found] if not exclusive else 0.0
    wrong = (predicted != target).any(axis=1, keepdims=True) if exclusive else predicted != target
    factor = error.reshape(*error.shape, *[1] * len(r.axes)) * (np.ones_like(wrong) if domain == "all" else wrong)
    return reduce(value * (1 + w_shape * factor), r.valid, reduction)


@reference(
    "signed_distance_regression",
    w_absolute=1.0,
    w_product=1.0,
    w_square=0.0,
    head="probability",
    mode="swdm",
    empty="zero",
)
def signed_distance_regression(
    r: Reading,
    w_absolute: float,
    w_product: float,
    w_square: float,
    head: str,
    mode: str,
    empty: str,
    **formula_arguments: Any,
) -> Array:
    """Xue 2020: mean |y - p| - sum y p / sum (y p + y^2 + p^2), the fraction's least value added."""
    table = Table(r, **formula_arguments)
    y = surface_maps(r, table.first, mode, empty, normalize=True)
    p = (np.tanh(r.z) if head == "tanh" else 1 - 2 * r.p)[:, table.first :]
    known = (np.abs(y).sum(axis=r.axes, keepdims=True) > 0) * r.valid  # (B, K, *S): voxels of classes with a boundary
    size = table.sum(known)
    sums = [table.sum(x * known) for x in (np.abs(y - p), (y - p) ** 2, y * p, y * p + y**2 + p**2)]
    l1, l2 = (np.divide(x, size, out=np.zeros_like(x), where=size > 0) for x in sums[:2])
    fraction = np.divide(sums[2], sums[3], out=np.zeros_like(l1), where=sums[3] > 0)
    return table.reduce(w_absolute * l1 + w_square * l2 + w_product * (1 / 3 - fraction), size > 0)
