"""Losses of windows, each window by itself."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from .entry import reference
from .reading import Array, Reading
from .voxel import binary_cross_entropy, cross_entropy, cross_entropy_voxels


class _Same:
    """An array that equals others of the same content, for a cache: along a gradient the target stays and so do windows."""

    def __init__(self, x: Array) -> None:
        self.x, self.content = x, (x.shape, x.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)


@lru_cache(maxsize=8)
def _windows(valid: _Same, value: _Same, window: int, sigma: float) -> tuple[Array, Array]:
    """Mean and standard deviation of every voxel's Gaussian window; an offset beyond the edge meets the edge."""
    half, x = window // 2, value.x
    shape = x.shape[2:]
    weights, values = [], []
    for offset in product(range(-half, half + 1), repeat=len(shape)):
        at = np.ix_(*(np.clip(np.arange(n) + o, 0, n - 1) for n, o in zip(shape, offset, strict=True)))
        near = (slice(None), slice(None), *at)
        weights.append(np.exp(-sum(o * o for o in offset) / (2 * sigma**2)) * valid.x[near])
        values.append(x[near])
    w = np.maximum(np.sum(weights, axis=0), 1e-300)
    mean = sum(a * v for a, v in zip(weights, values, strict=True)) / w
    return mean, np.sqrt(sum(a * (v - mean) ** 2 for a, v in zip(weights, values, strict=True)) / w)


@reference(
    "structural_similarity", window=3, sigma=1.5, stability=0.01, threshold=0.1, lambda_ce=0.5, lambda_structural=0.5
)
def structural_similarity(
    r: Reading,
    window: int,
    sigma: float,
    stability: float,
    threshold: float,
    lambda_ce: float,
    lambda_structural: float,
    reduction: str,
) -> Array:
    """Zhao 2019; e and f carry no gradient."""
    parts = []
    for x in (r.g, r.still.p):
        mean, deviation = _windows(_Same(r.valid), _Same(x), window, sigma)
        parts.append((x - mean + stability) / (deviation + stability))
    e = np.where(r.valid > 0, np.abs(parts[0] - parts[1]), 0.0)
    f = e > threshold * e.max()
    value = (e * f * binary_cross_entropy(r)).sum()
    if reduction == "mean":
        value = value / max(f.sum(), 1)
    return lambda_ce * cross_entropy(r, reduction=reduction) + lambda_structural * value


def _pool(x: Array, edge: int) -> Array:
    """Largest value of each cell of a grid that begins edge // 2 voxels before the first, without the rest at the end."""
    pad = edge // 2
    counts = [(n + 2 * pad - edge) // edge + 1 for n in x.shape]
    out = np.zeros(counts)
    for cell in np.ndindex(*counts):
        starts = [c * edge - pad for c in cell]
        out[cell] = x[tuple(slice(max(s, 0), s + edge) for s in starts)].max()
    return out


def _vectors(x: Array, radius: int, pool: int) -> Array:
    """(R, points) the neighborhoods of one map."""
    x = _pool(x, pool)
    edges = [min(radius, n) for n in x.shape]
    counts = [n - e + 1 for n, e in zip(x.shape, edges, strict=True)]
    offsets = np.ndindex(*edges)
    rows = [x[tuple(slice(o, o + n) for o, n in zip(offset, counts, strict=True))].ravel() for offset in offsets]
    return np.array(rows)


@reference("region_mutual_information", radius=3, pool=3, ridge=0.0005, lambda_ce=0.5, lambda_rmi=0.5)
def region_mutual_information(
    r: Reading, radius: int, pool: int, ridge: float, lambda_ce: float, lambda_rmi: float, reduction: str
) -> Array:
    """Zhao 2019 with the un-normalized covariances of the authors' code."""
    ce = (cross_entropy_voxels(r) * r.valid).sum()
    bound = 0.0
    for b in np.flatnonzero(r.present()):
        for c in range(r.p.shape[1]):
            g, p = (_vectors(x[b, c] * r.valid[b, 0], radius, pool) for x in (r.g, r.p))
            g, p = g - g.mean(axis=1, keepdims=True), p - p.mean(axis=1, keepdims=True)
            eye = ridge * np.eye(len(g))
            left = g @ g.T - g @ p.T @ np.linalg.solve(p @ p.T + eye, p @ g.T) + eye
            bound += 0.5 * np.linalg.slogdet(left)[1] / len(g)
    if reduction == "mean":
        ce, bound = ce / (r.valid.sum() + 1), bound / max(r.present().sum(), 1)
    return np.asarray(lambda_ce * ce + lambda_rmi * bound)
