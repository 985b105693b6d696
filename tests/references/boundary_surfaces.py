"""Losses of distances to a surface, with every distance measured by brute force, as in `boundary`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .boundary import Mask, by_class, edge, signed
from .boundary_energies import cross_entropy_voxels
from .boundary_local import Spacing, covering, each, folded, inner, largest, on_reading, scored, steps_of, table
from .reading import Array, Reading, reduce


def surface_maps(
    r: Reading, spacing: Spacing, first: int, mode: str, empty: str = "zero", normalize: bool = False
) -> Array:
    """Signed distances of the classes from ``first`` on, (B, K, *S)."""
    steps = np.array(steps_of(r, spacing))

    def of(b: int, c: int) -> Array:
        return signed(r.g[b, c] > 0.5, r.valid[b, 0] > 0, steps, mode, empty=empty, normalize=normalize)

    return by_class(r, of)[:, first:]


def foreground(r: Reading, include_background: bool | None) -> int:
    """First scored channel; None: that of regions only."""
    scores_it = r.activation == "sigmoid" if include_background is None else include_background
    return 0 if scores_it or r.p.shape[1] == 1 else 1


@on_reading
def generalized_surface(
    r: Reading,
    *,
    spacing: Spacing = None,
    mode: str = "maurer",
    empty: str = "zero",
    per_class: bool = False,
    weight: Sequence[float] | None = None,
    include_background: bool | None = None,
    batch: bool = False,
    reduction: str = "mean",
) -> Array:
    """Celaya 2023, as printed: 1 - sum w (D (1 - (g + s)))^2 / sum w D^2."""
    first = foreground(r, include_background)
    distance = surface_maps(r, spacing, first, mode, empty)
    p, g = scored(r, first == 0)
    w = np.ones(p.shape[1]) if weight is None else np.array(weight, dtype=float)[first:]
    kept = folded((distance * (1 - (g + p))) ** 2, r, batch)
    whole = folded(distance**2, r, batch)
    if per_class:
        ratio = np.divide(kept, whole, out=np.ones_like(kept), where=whole > 0)
        values, there = (x.reshape(*x.shape, *[1] * len(r.axes)) for x in (w * (1 - ratio), whole > 0))
        return reduce(values, there, reduction)
    kept, whole = ((w * x).sum(axis=1, keepdims=True) for x in (kept, whole))
    return table(1 - np.divide(kept, whole, out=np.ones_like(kept), where=whole > 0), r, reduction)


@on_reading
def surface_dice(
    r: Reading,
    *,
    spacing: Spacing = None,
    tolerance: float | None = None,
    include_background: bool | None = None,
    batch: bool = False,
    smooth_nr: float = 1e-5,
    smooth_dr: float = 1e-5,
    reduction: str = "mean",
) -> Array:
    """MIST: Dice of the dilated contours."""
    steps = steps_of(r, spacing)
    box = covering(1.25 * max(steps) if tolerance is None else tolerance, steps)
    p, g = (
        each(inner(u, [1] * len(steps), r), lambda x, valid: largest(x, box, valid) * valid, r)
        for u in scored(r, include_background)
    )
    met, both = folded(p * g, r, batch), folded(p + g, r, batch)
    return table(1 - (2 * met + smooth_nr) / (both + smooth_dr), r, reduction)


def contour_distance(predicted: Mask, target: Mask, valid: Mask, distance: Array) -> float | None:
    """Mean distance of the predicted contour; None where one of the contours is missing."""
    drawn = edge(predicted & valid, ~predicted & valid, False)
    if not drawn.any() or not edge(target & valid, ~target & valid, False).any():
        return None
    return float(distance[drawn].mean())


@on_reading
def shape_aware(
    r: Reading,
    *,
    spacing: Spacing = None,
    w_shape: float = 1.0,
    domain: str = "mismatch",
    reduction: str = "mean",
    at: Array | None = None,
) -> Array:
    """Al Arif 2017: CE + w mean over the wrong voxels of E CE; ``at``: logits that prediction and E are taken from."""
    value = cross_entropy_voxels(r)
    exclusive = r.activation != "sigmoid" and r.p.shape[1] > 1
    z = r.p if at is None else np.where(r.valid > 0, at, 0.0)
    if exclusive:
        predicted = z.argmax(axis=1)[:, None] == np.arange(z.shape[1]).reshape(1, -1, *[1] * len(r.axes))
    else:
        predicted = z > 0.5 if at is None else z > 0
    target, first = r.g > 0.5, int(exclusive)
    distance = np.abs(surface_maps(r, spacing, 0, "inner"))
    error = np.zeros((len(z), 1 if exclusive else z.shape[1]))
    for b in range(len(z)):
        found = [
            contour_distance(predicted[b, c], target[b, c], r.valid[b, 0] > 0, distance[b, c])
            for c in range(first, z.shape[1])
        ]
        known = [x for x in found if x is not None]
        error[b] = np.mean(known) if exclusive and known else [x or 0.0 for x in found] if not exclusive else 0.0
    wrong = (predicted != target).any(axis=1, keepdims=True) if exclusive else predicted != target
    factor = error.reshape(*error.shape, *[1] * len(r.axes)) * (np.ones_like(wrong) if domain == "all" else wrong)
    return reduce(value * (1 + w_shape * factor), r.valid, reduction)


@on_reading
def signed_distance_regression(
    r: Reading,
    *,
    spacing: Spacing = None,
    w_absolute: float = 1.0,
    w_product: float = 1.0,
    w_square: float = 0.0,
    head: str = "probability",
    mode: str = "swdm",
    empty: str = "zero",
    include_background: bool = True,
    batch: bool = False,
    reduction: str = "mean",
) -> Array:
    """Xue 2020: mean |y - p| - sum y p / sum (y p + y^2 + p^2), the fraction's least value added."""
    first = foreground(r, include_background)
    y = surface_maps(r, spacing, first, mode, empty, normalize=True)
    p = (np.tanh(r.z) if head == "tanh" else 1 - 2 * r.p)[:, first:]
    known = (np.abs(y).sum(axis=r.axes, keepdims=True) > 0) * r.valid  # (B, K, *S): voxels of classes with a boundary
    size = known.sum(axis=r.axes)
    sums = [(x * known).sum(axis=r.axes) for x in (np.abs(y - p), (y - p) ** 2, y * p, y * p + y**2 + p**2)]
    if batch:
        size, *sums = (x.sum(axis=0, keepdims=True) for x in (size, *sums))
    there = size > 0
    l1, l2 = (np.divide(x, size, out=np.zeros_like(x), where=there) for x in sums[:2])
    fraction = np.divide(sums[2], sums[3], out=np.zeros_like(l1), where=sums[3] > 0)
    values = w_absolute * l1 + w_square * l2 + w_product * (1 / 3 - fraction)
    shape = (*values.shape, *[1] * len(r.axes))
    return reduce(values.reshape(shape), there.reshape(shape).astype(float), reduction)


REFERENCES: dict[str, Callable[..., Array]] = {
    "generalized_surface": generalized_surface,
    "surface_dice": surface_dice,
    "shape_aware": shape_aware,
    "signed_distance_regression": signed_distance_regression,
}

UNIFORM: dict[str, Callable[[float, float, int], float]] = {}
