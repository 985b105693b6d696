"""Losses of centerlines: soft skeletons by filters of SciPy, hard ones by scikit-image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .boundary_local import each, scored
from .compound import dice_of_scored
from .entry import reference
from .reading import Array, Reading, reduce, spanned
from .region import Table, dice
from .voxel import cross_entropy


def soft_skeletons(x: Array, r: Reading, iter_: int, use_spacing: bool) -> Array:
    """Shit 2021, algorithm 1, of maps (B, K, *S); with spacing an axis is left out of steps that would go too far."""
    steps = r.steps if use_spacing else (1.0,) * len(r.axes)
    finest = min(spanned(x.shape[2:], steps))
    walked = [[math.floor(j * finest / step + 0.5) for step in steps] for j in range(iter_ + 2)]
    elements = [[b > a for a, b in zip(*walked[j : j + 2], strict=True)] for j in range(iter_ + 1)]

    def of(u: Array, valid: Array) -> Array:
        def erode(u: Array, element: Sequence[bool]) -> Array:
            u = np.where(valid, u, np.inf)
            lines = [np.array([3 if a == b else 1 for b in range(u.ndim)]) for a in range(u.ndim) if element[a]]
            found = [ndimage.minimum_filter(u, line, mode="constant", cval=np.inf) for line in lines]
            return np.where(valid, np.min(found, axis=0), 0)

        def opened(u: Array, element: Sequence[bool]) -> Array:
            box = [3 if moves else 1 for moves in element]
            u = np.where(valid, erode(u, element), -np.inf)
            return np.where(valid, ndimage.maximum_filter(u, box, mode="constant", cval=-np.inf), 0)

        skeleton = np.maximum(u - opened(u, elements[0]), 0)
        for element, further in itertools.pairwise(elements):
            u = erode(u, element)
            lost = np.maximum(u - opened(u, further), 0)
            skeleton = skeleton + np.maximum(lost - skeleton * lost, 0)
        return skeleton * valid

    return each(x, of, r)


@reference("soft_cldice", iter_=3, smooth_nr=1.0, smooth_dr=1.0, smooth=1e-4, per_class=True)
def soft_cldice(
    r: Reading,
    iter_: int,
    smooth_nr: float,
    smooth_dr: float,
    smooth: float,
    per_class: bool,
    use_spacing: bool,
    **scoring: Any,
) -> Array:
    """Shit 2021, with the smoothing of MONAI's code."""
    table = Table(r, **scoring)
    p, g = scored(r, table.include_background)
    line_p, line_g = (soft_skeletons(x, r, iter_, use_spacing) for x in (p, g))

    def total(x: Array) -> Array:
        sums = table.sum(x)
        return sums if per_class else sums.sum(axis=1, keepdims=True)

    precision = (total(line_p * g) + smooth_nr) / (total(line_p) + smooth_dr)
    sensitivity = (total(line_g * p) + smooth_nr) / (total(line_g) + smooth_dr)
    return table.reduce(1 - 2 * precision * sensitivity / (precision + sensitivity + smooth))


@reference("dice_cldice", alpha=0.5, iter_=3, smooth_nr=1.0, smooth_dr=1.0, smooth=0.0, per_class=True)
def dice_cldice(
    r: Reading,
    alpha: float,
    iter_: int,
    smooth: float,
    per_class: bool,
    use_spacing: bool,
    squared_pred: bool,
    jaccard: bool,
    **common: Any,
) -> Array:
    """Shit 2021, equation 4."""
    lines = soft_cldice(r, iter_=iter_, smooth=smooth, per_class=per_class, use_spacing=use_spacing, **common)
    return (1 - alpha) * dice(r, squared_pred=squared_pred, jaccard=jaccard, **common) + alpha * lines


@reference("cl_ce", iter_=3)
def cl_ce(r: Reading, iter_: int, normalize: bool, detach: bool, use_spacing: bool, reduction: str) -> Array:
    """The code of Acebes 2024: all foreground classes share the skeleton of a voxel."""
    p, g = scored(r, None)
    if detach:
        p, _ = scored(r.still, None)
    lines = [soft_skeletons(x, r, iter_, use_spacing) for x in (g, p)]
    values = -r.g * r.log_p
    if r.exclusive:
        lines, values = [x.sum(axis=1, keepdims=True) for x in lines], values.sum(axis=1, keepdims=True)
    else:
        values = values - (1 - r.g) * r.log_q
    if normalize:
        voxels = r.valid.sum() * values.shape[1]
        lines = [x * voxels / x.sum() if x.sum() > 0 else x for x in lines]
    return reduce((lines[0] + lines[1]) * values, r.valid, reduction)


