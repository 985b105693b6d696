"""Losses of connected components, every component with a mask of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .compound import dice_ce
from .entry import reference
from .reading import Array, Reading, Weight, reduce, reduce_table
from .region import Table
from .voxel import cross_entropy_voxels, log_c


def masks(r: Reading, b: int, c: int, faces: bool = False) -> list[Array]:
    """The components of a class of a sample, in the order of their first voxels; diagonal neighbors connected, or not."""
    structure = ndimage.generate_binary_structure(len(r.axes), 1) if faces else np.ones((3,) * len(r.axes))
    labels, count = ndimage.label(r.g[b, c] > 0.5, structure=structure)
    found = [labels == k for k in range(1, count + 1)]
    return sorted(found, key=lambda mask: int(np.argmax(mask.ravel())))


def rows(r: Reading, faces: bool = False) -> Iterator[tuple[int, int, list[Array]]]:
    """Sample, class and components, of the classes that can have some: not of the background."""
    for b in range(len(r.g)):
        for c in range(1 if r.exclusive else 0, r.g.shape[1]):
            yield b, c, masks(r, b, c, faces)


def dice_and_bce(
    r: Reading, b: int, c: int, mask: Array, domain: Array, smooth_nr: float, smooth_dr: float
) -> tuple[float, float]:
    """Soft Dice and mean binary cross-entropy of one component on the voxels of its domain."""
    p, log_p, log_q = (x[b, c][domain] for x in (r.p, r.log_p, r.log_q))
    g = mask[domain].astype(float)
    dice = 1 - (2 * (p * g).sum() + smooth_nr) / (p.sum() + g.sum() + smooth_dr)
    bce = -(np.where(g > 0, log_p, log_q)).mean()
    return dice, bce


def instances(
    r: Reading,
    domains: Callable[[int, list[Array]], list[Array]],
    smooth: tuple[float, float],
    weight: Sequence[float] | None,
    how: str,
) -> tuple[float, float]:
    """Both values, the mean over components, then over the (sample, class) that have some."""
    tables = []
    for b, c, found in rows(r):
        if not found:
            continue
        pairs = zip(found, domains(b, found), strict=True)
        values = [dice_and_bce(r, b, c, mask, domain, *smooth) for mask, domain in pairs]
        tables.append(np.mean(values, axis=0) * (1.0 if weight is None else weight[c]))
    if not tables:
        return 0.0, 0.0
    dice, bce = np.sum(tables, axis=0) / (1 if how == "sum" else len(tables))
    return dice, bce


@reference("blob", lambda_global=2.0, lambda_blob=1.0, lambda_dice=1.0, lambda_ce=1.0)
def blob(
    r: Reading,
    lambda_global: float,
    lambda_blob: float,
    lambda_dice: float,
    lambda_ce: float,
    smooth_nr: float,
    smooth_dr: float,
    weight: Weight,
    reduction: str,
    **formula_arguments: Any,
) -> Array:
    """Kofler 2023: a component on the volume without the other components of its class."""

    def domains(b: int, found: list[Array]) -> list[Array]:
        valid = r.valid[b, 0] > 0
        return [valid & (one | (sum(found) == 0)) for one in found]

    dice, bce = instances(r, domains, (smooth_nr, smooth_dr), weight, reduction)
    terms = {"lambda_dice": lambda_dice, "lambda_ce": lambda_ce, "smooth_nr": smooth_nr, "smooth_dr": smooth_dr}
    whole = dice_ce(r, weight=weight, reduction=reduction, **terms, **formula_arguments)
    return lambda_global * whole + lambda_blob * (lambda_dice * dice + lambda_ce * bce)


@reference("cc_dice_ce", lambda_global=1.0, lambda_cc=1.0, lambda_dice=1.0, lambda_ce=1.0)
def cc_dice_ce(
    r: Reading,
    lambda_global: float,
    lambda_cc: float,
    lambda_dice: float,
    lambda_ce: float,
    weight: Weight,
    reduction: str,
    **formula_arguments: Any,
) -> Array:
    """Bouteille 2026: a component on the voxels that are nearer to it than to the others, the first of equals."""

    def domains(b: int, found: list[Array]) -> list[Array]:
        far = [ndimage.distance_transform_edt(~m, sampling=r.steps) ** 2 for m in found]
        nearest = np.round(far, 9).argmin(axis=0)
        return [(nearest == k) & (r.valid[b, 0] > 0) for k in range(len(found))]

    dice, bce = instances(r, domains, (0.0, 0.0), weight, reduction)
    terms = {"lambda_dice": lambda_dice, "lambda_ce": lambda_ce, "weight": weight, "reduction": reduction}
    return lambda_global * dice_ce(r, **terms, **formula_arguments) + lambda_cc * (lambda_dice * dice + lambda_ce * bce)


def weights(r: Reading, clip: Sequence[float] | None, joint: bool) -> Array:
    """N / (groups |group|) of the sample's components and background; 0 where ignored.

    The background as a class of its own is one component.
    """
    w = np.zeros((len(r.g), 1 if joint else r.g.shape[1], *r.g.shape[2:]))
    for b in range(len(r.g)):
        valid = r.valid[b, 0] > 0
        classes = {c: found for sample, c, found in rows(r) if sample == b}
        if r.exclusive and not joint and (r.g[b, 0] > 0).any():
            classes[0] = [r.g[b, 0] > 0]
        for row in range(w.shape[1]):
            groups = [m for found in classes.values() for m in found] if joint else classes.get(row, [])
            outside = valid & (sum(groups) == 0)
            groups = [*groups, *([outside] if outside.any() else [])]
            for group in groups:
                w[b, row][group] = valid.sum() / (len(groups) * group.sum())
    if clip is not None:
        w = np.clip(w, *clip)
    return w * r.valid


@reference("inverse_weighted_cross_entropy", log_c)
def inverse_weighted_cross_entropy(r: Reading, clip: Sequence[float] | None, reduction: str) -> Array:
    """Shirokikh 2020; one class per voxel: all components and the background share the sample's weight."""
    return reduce(weights(r, clip, joint=r.exclusive) * cross_entropy_voxels(r), r.valid, reduction)


