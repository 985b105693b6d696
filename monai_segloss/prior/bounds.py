"""Sizes, moments and Betti numbers of labels, and the bounds of them that losses take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.kernels.betti import betti_of

FORMAT = "segloss bounds"
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
Volume = tuple[NDArray[np.integer], tuple[float, ...]]
Measures = dict[str, NDArray[np.float64]]


class BoundsError(ValueError):
    """Labels that have no bounds."""


def measure_bounds(
    cases: Sequence[str],
    load: Callable[[str], Volume],
    classes: Mapping[str, Sequence[int]],
    ignored: Sequence[int] = (),
    between: tuple[float, float] = (0.0, 1.0),
    advance: Callable[[int, int], None] = lambda done, count: None,
) -> dict[str, Any]:
    """What the labels of some cases measure, as the content of a file of bounds.

    Args:
        cases: their names; no other one is loaded.
        load: name -> label map (*S) and spacing in the order of its axes.
        classes: name -> labels of each scored class.
        ignored: labels of voxels that do not count.
        between: the quantiles that are the bounds.
        advance: called with the number of cases read and to read.

    Raises:
        BoundsError: a class that none of the cases has, or quantiles that are none.
    """
    low, high = between
    if not 0 <= low < high <= 1:
        raise BoundsError(f"the quantiles of the bounds must rise from 0 to 1, got {low:g} and {high:g}.")
    found: dict[str, list[Measures]] = {name: [] for name in classes}
    for i, case in enumerate(cases):
        label, spacing = load(case)
        counted = ~np.isin(label, list(ignored))
        for name, members in classes.items():
            found[name].append(measured(np.isin(label, list(members)) & counted, counted, spacing))
        advance(i + 1, len(cases))
    absent = [name for name, each in found.items() if not any(x["size_mm"] > 0 for x in each)]
    if absent:
        raise BoundsError(f"none of the {len(cases)} cases has the class {absent[0]!r}, so there are no bounds of it.")
    return {
        "format": FORMAT,
        "cases": list(cases),
        "between": list(between),
        "classes": {name: _summary(each, between) for name, each in found.items()},
    }


def measured(mask: NDArray[np.bool_], counted: NDArray[np.bool_], spacing: Sequence[float]) -> Measures:
    """Size and Betti numbers of a mask (*S), and where there is any voxel its centroid and spread.

    Centroids count from the center of the image, in mm or as shares of its extent; a spread is the standard deviation along
    an axis.
    """
    volume = math.prod(step for step, n in zip(spacing, mask.shape, strict=True) if n > 1)
    voxels = float(mask.sum())
    found = {
        "size_mm": np.array(voxels * volume),
        "size_share": np.array(voxels / max(1.0, float(counted.sum()))),
        "betti": np.array(betti_of(mask)[: mask.ndim], float),
    }
    if not voxels:
        return found
    places = [np.nonzero(mask)[axis] - (n - 1) / 2 for axis, n in enumerate(mask.shape)]
    steps, extents = np.array(spacing, float), np.array(mask.shape, float)
    moments = {"centroid": np.array([x.mean() for x in places]), "spread": np.array([x.std() for x in places])}
    for name, values in moments.items():
        found[f"{name}_mm"], found[f"{name}_share"] = values * steps, values / extents
    return found


def _summary(cases: Sequence[Measures], between: tuple[float, float]) -> dict[str, Any]:
    """Quantiles of each quantity: of sizes and Betti numbers over all cases, of moments over those that have the class."""
    there = [each for each in cases if "centroid_mm" in each]
    names = list(there[0])
    tables = {name: np.stack([each[name] for each in cases if name in each]) for name in names}
    return {"cases": len(there), **{name: _quantiles(table, between) for name, table in tables.items()}}


def _quantiles(table: NDArray[np.float64], between: tuple[float, float]) -> dict[str, Any]:
    quantiles = {f"{q:g}": np.quantile(table, q, axis=0).tolist() for q in QUANTILES}
    return {"bounds": np.stack([np.quantile(table, q, axis=0) for q in between], -1).tolist(), "quantiles": quantiles}
