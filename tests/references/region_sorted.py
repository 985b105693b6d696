"""Lovász losses, from the definition: the growth of the Jaccard loss over the voxels in order of their errors."""

from __future__ import annotations

import numpy as np

from .entry import reference
from .reading import Array, Reading, reduce_table


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


@reference("lovasz_softmax", lambda volume, n, c: 1 - 1 / c, classes="present")
def lovasz_softmax(r: Reading, include_background: bool, classes: str, per_image: bool, reduction: str) -> Array:
    """Berman 2018: the mean over the classes (that are there), then over images."""
    first = r.first(include_background)
    g = r.g[:, first:]
    values, volumes, voxels = table(r, np.abs(g - r.p[:, first:]), g, per_image)
    counted = (volumes > 0) | (classes == "all")
    mean = (values * counted).sum(1, keepdims=True) / np.maximum(counted.sum(1, keepdims=True), 1)
    return reduce_table(r, mean, reduction, voxels)


@reference("lovasz_hinge", lambda volume, n, c: 1.0, per_image=True)
def lovasz_hinge(r: Reading, per_image: bool, reduction: str) -> Array:
    """Yu 2015, Berman 2018: margins of the logits, with one class per voxel above that of the background."""
    z, g = r.z, r.g
    if r.exclusive:
        z, g = z[:, 1:] - z[:, [0]], g[:, 1:]
    values, _, voxels = table(r, 1 - z * (2 * g - 1), g, per_image)
    return reduce_table(r, values.mean(1, keepdims=True), reduction, voxels)