@reference("inverse_weighted_dice")
def inverse_weighted_dice(
    r: Reading, clip: Sequence[float] | None, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    table, w = Table(r, **formula_arguments), weights(r, clip, joint=False)
    squares = table.sum(w * r.p**2) + table.sum(w * r.g**2)
    return table.reduce(1 - (2 * table.sum(w * r.p * r.g) + smooth_nr) / (squares + smooth_dr))


@reference("component_tversky", alpha=0.3, beta=0.7, offset=5.0, background=0.01, faces=True)
def component_tversky(
    r: Reading,
    alpha: float,
    beta: float,
    offset: float,
    background: float,
    faces: bool,
    batch: bool,
    smooth_nr: float,
    smooth_dr: float,
    weight: Weight,
    reduction: str,
) -> Array:
    """Luu 2026, class by class; a (sample or batch, class) without a component leaves the mean."""
    first = 1 if r.exclusive else 0
    sums = np.zeros((3, *r.g[:, first:].shape[:2]))
    for b, c, found in rows(r, faces):
        w = r.valid[b, 0] * background
        for one in found:
            w[one] = 1 / (one.sum() + offset)
        p, g = r.p[b, c], r.g[b, c]
        sums[:, b, c - first] = [(w * x).sum() for x in (p * g, p * (1 - g), (1 - p) * g)]
    counted = (r.g * r.valid).sum(axis=r.axes)[:, first:]
    if batch:
        sums, counted = sums.sum(axis=1, keepdims=True), counted.sum(axis=0, keepdims=True)
    tp, fp, fn = sums
    table = 1 - (tp + smooth_nr) / (tp + alpha * fp + beta * fn + smooth_dr)
    return reduce_table(r, of_classes(r, weight, first) * table, reduction, counted)


@reference("component_mil", faces=True)
def component_mil(r: Reading, faces: bool, weight: Weight, reduction: str) -> Array:
    """Luu 2026: the surest voxel of each component, without a floor."""
    first = 1 if r.exclusive else 0
    table, counted = np.zeros((2, *r.g[:, first:].shape[:2]))
    for b, c, found in rows(r, faces):
        if found:
            table[b, c - first] = np.mean([-r.log_p[b, c][one].max() for one in found])
            counted[b, c - first] = 1
    return reduce_table(r, of_classes(r, weight, first) * table, reduction, counted)


def of_classes(r: Reading, weight: Weight, first: int) -> Array:
    """Weights of the classes from the first one that can have components on, (1, K)."""
    return r.per_class(weight).reshape(1, -1)[:, first:]
