"""Losses of the neighborhood of a boundary: erosions, balls, bands and contours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .reading import Array, Reading, read, reduce

Spacing = Sequence[float] | None


def on_reading(formula: Callable[..., Array]) -> Callable[..., Array]:
    """A formula of a `Reading`, called with logits and target."""

    @functools.wraps(formula)
    def full(
        input: Array,
        target: Any,
        activation: str | None,
        mask: Any = None,
        *,
        labels: bool = False,
        ignore_index: int | None = None,
        **arguments: Any,
    ) -> Array:
        r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
        return formula(r, **arguments)

    return full


def scored(r: Reading, include_background: bool | None) -> tuple[Array, Array]:
    """Probabilities and target of the scored classes, 0 where ignored; None: the background of regions only."""
    if include_background is None:
        include_background = r.activation == "sigmoid"
    first = 0 if include_background or r.p.shape[1] == 1 else 1
    return (r.p * r.valid)[:, first:], r.g[:, first:]


def table(values: Array, r: Reading, reduction: str) -> Array:
    """Reduction of a table (B | 1, K); a sample counts if one of its voxels does."""
    counted = r.present()[:, None] if len(values) == len(r.z) else np.array([[r.valid.any()]])
    if reduction == "none":
        values = values.reshape(*values.shape, *[1] * len(r.axes))
        counted = counted.reshape(*counted.shape, *[1] * len(r.axes))
    return reduce(values, counted, reduction)


def voxel_mean(x: Array, r: Reading, reduction: str) -> Array:
    voxels = np.maximum(r.valid.sum(axis=(1, *r.axes)), 1)[:, None]
    return table((x * r.valid).sum(axis=r.axes) / voxels, r, reduction)


def each(x: Array, f: Callable[[Array, Array], Array], r: Reading) -> Array:
    """`f(map, valid)` of every (sample, class)."""
    return np.array([[f(x[b, c], r.valid[b, 0] > 0) for c in range(x.shape[1])] for b in range(len(x))])


@on_reading
def hausdorff_er(
    r: Reading,
    *,
    alpha: float = 2.0,
    erosions: int = 10,
    norm: str = "rescale",
    include_background: bool | None = None,
    reduction: str = "mean",
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

    return voxel_mean(each((p - g) ** 2, of, r), r, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {
    "hausdorff_er": hausdorff_er,
}

UNIFORM: dict[str, Callable[[float, float, int], float]] = {}
