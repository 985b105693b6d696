"""Losses of connected components, every component with a mask of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from . import compound, region
from .reading import Array, Reading, read, reduce
from .voxel import binary_cross_entropy, voxel_cross_entropy

GLOBAL = ("labels", "ignore_index", "reduction", "include_background", "batch", "smooth_nr", "smooth_dr", "weight")


def exclusive(r: Reading) -> bool:
    """One class per voxel: channel 0 is the background and has no components."""
    return r.activation != "sigmoid" and r.p.shape[1] > 1


def masks(r: Reading, b: int, c: int) -> list[Array]:
    """The components of a class of a sample, in the order of their first voxels, diagonal neighbors connected."""
    labels, count = ndimage.label(r.g[b, c] > 0.5, structure=np.ones((3,) * len(r.axes)))
    found = [labels == k for k in range(1, count + 1)]
    return sorted(found, key=lambda mask: int(np.argmax(mask.ravel())))


def rows(r: Reading) -> Iterator[tuple[int, int, list[Array]]]:
    """Sample, class and components, of the classes that can have some."""
    for b in range(len(r.g)):
        for c in range(1 if exclusive(r) else 0, r.g.shape[1]):
            yield b, c, masks(r, b, c)


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


def blob(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    lambda_global: float = 2.0,
    lambda_blob: float = 1.0,
    lambda_dice: float = 1.0,
    lambda_ce: float = 1.0,
    **arguments: Any,
) -> Array:
    """Kofler 2023: a component on the volume without the other components of its class."""
    r = read(input, target, activation, mask, labels=arguments["labels"], ignore_index=arguments.get("ignore_index"))

    def domains(b: int, found: list[Array]) -> list[Array]:
        valid = r.valid[b, 0] > 0
        return [valid & (one | (sum(found) == 0)) for one in found]

    smooth = (arguments.get("smooth_nr", 1e-5), arguments.get("smooth_dr", 1e-5))
    how = arguments.get("reduction", "mean")
    dice, bce = instances(r, domains, smooth, arguments.get("weight"), how)
    whole = compound.dice_ce(
        input, target, activation, mask, lambda_dice=lambda_dice, lambda_ce=lambda_ce, **_global(arguments)
    )
    return lambda_global * whole + lambda_blob * (lambda_dice * dice + lambda_ce * bce)


def cc_dice_ce(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    lambda_global: float = 1.0,
    lambda_cc: float = 1.0,
    lambda_dice: float = 1.0,
    lambda_ce: float = 1.0,
    spacing: Sequence[float] | None = None,
    **arguments: Any,
) -> Array:
    """Bouteille 2026: a component on the voxels that are nearer to it than to the others, the first of equals."""
    r = read(input, target, activation, mask, labels=arguments["labels"], ignore_index=arguments.get("ignore_index"))

    def domains(b: int, found: list[Array]) -> list[Array]:
        far = [ndimage.distance_transform_edt(~m, sampling=spacing) ** 2 for m in found]
        nearest = np.round(far, 9).argmin(axis=0)
        return [(nearest == k) & (r.valid[b, 0] > 0) for k in range(len(found))]

    dice, bce = instances(r, domains, (0.0, 0.0), arguments.get("weight"), arguments.get("reduction", "mean"))
    whole = compound.dice_ce(
        input, target, activation, mask, lambda_dice=lambda_dice, lambda_ce=lambda_ce, **_global(arguments)
    )
    return lambda_global * whole + lambda_cc * (lambda_dice * dice + lambda_ce * bce)


def _global(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in GLOBAL if name in arguments}


def weights(r: Reading, clip: Sequence[float] | None, joint: bool) -> Array:
    """N / (groups |group|) of the sample's components and background; 0 where ignored.

    The background as a class of its own is one component.
    """
    w = np.zeros((len(r.g), 1 if joint else r.g.shape[1], *r.g.shape[2:]))
    for b in range(len(r.g)):
        valid = r.valid[b, 0] > 0
        classes = {c: found for sample, c, found in rows(r) if sample == b}
        if exclusive(r) and not joint and (r.g[b, 0] > 0).any():
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


def inverse_weighted_cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    clip: Sequence[float] | None = None,
    reduction: str = "mean",
) -> Array:
    """Shirokikh 2020; one class per voxel: all components and the background share the sample's weight."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    joint = exclusive(r)
    values = voxel_cross_entropy(r, None, 0.0)[0] if joint else binary_cross_entropy(r, None)
    return reduce(weights(r, clip, joint) * values, r.valid, reduction)


def inverse_weighted_dice(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    clip: Sequence[float] | None = None,
    include_background: bool = True,
    batch: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    weight: Sequence[float] | None = None,
    reduction: str = "mean",
) -> Array:
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    w = weights(r, clip, False)

    def total(x: Array) -> Array:
        return region.table_sum(r, w * x, include_background=include_background, batch=batch)

    loss = 1 - (2 * total(r.p * r.g) + smooth_nr) / (total(r.p**2) + total(r.g**2) + smooth_dr)
    return region.table_reduce(r, loss, weight, batch, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {
    "blob": blob,
    "cc_dice_ce": cc_dice_ce,
    "inverse_weighted_cross_entropy": inverse_weighted_cross_entropy,
    "inverse_weighted_dice": inverse_weighted_dice,
}

UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "inverse_weighted_cross_entropy": lambda volume, n, c: np.log(c),
}
