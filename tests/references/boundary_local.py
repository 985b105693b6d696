"""Losses of the neighborhood of a boundary: erosions, balls, bands and contours."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .boundary import voxel_mean
from .entry import reference
from .reading import Array, Reading, spanned
from .region import Table


def scored(r: Reading, include_background: bool | None) -> tuple[Array, Array]:
    """Probabilities and target of the scored classes, 0 where ignored; None: the background of regions only."""
    first = r.first(include_background)
    return (r.p * r.valid)[:, first:], r.g[:, first:]


def each(x: Array, f: Callable[[Array, Array], Array], r: Reading) -> Array:
    """`f(map, valid)` of every (sample, class)."""
    return np.array([[f(x[b, c], r.valid[b, 0] > 0) for c in range(x.shape[1])] for b in range(len(x))])


@reference("hausdorff_er", alpha=2.0, erosions=10, norm="rescale", include_background=None)
def hausdorff_er(
    r: Reading, alpha: float, erosions: int, norm: str, include_background: bool | None, reduction: str
) -> Array:
    """Karimi 2020, equation 11; a neighbor that is ignored leaves the mean of the cross."""
    p, g = scored(r, include_background)
    cross = ndimage.generate_binary_structure(len(r.axes), 1).astype(float)

    def of(e: Array, valid: Array) -> Array:
        entries = cross.sum() - ndimage.convolve((~valid).astype(float), cross, mode="constant")
        total = np.zeros_like(e)
        for k in range(1, erosions + 1):
            e = ndimage.convolve(e, cross, mode="constant") / np.maximum(entries, 1)
            e = np.maximum(e - 0.5, 0) * valid
            if norm == "rescale":
                e = e / 0.5
            if norm == "minmax" and valid.any() and np.ptp(e[valid]) > 0:
                e = (e - e[valid].min()) / np.ptp(e[valid]) * valid
            total += k**alpha * e
        return total

    return voxel_mean(r, each((p - g) ** 2, of, r), reduction)


@functools.cache
def ball_matrix(shape: tuple[int, ...], steps: tuple[float, ...], radius: float) -> tuple[Array, int]:
    """(N, N) which voxels are within the radius of each other, and the points of the ball on an endless grid."""
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape)) * np.array(steps)
    near = np.linalg.norm(points[:, None] - points[None], axis=-1) <= radius + 1e-9
    reach = [np.arange(-math.ceil(radius / s), math.ceil(radius / s) + 1) * s for s in steps]
    lengths = np.sqrt(sum(axis**2 for axis in np.ix_(*reach)))
    return near.astype(float), int((lengths <= radius + 1e-9).sum())


@reference("hausdorff_conv", alpha=2.0, radii=(3, 6, 9, 12, 15, 18), tau=0.5, include_background=None)
def hausdorff_conv(
    r: Reading, alpha: float, radii: Sequence[float], tau: float, include_background: bool | None, reduction: str
) -> Array:
    """Karimi 2020, section II-C, with sums over pairs of voxels; ignored voxels leave the balls."""
    p, g = scored(r, include_background)

    def soft(x: Array) -> Array:
        return np.maximum(x - tau, 0) / (1 - tau)

    total = np.zeros_like(p)
    void = 1 - np.broadcast_to(r.valid, p.shape)
    for radius in radii:
        near, points = ball_matrix(p.shape[2:], r.steps, radius)

        def ball(x: Array, near: Array = near) -> Array:
            return (x.reshape(*x.shape[:2], -1) @ near).reshape(x.shape)

        size = np.maximum(points - ball(void), 1)
        truth, predicted = ball(g) / size, ball(p) / size
        total += radius**alpha * soft(1 - truth) * (p - g) ** 2 * p
        total += radius**alpha * soft(truth) * (p - g) ** 2 * g
        total += radius**alpha * soft(1 - predicted) * (p - g) ** 2 * g
        total += radius**alpha * soft(predicted) * (p - g) ** 2 * p
    return voxel_mean(r, total, reduction)


@reference("boundary_dou", alpha_max=0.8, batch=True)
def boundary_dou(
    r: Reading, alpha_max: float, clamp_low: bool, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """Sun 2023 with the surface of the published code; an absent class as in Dice."""
    table = Table(r, **formula_arguments)
    p, g = scored(r, table.include_background)
    cross = ndimage.generate_binary_structure(len(r.axes), 1)

    def surface(mask: Array, valid: Array) -> Array:
        same_or_ignored = (mask > 0.5) | ~valid
        return (mask > 0.5) & ~ndimage.binary_erosion(same_or_ignored, cross, border_value=0)

    z, y, i, s, c = (table.sum(x) for x in (p**2, g**2, p * g, g > 0.5, each(g, surface, r)))
    alpha = np.where(s > 0, 1 - 2 * c / np.maximum(s, 1), -1.0)
    alpha = np.clip(alpha, 0.0 if clamp_low else -1.0, alpha_max)
    return table.reduce(1 - ((1 - alpha) * i + smooth_nr) / (z + y - (1 + alpha) * i + smooth_dr))


def largest(x: Array, radius: Sequence[int], valid: Array) -> Array:
    """Largest value of the valid voxels in a box; 0 where there are none."""
    found = ndimage.maximum_filter(
        np.where(valid, x, -np.inf), [2 * n + 1 for n in radius], mode="constant", cval=-np.inf
    )
    return np.where(np.isfinite(found), found, 0.0)


def smallest(x: Array, radius: Sequence[int], valid: Array) -> Array:
    found = ndimage.minimum_filter(
        np.where(valid, x, np.inf), [2 * n + 1 for n in radius], mode="constant", cval=np.inf
    )
    return np.where(np.isfinite(found), found, 0.0)


def covering(length: float, steps: Sequence[float]) -> list[int]:
    """The fewest voxels, at least one, that are as long."""
    return [next(n for n in itertools.count(1) if n * s >= length - 1e-6 * s) for s in steps]


def inner(x: Array, radius: Sequence[int], r: Reading) -> Array:
    return each(x, lambda u, valid: (u - smallest(u, radius, valid)) * valid, r)


@reference("boundary_iou", include_background=None)
def boundary_iou(
    r: Reading, width: float | None, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """Cheng 2021, soft, without the border of the image."""
    table, steps = Table(r, **formula_arguments), r.steps
    if width is None:
        width = 0.02 * float(np.linalg.norm(spanned(r.p.shape[2:], np.array(r.p.shape[2:]) * steps)))
    p, g = (inner(u, covering(width, steps), r) for u in scored(r, table.include_background))
    return table.reduce(1 - (table.sum(p * g) + smooth_nr) / (table.sum(p + g - p * g) + smooth_dr))


@reference("boundary_f1", contour=3, tolerance=5, include_background=None)
def boundary_f1(
    r: Reading, contour: int, tolerance: int, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """Bokhovkin 2019; windows are those of the finest axis."""
    table, steps = Table(r, **formula_arguments), r.steps
    near, wide = (
        covering(edge // 2 * min(spanned(r.p.shape[2:], steps)), steps) if edge > 1 else [0] * len(steps)
        for edge in (contour, tolerance)
    )
    p, g = (inner(u, near, r) for u in scored(r, table.include_background))
    wide_p, wide_g = (each(b, lambda u, valid: largest(u, wide, valid), r) for b in (p, g))
    precision = (table.sum(p * wide_g) + smooth_nr) / (table.sum(p) + smooth_dr)
    recall = (table.sum(g * wide_p) + smooth_nr) / (table.sum(g) + smooth_dr)
    return table.reduce(1 - 2 * precision * recall / (precision + recall))


@reference("contour_dice", tolerance=2.0, include_background=None)
def contour_dice(r: Reading, tolerance: float, smooth_nr: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """Specktor-Fadida 2022, soft; the band of both sides."""
    table, wide = Table(r, **formula_arguments), covering(tolerance, r.steps)
    maps = scored(r, table.include_background)
    edge_p, edge_g = (inner(u, [1] * len(r.axes), r) for u in maps)
    band_p, band_g = (each(u, lambda x, valid: largest(x, wide, valid) - smallest(x, wide, valid), r) for u in maps)
    met = table.sum(edge_g * band_p + edge_p * band_g)
    return table.reduce(1 - (met + smooth_nr) / (table.sum(edge_g + edge_p) + smooth_dr))
