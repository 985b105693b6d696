"""Losses with weights made from the target: penalties, borders, regions and points, every distance by brute force.

Maps are rounded to float32, as the library's are; everything after that is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .boundary import Mask, by_class, edge, nearest, table
from .boundary_local import Spacing, on_reading, steps_of
from .boundary_local import table as rows_of
from .reading import Array, Reading, reduce

SINGLE = np.float32


def independent(r: Reading) -> bool:
    return r.activation == "sigmoid" or r.z.shape[1] == 1


def depth(inside: Mask, valid: Mask, steps: Sequence[float]) -> Array:
    """Distance of the voxels inside to the nearest valid one outside, in float32; 0 elsewhere and without a boundary."""
    found = nearest(~inside & valid, np.array(steps)).astype(SINGLE)
    return np.where(inside & valid & np.isfinite(found), found, SINGLE(0))


def penalty(inside: Mask, valid: Mask, steps: Sequence[float]) -> Array:
    """Caliva 2019: (M - d) / (M - m) inside of a mask."""
    d, own = depth(inside, valid, steps), inside & valid
    if not own.any() or not d.any():
        return np.zeros(inside.shape)
    low, high = d[own].min(), d[own].max()
    phi = np.ones_like(d) if low == high else (high - d) / (high - low)
    return np.where(own, phi, SINGLE(0)).astype(float)


def penalty_weight(r: Reading, steps: Sequence[float], factor: float) -> Array:
    """One weight per voxel, or with independent channels one per channel and voxel."""

    def phi(b: int, c: int) -> Array:
        valid, g = r.valid[b, 0] > 0, r.g[b, c] > 0.5
        return penalty(g, valid, steps) + (penalty(~g, valid, steps) if independent(r) else 0.0)

    found = by_class(r, phi)
    return 1 + factor * (found if independent(r) else found.sum(axis=1, keepdims=True))


def cross_entropy(r: Reading, w: Array, weight: Sequence[float] | float | None, reduction: str) -> Array:
    """Mean over voxels of w times the cross-entropy; the weight of a class is on its true voxels."""
    per_class = np.broadcast_to(1.0 if weight is None else weight, r.p.shape[1]).reshape(1, -1, *[1] * len(r.axes))
    values = -per_class * r.g * r.log_p
    values = values - (1 - r.g) * r.log_q if independent(r) else values.sum(axis=1, keepdims=True)
    return reduce(np.broadcast_to(w, values.shape) * values, r.valid, reduction)


@on_reading
def distance_penalized_ce(
    r: Reading,
    *,
    spacing: Spacing = None,
    lambda_phi: float = 1.0,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    """Caliva 2019: mean (1 + Phi) CE."""
    return cross_entropy(r, penalty_weight(r, steps_of(r, spacing), lambda_phi), weight, reduction)


@on_reading
def distance_penalized_dice(
    r: Reading,
    *,
    spacing: Spacing = None,
    lambda_phi: float = 1.0,
    include_background: bool = True,
    batch: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    """1 - (2 sum w p g + nr) / (sum w p + sum w g + dr)."""
    w = penalty_weight(r, steps_of(r, spacing), lambda_phi) * r.valid
    first = 0 if include_background or r.p.shape[1] == 1 else 1
    both, either = ((w * x).sum(axis=r.axes)[:, first:] for x in (r.p * r.g, r.p + r.g))
    if batch:
        both, either = (x.sum(axis=0, keepdims=True) for x in (both, either))
    values = (1 - (2 * both + smooth_nr) / (either + smooth_dr)) * (1.0 if weight is None else np.array(weight))
    return rows_of(values, r, reduction)


def instances(masks: Array, corners: bool = True) -> Iterator[Mask]:
    """The connected components of masks (C, *S), with neighbors at corners or over faces only."""
    for mask in masks:
        ids, count = ndimage.label(mask, np.ones((3,) * mask.ndim) if corners else None)
        yield from (ids == k for k in range(1, count + 1))


def border(
    masks: Array,
    valid: Mask,
    steps: Sequence[float],
    w0: float,
    sigma: float,
    outside_only: bool,
    factors: Array | None,
) -> Array:
    """Ronneberger 2015 of one sample; `factors` of the background and the masks, None for 'balanced'."""
    inside = (masks > 0.5) & valid
    near = [nearest(x, np.array(steps)).astype(SINGLE).astype(float) for x in instances(inside, corners=False)]
    out = np.zeros(valid.shape)
    if len(near) > 1:
        first, second = np.sort(np.stack(near), axis=0)[:2]
        out = w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))
    if outside_only:
        out[inside.any(axis=0)] = 0
    groups = np.concatenate([(valid & ~inside.any(axis=0))[None], inside])
    if factors is None:
        volumes = groups.reshape(len(groups), -1).sum(axis=1)
        factors = volumes.sum() / np.maximum((volumes > 0).sum() * volumes, 1)
    out = out + np.tensordot(factors, groups.astype(float), 1)
    return np.where(valid, out, 0.0).astype(SINGLE).astype(float)


@on_reading
def border_weighted_ce(
    r: Reading,
    *,
    spacing: Spacing = None,
    border_weight: float = 10.0,
    sigma: float = 5.0,
    background_only: bool = True,
    weight: Sequence[float] | float | None = None,
    balanced: bool = False,
    reduction: str = "mean",
) -> Array:
    """Ronneberger 2015: mean (w_c + w_0 exp(-(d_1 + d_2)^2 / (2 sigma^2))) CE."""
    per_class = np.broadcast_to(1.0 if weight is None else np.array(weight), r.p.shape[1])
    found = []
    for b in range(len(r.z)):
        each = [slice(c, c + 1) for c in range(r.p.shape[1])] if independent(r) else [slice(1, None)]
        maps = []
        for part in each:
            factors = np.array([1.0, per_class[part.start]]) if independent(r) else per_class
            given = (border_weight, sigma, background_only, None if balanced else factors)
            maps.append(border(r.g[b, part], r.valid[b, 0] > 0, steps_of(r, spacing), *given))
        found.append(np.stack(maps))
    return cross_entropy(r, np.stack(found), None, reduction)


@on_reading
def region_wise(
    r: Reading,
    *,
    spacing: Spacing = None,
    offset: bool = False,
    include_background: bool = True,
    batch: bool = False,
    reduction: str = "mean",
) -> Array:
    """Valverde & Tohka 2023: mean z p, or mean z (p - g)."""

    def z(b: int, c: int) -> Array:
        valid, inside = r.valid[b, 0] > 0, r.g[b, c] > 0.5
        d = depth(inside, valid, steps_of(r, spacing))
        relative = -d / d.max() if d.any() else np.full(d.shape, -1.0, SINGLE)
        return np.where(valid, np.where(inside, relative, SINGLE(1)), SINGLE(0)).astype(float)

    return table(r, by_class(r, z) * (r.p - r.g if offset else r.p), include_background, batch, reduction)


def centers(mask: Mask) -> Mask:
    """The voxel at the center of mass of each component, halves rounded up."""
    out = np.zeros_like(mask)
    for component in instances(mask[None]):
        out[tuple(np.floor(np.argwhere(component).mean(axis=0) + 0.5).astype(int))] = True
    return out


@on_reading
def weighted_hausdorff(
    r: Reading,
    *,
    spacing: Spacing = None,
    points: str = "contour",
    exponent: float = -9.0,
    max_points: int = 256,
    include_background: bool | None = None,
    reduction: str = "mean",
) -> Array:
    """Ribera 2019, equation 9, with powers of numbers as they are."""
    background = independent(r) if include_background is None else include_background
    steps, eps = np.array(steps_of(r, spacing)), 1e-6
    every = np.indices(r.p.shape[2:]).reshape(len(steps), -1).T * steps
    longest = max(float(np.linalg.norm(every[-1] - every[0])), eps)

    def of(b: int, c: int) -> float:
        valid = r.valid[b, 0] > 0
        g = (r.g[b, c] > 0.5) & valid
        chosen = edge(g, ~g & valid, False) if points == "contour" else centers(g)
        if not chosen.any():
            return 0.0
        p = (r.p[b, c] * valid).ravel()
        to_points = nearest(g if points == "contour" else chosen, steps).astype(SINGLE).astype(float).ravel()
        mass = (p * np.where(valid.ravel(), to_points, 0.0)).sum() / (p.sum() + eps)
        places = np.argwhere(chosen) * steps
        if len(places) > max_points:
            places = places[[k * len(places) // max_points for k in range(max_points)]]
        reach = []
        for place in places:
            away = np.linalg.norm(every - place, axis=1)
            cost = (p * away + (1 - p) * longest)[valid.ravel()] / longest + eps
            reach.append(longest * np.mean(cost**exponent) ** (1 / exponent))
        return float(mass + np.mean(reach))

    values = np.array([[of(b, c) for c in range(r.p.shape[1])] for b in range(len(r.p))])
    return rows_of(values[:, 0 if background or r.p.shape[1] == 1 else 1 :], r, reduction)


REFERENCES: dict[str, Callable[..., Any]] = {
    "distance_penalized_ce": distance_penalized_ce,
    "distance_penalized_dice": distance_penalized_dice,
    "border_weighted_ce": border_weighted_ce,
    "region_wise": region_wise,
    "weighted_hausdorff": weighted_hausdorff,
}

UNIFORM: dict[str, Callable[[float, float, int], float]] = {}
