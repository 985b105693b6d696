"""Losses of partial labels (Shi 2021): classes without labels are background, and must not be where labeled ones are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import region
from .reading import Array, Reading, read, reduce
from .voxel import class_factor


def known(r: Reading, labeled: Any) -> Array:
    """(B, C) whether a class is labeled, from indices or from such a table; the background is."""
    batch, classes = r.g.shape[:2]
    table = np.ones((batch, classes), dtype=bool)
    if labeled is not None and np.ndim(labeled) == 2:
        table = np.array(labeled, dtype=bool)
    elif labeled is not None:
        table[:] = [c in labeled for c in range(classes)]
    table[:, 0] = True
    return table


def merge(r: Reading, labeled: Any) -> tuple[Array, Array, Array]:
    """Prediction and target, the others' channels added to channel 0 and empty, and what is labeled."""
    table = known(r, labeled)
    q, h = r.p.copy(), r.g.copy()
    for b, c in np.argwhere(~table):
        for x in (q, h):
            x[b, 0] += x[b, c]
            x[b, c] = 0
    return q, h, table


def excluded(r: Reading, labeled: Any) -> Array:
    """e (B, C, *S)."""
    _, h, table = merge(r, labeled)
    e = 1 - h
    organs = h[:, 1:].sum(axis=1)
    for b in range(len(h)):
        for c in range(h.shape[1]):
            if c == 0 or not table[b, c]:
                e[b, c] = organs[b]
    return e * r.valid


def marginal_cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    labeled: Any = None,
    weight: Sequence[float] | None = None,
    reduction: str = "mean",
) -> Array:
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    table = known(r, labeled)
    # the sum of probabilities by the logits, which keeps small ones
    top = r.z.max(axis=1, keepdims=True)
    mass = np.exp(r.z - top)
    h = merge(r, labeled)[1]
    for b, c in np.argwhere(~table):
        mass[b, 0] += mass[b, c]
        mass[b, c] = 1
    log_q = np.log(mass) - np.log(np.exp(r.z - top).sum(axis=1, keepdims=True))
    w = class_factor(weight, r)
    values, divisor = (-w * h * log_q).sum(axis=1, keepdims=True), (w * h).sum(axis=1, keepdims=True)
    values, divisor = values * r.valid, divisor * r.valid
    if reduction != "mean":
        return reduce(values, r.valid, reduction)
    return values.sum() / divisor.sum() if divisor.sum() > 0 else np.zeros(())


def marginal_dice(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    labeled: Any = None,
    include_background: bool = True,
    batch: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    """The mean over the labeled classes of each sample; with batch over those that some sample has labels of."""
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    q, h, table = merge(r, labeled)

    def total(x: Array) -> Array:
        return region.table_sum(r, x, include_background=include_background, batch=batch)

    loss = 1 - (2 * total(q * h) + smooth_nr) / (total(q) + total(h) + smooth_dr)
    counted = table * r.present()[:, None]
    counted = counted if include_background else counted[:, 1:]
    if batch:
        counted = counted.any(axis=0, keepdims=True)
    if weight is not None:
        loss = loss * np.broadcast_to(np.asarray(weight, dtype=float), loss.shape[1:])
    value = reduce(loss, counted.astype(float), reduction)
    return value.reshape(*loss.shape, *[1] * len(r.axes)) if reduction == "none" else value


def exclusion_dice(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    labeled: Any = None,
    include_background: bool = True,
    batch: bool = False,
    smooth_dr: float = 1e-5,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    e = excluded(r, labeled)

    def total(x: Array) -> Array:
        return region.table_sum(r, x, include_background=include_background, batch=batch)

    value = 2 * total(r.p * e) / (total(r.p) + total(e) + smooth_dr)
    return region.table_reduce(r, value, weight, batch, reduction)


def exclusion_cross_entropy(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    labeled: Any = None,
    weight: Sequence[float] | float | None = None,
    reduction: str = "mean",
) -> Array:
    r = read(input, target, activation, mask, labels=labels, ignore_index=ignore_index)
    factor = class_factor(weight, r)
    values = (factor * excluded(r, labeled) * np.log1p(r.p)).sum(axis=1, keepdims=True)
    return reduce(values, r.valid, reduction)


REFERENCES: dict[str, Callable[..., Array]] = {
    "marginal_cross_entropy": marginal_cross_entropy,
    "marginal_dice": marginal_dice,
    "exclusion_dice": exclusion_dice,
    "exclusion_cross_entropy": exclusion_cross_entropy,
}

# All classes labeled: those of cross-entropy and Dice; a class is excluded from the n - volume other voxels.
UNIFORM: dict[str, Callable[[float, float, int], float]] = {
    "marginal_cross_entropy": lambda volume, n, c: np.log(c),
    "marginal_dice": region.UNIFORM["dice"],
    "exclusion_dice": lambda volume, n, c: 2 * (n - volume) / c / (n / c + n - volume),
    "exclusion_cross_entropy": lambda volume, n, c: c * (n - volume) / n * np.log(1 + 1 / c),
}
