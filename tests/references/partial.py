"""Losses of partial labels (Shi 2021): classes without labels are background, and must not be where labeled ones are."""

from __future__ import annotations

from typing import Any

import numpy as np

from .entry import reference
from .reading import Array, Reading, Weight, reduce, weighted_mean
from .region import Table, uniform_dice
from .voxel import log_c


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


# At the uniform prediction all classes are labeled: the values are those of cross-entropy and Dice, and a class is
# excluded from the n - volume other voxels.


@reference("marginal_cross_entropy", log_c)
def marginal_cross_entropy(r: Reading, labeled: Any, weight: Weight, reduction: str) -> Array:
    table = known(r, labeled)
    # the sum of probabilities by the logits, which keeps small ones
    top = r.z.max(axis=1, keepdims=True)
    mass = np.exp(r.z - top)
    h = merge(r, labeled)[1]
    for b, c in np.argwhere(~table):
        mass[b, 0] += mass[b, c]
        mass[b, c] = 1
    log_q = np.log(mass) - np.log(np.exp(r.z - top).sum(axis=1, keepdims=True))
    w = r.per_class(weight)
    values, divisor = (x.sum(axis=1, keepdims=True) for x in (-w * h * log_q, w * h))
    return weighted_mean(r, values, divisor, reduction)


@reference("marginal_dice", uniform_dice)
def marginal_dice(r: Reading, labeled: Any, smooth_nr: float, smooth_dr: float, **formula_arguments: Any) -> Array:
    """The mean over the labeled classes of each sample; with batch over those that some sample has labels of."""
    table = Table(r, **formula_arguments)
    q, h, has_labels = merge(r, labeled)
    loss = 1 - (2 * table.sum(q * h) + smooth_nr) / (table.sum(q) + table.sum(h) + smooth_dr)
    counted = (has_labels * r.present()[:, None])[:, table.first :]
    return table.reduce(loss, counted.max(axis=0, keepdims=True) if table.batch else counted)


@reference("exclusion_dice", lambda volume, n, c: 2 * (n - volume) / c / (n / c + n - volume))
def exclusion_dice(r: Reading, labeled: Any, smooth_dr: float, **formula_arguments: Any) -> Array:
    table, e = Table(r, **formula_arguments), excluded(r, labeled)
    return table.reduce(2 * table.sum(r.p * e) / (table.sum(r.p) + table.sum(e) + smooth_dr))


@reference("exclusion_cross_entropy", lambda volume, n, c: c * (n - volume) / n * np.log(1 + 1 / c))
def exclusion_cross_entropy(r: Reading, labeled: Any, weight: Weight, reduction: str) -> Array:
    values = (r.per_class(weight) * excluded(r, labeled) * np.log1p(r.p)).sum(axis=1, keepdims=True)
    return reduce(values, r.valid, reduction)
