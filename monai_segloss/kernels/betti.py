"""Betti numbers of masks, by SciPy: the one count that losses, bounds and the measures of a comparison share."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

DIMENSIONS = 3
"""Of features in space: components, tunnels (in a slice: holes), cavities."""


def betti_of(mask: NDArray[np.bool_]) -> list[int]:
    """Components, tunnels and cavities of a mask (*S) of up to three axes; in 2-D components, holes and 0.

    A voxel is a closed cube, so that the foreground is connected over corners and the background over faces.  Components
    are counted, cavities (in 2-D holes) are parts of the background that do not reach the border, and tunnels are what
    Euler's formula leaves.
    """
    if not mask.any():
        return [0] * DIMENSIONS
    mask = mask[ndimage.find_objects(mask.astype(np.uint8))[0]]
    components = ndimage.label(mask, np.ones((3,) * mask.ndim))[1]
    background, count = ndimage.label(~mask)
    edge = np.ones(mask.shape, dtype=bool)
    edge[(slice(1, -1),) * mask.ndim] = False
    holes = count - len(np.setdiff1d(background[edge], 0))
    if mask.ndim < DIMENSIONS:
        return [components, holes if mask.ndim == 2 else 0, 0]
    return [components, components + holes - euler(mask), holes]


def euler(mask: NDArray[np.bool_]) -> int:
    """Vertices - edges + faces - cubes of the voxels of a mask: along each axis voxels, and the planes that bound them."""
    total = 0
    for inner in itertools.product((True, False), repeat=mask.ndim):
        cells = mask
        for axis, is_inner in enumerate(inner):
            if not is_inner:
                ends = [(0, 0)] * mask.ndim
                ends[axis] = (1, 1)
                wide = np.pad(cells, ends)
                cells = np.delete(wide, -1, axis) | np.delete(wide, 0, axis)
        total += (-1) ** sum(inner) * int(cells.sum())
    return total
