"""Lovász losses, from the definition: the growth of the Jaccard loss over the voxels in order of their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .reading import Array, Reading, read, reduce


def extension(errors: Array, g: Array) -> float:
    """sum m_(i) (J(i) - J(i - 1)) of the voxels of one class, J the Jaccard loss of the set of the first i."""
    order = np.argsort(-errors, kind="stable")
    g, errors = g[order], errors[order]
    missed, false = np.cumsum(g), np.cumsum(1 - g)
    volume = g.sum()
    loss = 1 - (volume - missed) / (volume + false)
    return float((np.maximum(errors, 0) * np.diff(loss, prepend=0.0)).sum())


def table(r: Reading, errors: Array, g: Array, per_image: bool) -> tuple[Array, Array, Array]:
    """Values and volumes per (image, class), and voxels per image; one image for the batch unless `per_image`."""
    images = [[b] for b in range(len(g))] if per_image else [list(range(len(g)))]
    values, volumes, voxels = [], [], []
    for image in images:
        kept = r.valid[image, 0] > 0
        voxels.append([kept.sum()])
        classes = [(errors[image, c][kept], g[image, c][kept]) for c in range(g.shape[1])]
        values.append([extension(m, t) if m.size else 0.0 for m, t in classes])
        volumes.append([t.sum() for _, t in classes])
    return np.array(values), np.array(volumes), np.array(voxels, dtype=float)


def lovasz_softmax(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    include_background: bool = True,
    classes: str = "present",
    per_image: bool = False,
    reduction: str = "mean",
) -> Array:
    """Berman 2018: the mean over the classes (that are there), then over images."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    first = 0 if include_background or r.p.shape[1] == 1 else 1
    g = r.g[:, first:]
    values, volumes, voxels = table(r, np.abs(g - r.p[:, first:]), g, per_image)
    counted = (volumes > 0) | (classes == "all")
    mean = (values * counted).sum(1, keepdims=True) / np.maximum(counted.sum(1, keepdims=True), 1)
    value = reduce(mean, voxels, reduction)
    return value.reshape(*mean.shape, *[1] * len(r.axes)) if reduction == "none" else value


def lovasz_hinge(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    per_image: bool = True,
    reduction: str = "mean",
) -> Array:
    """Yu 2015, Berman 2018: margins of the logits, with one class per voxel above that of the background."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    z, g = r.z, r.g
    if activation != "sigmoid" and z.shape[1] > 1:
        z, g = z[:, 1:] - z[:, [0]], g[:, 1:]
    values, _, voxels = table(r, 1 - z * (2 * g - 1), g, per_image)
    mean = values.mean(1, keepdims=True)
    value = reduce(mean, voxels, reduction)
    return value.reshape(*mean.shape, *[1] * len(r.axes)) if reduction == "none" else value


REFERENCES: dict[str, Callable[..., Array]] = {"lovasz_softmax": lovasz_softmax, "lovasz_hinge": lovasz_hinge}

# For a class that is there.
UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "lovasz_softmax": lambda volume, n, c: 1 - 1 / c,
    "lovasz_hinge": lambda volume, n, c: 1.0,
}
