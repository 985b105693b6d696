"""Losses with weights made from the target: penalties, borders, regions and points, every distance by brute force.

Maps are rounded to float32, as the library's are; everything after that is float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .boundary import Mask, by_class, edge, nearest, voxel_mean
from .entry import reference
from .reading import Array, Reading, Weight, reduce, reduce_table
from .region import Table

SINGLE = np.float32


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


def penalty_weight(r: Reading, factor: float) -> Array:
    """One weight per voxel, or with independent channels one per channel and voxel."""

    def phi(b: int, c: int) -> Array:
        valid, g = r.valid[b, 0] > 0, r.g[b, c] > 0.5
        return penalty(g, valid, r.steps) + (penalty(~g, valid, r.steps) if not r.exclusive else 0.0)

    found = by_class(r, phi)
    return 1 + factor * (found.sum(axis=1, keepdims=True) if r.exclusive else found)


def cross_entropy(r: Reading, w: Array, weight: Weight, reduction: str) -> Array:
    """Mean over voxels of w times the cross-entropy; the weight of a class is on its true voxels."""
    values = -r.per_class(weight) * r.g * r.log_p
    values = values.sum(axis=1, keepdims=True) if r.exclusive else values - (1 - r.g) * r.log_q
    return reduce(np.broadcast_to(w, values.shape) * values, r.valid, reduction)


@reference("distance_penalized_ce", lambda_phi=1.0)
def distance_penalized_ce(r: Reading, lambda_phi: float, weight: Weight, reduction: str) -> Array:
    """Caliva 2019: mean (1 + Phi) CE."""
    return cross_entropy(r, penalty_weight(r, lambda_phi), weight, reduction)


@reference("distance_penalized_dice", lambda_phi=1.0)
def distance_penalized_dice(
    r: Reading, lambda_phi: float, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """1 - (2 sum w p g + nr) / (sum w p + sum w g + dr)."""
    table, w = Table(r, **formula_arguments), penalty_weight(r, lambda_phi)
    return table.reduce(1 - (2 * table.sum(w * r.p * r.g) + smooth_nr) / (table.sum(w * (r.p + r.g)) + smooth_dr))


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


@reference("border_weighted_ce", border_weight=10.0, sigma=5.0, background_only=True)
def border_weighted_ce(
    r: Reading,
    border_weight: float,
    sigma: float,
    background_only: bool,
    weight: Weight,
    balanced: bool,
    reduction: str,
) -> Array:
    """Ronneberger 2015: mean (w_c + w_0 exp(-(d_1 + d_2)^2 / (2 sigma^2))) CE."""
    per_class = r.per_class(weight).ravel()
    found = []
    for b in range(len(r.z)):
        each = [slice(1, None)] if r.exclusive else [slice(c, c + 1) for c in range(r.p.shape[1])]
        maps = []
        for part in each:
            factors = per_class if r.exclusive else np.array([1.0, per_class[part.start]])
            given = (border_weight, sigma, background_only, None if balanced else factors)
            maps.append(border(r.g[b, part], r.valid[b, 0] > 0, r.steps, *given))
        found.append(np.stack(maps))
    return cross_entropy(r, np.stack(found), None, reduction)


@reference("region_wise")
def region_wise(r: Reading, offset: bool, include_background: bool, batch: bool, reduction: str) -> Array:
    """Valverde & Tohka 2023: mean z p, or mean z (p - g)."""

    def z(b: int, c: int) -> Array:
        valid, inside = r.valid[b, 0] > 0, r.g[b, c] > 0.5
        d = depth(inside, valid, r.steps)
        relative = -d / d.max() if d.any() else np.full(d.shape, -1.0, SINGLE)
        return np.where(valid, np.where(inside, relative, SINGLE(1)), SINGLE(0)).astype(float)

    values = by_class(r, z) * (r.p - r.g if offset else r.p)
    return voxel_mean(r, values[:, r.first(include_background) :], reduction, batch)


def centers(mask: Mask) -> Mask:
    """The voxel at the center of mass of each component, halves rounded up."""
    out = np.zeros_like(mask)
    for component in instances(mask[None]):
        out[tuple(np.floor(np.argwhere(component).mean(axis=0) + 0.5).astype(int))] = True
    return out


@reference("weighted_hausdorff", points="contour", exponent=-9.0, max_points=256, include_background=None)
def weighted_hausdorff(
    r: Reading, points: str, exponent: float, max_points: int, include_background: bool | None, reduction: str
) -> Array:
    """Ribera 2019, equation 9, with powers of numbers as they are."""
    background = not r.exclusive if include_background is None else include_background
    steps, eps = np.array(r.steps), 1e-6
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
    return reduce_table(r, values[:, r.first(background) :], reduction)