@reference("cb_dice", iter_=3, smooth_nr=1.0, smooth_dr=1.0)
def cb_dice(
    r: Reading, iter_: int, use_spacing: bool, smooth_nr: float, smooth_dr: float, **formula_arguments: Any
) -> Array:
    """The code of Shi 2024, with the larger depth off the other centerline."""
    table = Table(r, include_background=None, **formula_arguments)
    (p, g), (still, _) = scored(r, None), scored(r.still, None)
    axes = sum(n > 1 for n in p.shape[2:])

    def weights(mask: Array) -> tuple[Array, Array, Array]:
        """Skeleton, depth and thinness."""
        line = soft_skeletons(mask, r, iter_, use_spacing)

        def depth(pair: Array, valid: Array) -> Array:
            inside, on_line = pair > 0, pair > 1
            if not on_line.any():
                return np.zeros(pair.shape)
            away = ndimage.distance_transform_edt(inside | ~valid, r.steps if use_spacing else None)
            away = np.where(inside, away, 0).astype(np.float32).astype(float)
            widest, thinnest = away[on_line].max(), away[on_line].min()
            thin = np.where(on_line, (widest - away + thinnest) / widest, 0.0) ** max(axes - 1, 1)
            return np.minimum(away, widest) / widest + 1j * thin

        both = each(mask + (line > 0), depth, r)
        return line, both.real, both.imag

    (line_p, depth_p, thin_p), (line_g, depth_g, thin_g) = (weights((x > 0.5).astype(float)) for x in (still, g))
    depth_p, thin_p = depth_p * p, thin_p * p
    larger = np.maximum(depth_p, depth_g)
    precision = (table.sum(thin_p * depth_g) + smooth_nr) / (
        table.sum(thin_p * np.where(line_g > 0, depth_g, larger)) + smooth_dr
    )
    sensitivity = (table.sum(thin_g * depth_p) + smooth_nr) / (
        table.sum(thin_g * np.where(line_p > 0, depth_p, larger)) + smooth_dr
    )
    return table.reduce(1 - 2 * precision * sensitivity / (precision + sensitivity))


def tubes(r: Reading, radius: int, radius_mm: float | None, per_class: bool) -> Array:
    """Kirchhoff 2024, of the foreground classes: skeletons by scikit-image, grown within their class."""
    from skimage.morphology import skeletonize

    _, g = scored(r, None)
    masks = (g > 0.5) & (r.valid > 0)
    lined = masks if per_class else masks.any(axis=1, keepdims=True)

    def grown(line: Array) -> Array:
        if radius_mm is not None:
            if not line.any():
                return line
            return ndimage.distance_transform_edt(~line, sampling=r.steps) <= radius_mm
        cross = ndimage.generate_binary_structure(line.ndim, 1)
        return ndimage.binary_dilation(line, cross, radius) if radius else line

    def thinned(mask: Array) -> Array:
        plane = mask.squeeze() if mask.squeeze().ndim > 1 else mask
        return (skeletonize(plane) > 0).reshape(mask.shape)

    lines = np.array([[grown(thinned(mask)) for mask in sample] for sample in lined])
    return (lines & masks).astype(float)


@reference("skeleton_recall", radius=2, per_class=True)
def skeleton_recall(
    r: Reading,
    radius: int,
    radius_mm: float | None,
    per_class: bool,
    smooth_nr: float,
    smooth_dr: float,
    **scoring: Any,
) -> Array:
    """Kirchhoff 2024; a class without a tube leaves the mean."""
    table = Table(r, include_background=None, **scoring)
    p, _ = scored(r, None)
    k = tubes(r, radius, radius_mm, per_class)
    met, total = table.sum(k * p), table.sum(k)
    recall = (met + smooth_nr) / np.where(total > 0, total + smooth_dr, np.inf)
    return table.reduce(1 - recall, (total > 0).astype(float))


@reference(
    "dice_ce_skeleton_recall",
    lambda_dice=1.0,
    lambda_ce=1.0,
    lambda_recall=1.0,
    radius=2,
    per_class=True,
    label_smoothing=0.0,
)
def dice_ce_skeleton_recall(
    r: Reading,
    lambda_dice: float,
    lambda_ce: float,
    lambda_recall: float,
    radius: int,
    radius_mm: float | None,
    per_class: bool,
    weight: Any,
    label_smoothing: float,
    reduction: str,
    **overlap: Any,
) -> Array:
    """Kirchhoff 2024: the default loss of nnU-Net plus the recall."""
    ce = cross_entropy(r, weight=weight, label_smoothing=label_smoothing, reduction=reduction)
    shared = {name: overlap[name] for name in ("batch", "smooth_nr", "smooth_dr")}
    recall = skeleton_recall(r, radius=radius, radius_mm=radius_mm, per_class=per_class, reduction=reduction, **shared)
    region = dice_of_scored(r, weight, reduction=reduction, **overlap)
    return lambda_dice * region + lambda_ce * ce + lambda_recall * recall
