"""Energies of a prediction: length, homogeneity, elastic interaction; weights and smoothness of layers."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .boundary import voxel_mean
from .boundary_local import covering, each, largest, scored, smallest
from .entry import reference
from .multi_task import bright_middle
from .reading import Array, Reading, reduce, reduce_table
from .voxel import cross_entropy_voxels


@reference(
    "active_contour",
    w_length=1.0,
    w_region=1.0,
    mu=1.0,
    c_in=1.0,
    c_out=0.0,
    eps=1e-8,
    include_background=None,
    fit="target",
)
def active_contour(
    r: Reading,
    w_length: float,
    w_region: float,
    mu: float,
    c_in: float,
    c_out: float,
    eps: float,
    include_background: bool | None,
    fit: str,
    reduction: str,
    image: Array | None = None,
) -> Array:
    """Chen 2019; differences at one voxel, of voxels that count.  Of an image the variances inside and outside."""
    p, g = scored(r, include_background)
    image = bright_middle(r.z) if image is None else image

    def length(u: Array, valid: Array) -> Array:
        values = []
        long = [axis for axis, n in enumerate(u.shape) if n > 1]
        for at in np.ndindex(*(max(n - 1, 1) for n in u.shape)):
            if not valid[at]:
                continue
            square = 0.0
            for axis in long:
                ahead = tuple(x + (a == axis) for a, x in enumerate(at))
                square += ((u[ahead] - u[at]) / r.steps[axis]) ** 2 if valid[ahead] else 0.0
            values.append(np.sqrt(square + eps))
        return np.asarray(np.mean(values) if values else 0.0)

    region = mu * p * (c_in - g) ** 2 + (1 - p) * (c_out - g) ** 2
    if fit == "image":
        region = np.zeros_like(p)
        for b, k, channel in np.ndindex(*p.shape[:2], image.shape[1]):
            valid, x, u = r.valid[b, 0] > 0, image[b, channel], p[b, k]
            for share, factor in ((u, mu), (1 - u, 1.0)):
                mean = (share * x)[valid].sum() / (share[valid].sum() + eps)
                region[b, k] += factor * share * (mean - x) ** 2 / image.shape[1]
    return w_length * reduce_table(r, each(p, length, r), reduction) + w_region * voxel_mean(r, region, reduction)


@reference("mumford_shah", w_tv=0.001, eps=1e-6)
def mumford_shah(
    r: Reading,
    fit: str | None,
    w_tv: float,
    eps: float,
    include_background: bool,
    reduction: str,
    image: Array | None = None,
) -> Array:
    """Kim 2020 per voxel; the target where there is no image."""
    p, _ = scored(r, include_background)
    if image is None:
        image = bright_middle(r.z) if fit == "image" else r.g
    values = np.zeros((len(p), 1))
    for b in range(len(p)):
        valid = r.valid[b, 0] > 0
        for u in p[b]:
            for x in image[b]:
                mean = (x * u)[valid].sum() / (u[valid].sum() + eps)
                values[b] += ((x - mean) ** 2 * u)[valid].sum()
            for axis, step in enumerate(r.steps):
                both = np.minimum(*(np.delete(valid, end, axis) for end in (0, -1)))
                values[b] += w_tv * (np.abs(np.diff(u, axis=axis)) * both).sum() / step
        values[b] /= max(valid.sum(), 1)
    return reduce_table(r, values, reduction)


@reference("elastic_interaction", alpha=1.0, periodic=True, include_background=None)
def elastic_interaction(
    r: Reading, alpha: float, periodic: bool, include_background: bool | None, reduction: str
) -> Array:
    """Lan 2020 with the sign that has its minimum at the target."""
    p, g = scored(r, include_background)
    shape = p.shape[2:]
    size = [n if periodic or n == 1 else 2 * n for n in shape]
    unit = [1 / n for n in shape] if r.spacing is None else r.spacing
    k = np.sqrt(sum(x**2 for x in np.ix_(*(np.fft.fftfreq(n, u) for n, u in zip(size, unit, strict=True)))))

    def energy(d: Array, valid: Array) -> Array:
        return np.asarray((k * np.abs(np.fft.fftn(d, size, range(d.ndim))) ** 2).sum() / k.size / max(valid.sum(), 1))

    return reduce_table(r, each(alpha * p - g, energy, r), reduction)


@reference("contour_aware", k=5.0, size=5, sigma=1.0)
def contour_aware(r: Reading, k: float, size: int, sigma: float, reduction: str) -> Array:
    """Chen 2021; the Gaussian of the voxels that count."""
    steps = r.steps
    wide = covering(size // 2 * min(steps), steps) if size > 1 else [0] * len(steps)
    foreground = r.g[:, 1:] if r.exclusive else r.g
    weights = np.ones_like(r.valid)
    for b in range(len(r.g)):
        valid = r.valid[b, 0] > 0
        ring = np.max([largest(g, wide, valid) - smallest(g, wide, valid) for g in foreground[b]], axis=0) * valid
        share = valid.astype(float)
        for axis, (n, s) in enumerate(zip(wide, steps, strict=True)):
            kernel = np.exp(-((np.arange(-n, n + 1) * s / min(steps)) ** 2) / (2 * sigma**2))
            ring, share = (ndimage.correlate1d(x, kernel / kernel.sum(), axis, mode="nearest") for x in (ring, share))
        weights[b, 0] += k * np.where(valid, ring / np.maximum(share, 1e-300), 0)
    return reduce(cross_entropy_voxels(r) * weights, r.valid, reduction)


@reference("layer_smoothness", window=5, axis=-1, lambda_ce=1.0, lambda_smooth=100.0, include_background=None)
def layer_smoothness(
    r: Reading,
    window: int,
    axis: int,
    lambda_ce: float,
    lambda_smooth: float,
    include_background: bool | None,
    reduction: str,
) -> Array:
    """Gerl 2020 by the authors' code, per voxel."""
    p, _ = scored(r, include_background)
    p, valid = (np.moveaxis(x, axis % len(r.axes) + 2, -1) for x in (p, r.valid))
    rough, half = 0.0, window // 2
    for at in range(half, p.shape[-1] - half):
        around = slice(at - half, at + half + 1)
        counted = valid[..., around].min(axis=-1)
        rough += (np.abs((p[..., around].mean(axis=-1) + 1) / (p[..., at] + 1) - 1) * counted).sum()
    ce = cross_entropy_voxels(r) * r.valid
    voxels = max(r.valid.sum(), 1)
    if reduction == "sum":
        return np.asarray(lambda_ce * ce.sum() + lambda_smooth * rough)
    return np.asarray(lambda_ce * ce.sum() / voxels / ce.shape[1] + lambda_smooth * rough / voxels / p.shape[1])
