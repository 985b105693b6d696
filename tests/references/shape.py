"""Losses of size and shape, from the catalog's formulas, voxel by voxel."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from .boundary_local import scored
from .entry import reference
from .reading import Array, Reading, reduce_table


def bounds_of(r: Reading, bounds: Any, unit: str, volume: float, quantity: Array, slack: Array) -> tuple[Array, Array]:
    """Lower and upper bound of a quantity (B, K, ...), of which None is infinite; without bounds `slack` to both sides."""
    if bounds is None:
        return quantity - slack, quantity + slack
    pair = np.array(bounds, dtype=float)
    pair[..., 0] = np.where(np.isnan(pair[..., 0]), -np.inf, pair[..., 0])
    pair[..., 1] = np.where(np.isnan(pair[..., 1]), np.inf, pair[..., 1])
    pair = pair / (volume if unit == "mm" else 1.0)
    return (np.broadcast_to(side, quantity.shape) for side in (pair[..., 0], pair[..., 1]))  # type: ignore[return-value]


def spanned_volume(r: Reading) -> float:
    """Of a voxel, over the axes with several of them."""
    return float(np.prod([step for n, step in zip(r.z.shape[2:], r.steps, strict=True) if n > 1]))


def sizes(r: Reading, bounds: Any, unit: str, margin: float, include_background: bool | None) -> tuple[Array, ...]:
    """Shares of the prediction, and their bounds, per (sample, class)."""
    p, g = scored(r, include_background)
    share, lower, upper = np.zeros((3, *p.shape[:2]))
    for b in range(len(p)):
        voxels = max(r.valid[b].sum(), 1)
        share[b], label = (x[b].reshape(p.shape[1], -1).sum(axis=1) / voxels for x in (p, g))
        lower[b], upper[b] = bounds_of(r, bounds, unit, voxels * spanned_volume(r), label, margin * label)
    return share, lower, upper


@reference("size_penalty", unit="mm", margin=0.1, include_background=None)
def size_penalty(
    r: Reading, bounds: Any, unit: str, margin: float, include_background: bool | None, reduction: str
) -> Array:
    """Kervadec 2019, of shares."""
    share, lower, upper = sizes(r, bounds, unit, margin, include_background)
    return reduce_table(r, np.maximum(share - upper, 0) ** 2 + np.maximum(lower - share, 0) ** 2, reduction)


def psi(z: float, t: float) -> float:
    if z <= -1 / t**2:
        return -math.log(-z) / t
    return t * z - math.log(1 / t**2) / t + 1 / t


@reference("log_barrier", unit="mm", margin=0.1, t="geometric", include_background=None)
def log_barrier(
    r: Reading, bounds: Any, unit: str, margin: float, t: Any, include_background: bool | None, reduction: str
) -> Array:
    """Kervadec 2022, relative to the upper bound; in the first epoch t is 5."""
    steep = 5.0 if t == "geometric" else float(t)
    table = np.zeros_like(sizes(r, bounds, unit, margin, include_background)[0])
    for at, (v, low, up) in enumerate(
        zip(*(x.ravel() for x in sizes(r, bounds, unit, margin, include_background)), strict=True)
    ):
        scale = up if 0 < up < np.inf else 1.0
        above = psi((v - up) / scale, steep) if up < np.inf else 0.0
        below = psi((low - v) / scale, steep) if low > 0 else 0.0
        table.ravel()[at] = above + below
    return reduce_table(r, table, reduction)


@reference("region_size", measure="l1")
def region_size(r: Reading, measure: str, include_background: bool, reduction: str) -> Array:
    """Liu 2021: shares of the classes per sample."""
    first = r.first(include_background)
    voxels = np.maximum(r.valid.sum(axis=(1, *r.axes)), 1)[:, None]
    g = r.g.sum(axis=r.axes)[:, first:] / voxels
    p, q = ((np.exp(x) * r.valid).sum(axis=r.axes)[:, first:] / voxels for x in (r.log_p, r.log_q))
    if measure == "l1":
        return reduce_table(r, np.abs(p - g), reduction)

    def surprise(a: Array, b: Array) -> Array:
        return np.where(a > 0, a * np.log(np.where(a > 0, a, 1) / np.where(b > 0, b, 1)), 0)

    of_classes = surprise(g, p)
    if r.exclusive:
        return reduce_table(r, of_classes.sum(axis=1, keepdims=True), reduction)
    counted = r.present()[:, None]
    return reduce_table(r, of_classes + surprise((1 - g) * counted, q), reduction)


def moments(u: Array) -> tuple[Array, Array]:
    """Centroid and spread along each axis, in shares of its extent from its center."""
    mass = u.sum() + 1e-6
    places = [(np.arange(n) - (n - 1) / 2) / n for n in u.shape]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    mean = np.array([(u * x).sum() / mass for x in grid])
    spread = [np.sqrt((u * (x - m) ** 2).sum() / mass + 1e-8) for x, m in zip(grid, mean, strict=True)]
    return mean, np.array(spread)


@reference("moment_constraint", order=1, unit="mm", margin=0.1, include_background=None)
def moment_constraint(
    r: Reading,
    order: int,
    bounds: Any,
    unit: str,
    margin: float,
    include_background: bool | None,
    reduction: str,
) -> Array:
    """Kervadec 2021, in shares of the extent; a class that the label lacks has no moment of its own."""
    p, g = scored(r, include_background)
    table, counted = np.zeros(p.shape[:2]), np.zeros(p.shape[:2])
    extent = np.array([n * step for n, step in zip(r.z.shape[2:], r.steps, strict=True)])
    for b, c in np.ndindex(p.shape[:2]):
        label = moments(g[b, c])
        x = moments(p[b, c])[order - 1]
        lower, upper = bounds_of(r, bounds, "share", 1.0, label[order - 1], margin * label[1])
        if bounds is not None and unit == "mm":
            lower, upper = lower / extent, upper / extent
        table[b, c] = (np.maximum(x - upper, 0) ** 2 + np.maximum(lower - x, 0) ** 2).sum()
        counted[b, c] = r.valid[b].any() and (bounds is not None or g[b, c].sum() > 0)
    return reduce_table(r, table, reduction, counted)


def perimeters(r: Reading, u: Array, isotropic: bool, eps: float) -> Array:
    """Of maps (B, K, *S): forward differences, 0 at the end of an axis and next to a voxel that does not count."""
    slopes = []
    for axis, step in zip(r.axes, r.steps, strict=True):
        ahead = np.concatenate([np.delete(r.valid, 0, axis), np.take(r.valid, [-1], axis)], axis)
        slopes.append(np.diff(u, axis=axis, append=np.take(u, [-1], axis)) / step * (r.valid * ahead))
    if isotropic:
        lengths = np.sqrt(sum(slope**2 for slope in slopes) + eps) - np.sqrt(eps)
    else:
        lengths = sum(np.abs(slope) for slope in slopes)
    return np.asarray(lengths.sum(axis=r.axes) * spanned_volume(r))


@reference("compactness", upper=0.0, isotropic=True, min_size=1.0, eps=1e-8, include_background=None)
def compactness(
    r: Reading,
    upper: float,
    isotropic: bool,
    min_size: float,
    eps: float,
    include_background: bool | None,
    reduction: str,
) -> Array:
    """P^N / (N^N omega_N A^(N - 1)); classes that are too small leave the mean."""
    p, _ = scored(r, include_background)
    n = sum(edge > 1 for edge in p.shape[2:])
    ball = {0: 1.0, 1: 2.0, 2: math.pi, 3: 4 * math.pi / 3}[n]
    mass = p.sum(axis=r.axes)
    counted = (mass >= min_size) & (mass > 0)
    area = np.where(counted, mass, 1.0) * spanned_volume(r)
    quotient = perimeters(r, p, isotropic, eps) ** n / (n**n * ball * area ** (n - 1)) if n else 0 * mass
    return reduce_table(r, np.maximum(quotient - upper, 0), reduction, counted)


@reference("perimeter", isotropic=True, eps=1e-8, include_background=None)
def perimeter_difference(
    r: Reading, isotropic: bool, eps: float, include_background: bool | None, reduction: str
) -> Array:
    """El Jurdi 2021 with the length of the gradient."""
    p, g = scored(r, include_background)
    lengths = [perimeters(r, u, isotropic, eps) for u in (p, g)]
    volume = np.maximum(r.valid.sum(axis=(1, *r.axes)), 1)[:, None] * spanned_volume(r)
    return reduce_table(r, (lengths[0] - lengths[1]) ** 2 / volume, reduction)


@reference("star_shape", steps=6, include_background=None)
def star_shape(r: Reading, steps: int, hinge: bool, include_background: bool | None, reduction: str) -> Array:
    """Mirikharaji 2018; the hinge is ours."""
    p, g = scored(r, include_background)
    h = np.array(r.steps)

    def of(u: Array, y: Array, valid: Array) -> float:
        places = np.argwhere(y > 0)
        if not len(places):
            return 0.0
        center = places.mean(axis=0)
        ways = [np.array(o) for o in itertools.product(*([-1, 0, 1] if n > 1 else [0] for n in u.shape)) if any(o)]
        if not ways or not (np.abs(places - center) <= 0.5 + 1e-3).all(axis=1).any():
            return 0.0
        at = np.argwhere(valid)
        away = (center - at) * h
        cosines = np.stack([away @ (o * h) / np.linalg.norm(o * h) for o in ways], 1)
        step = np.array(ways)[np.argmax(cosines, axis=1)]
        total = 0.0
        for k in range(1, steps + 1):
            q = at + k * step
            there = k * np.linalg.norm(step * h, axis=1) <= np.linalg.norm(away, axis=1) + 1e-3 * h.min()
            there &= ((q >= 0) & (q < u.shape)).all(axis=1)
            here, other = tuple(at[there].T), tuple(q[there].T)
            if hinge:
                cost = np.maximum(u[here] - u[other], 0)
            else:
                cost = np.abs(y[here] - u[here]) * np.abs(u[here] - u[other]) * (y[here] == y[other])
            total += float((cost * valid[other]).sum())
        return total

    valid = r.valid[:, 0] > 0
    table = [
        [of(p[b, c], g[b, c], valid[b]) / max(valid[b].sum(), 1) for c in range(p.shape[1])] for b in range(len(p))
    ]
    return reduce_table(r, np.array(table), reduction)


@reference("convexity", offsets=(1, 2, 4, 8), include_background=None)
def convexity(r: Reading, offsets: Any, include_background: bool | None, reduction: str) -> Array:
    """The middle of a line is no lower than its lower end."""
    p, _ = scored(r, include_background)
    total, lines = np.zeros(p.shape[:2]), np.zeros((len(p), 1))
    middles = np.argwhere(np.ones(p.shape[2:]))
    for direction in itertools.product((-1, 0, 1), repeat=len(r.axes)):
        for radius in map(int, offsets) if direction > (0,) * len(r.axes) else ():
            step = radius * np.array(direction)
            inside = [((x >= 0) & (x < p.shape[2:])).all(axis=1) for x in (middles - step, middles + step)]
            at = middles[inside[0] & inside[1]]
            one, middle, other = ((..., *(at + side * step).T) for side in (-1, 0, 1))
            counted = r.valid[one] * r.valid[middle] * r.valid[other]
            total += (np.maximum(np.minimum(p[one], p[other]) - p[middle], 0) * counted).sum(axis=2)
            lines += counted.sum(axis=2)
    return reduce_table(r, total / np.maximum(lines, 1), reduction)


@reference("symmetry", axis=-1, include_background=None)
def symmetry(r: Reading, axis: int, swap: Any, include_background: bool | None, reduction: str) -> Array:
    """A mean over the voxels that count together with their mirror images."""
    p = r.p * r.valid
    twin = p.copy()
    for one, other in swap or ():
        twin[:, [one, other]] = p[:, [other, one]]
    place = axis if axis < 0 else axis + 2
    both = r.valid * np.flip(r.valid, place)
    count = both.sum(axis=(1, *r.axes))[:, None]
    values = (np.abs(p - np.flip(twin, place)) * both).sum(axis=r.axes) / np.maximum(count, 1)
    values = values[:, r.first(include_background) :]
    return reduce_table(r, values, reduction, np.broadcast_to(count > 0, values.shape))
