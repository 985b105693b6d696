"""The two nearest instances of each voxel, compiled by numba (extra ``fast``), on all threads of torch.

As for a distance, what is known passes along one axis after the other: of each voxel the squared distances to its two
nearest instances on what the axes before have joined, and which instances these are.  A third one cannot be among the two
nearest of another voxel of the line.  Along a line each voxel looks at neighbors at growing offsets until these alone are
farther away than its second instance.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_segloss.kernels.distance_compiled import INF, ZERO, compiled, in_stages, parts, squares

Volume = NDArray[Any]
NOBODY = np.int32(0)


def two_nearest(ids: Volume, spacing: list[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances to the nearest and the second nearest instance.

    Args:
        ids: (*S) of one to three axes, instances 1, 2, ... and 0 outside.
        spacing: spacing in mm, in array axis order.

    Returns:
        Two arrays (*S) float32, inf where there are no two.
    """
    owners = np.zeros((2, *ids.shape), np.int32)
    squared = np.full((2, *ids.shape), INF, np.float32)
    owners[0] = ids
    squared[0][ids > 0] = ZERO
    threads = torch.get_num_threads()
    for axis, (length, step) in enumerate(zip(ids.shape, spacing, strict=True)):
        if length == 1:
            continue
        # a view: lines along the axis, the axes before it and after it as one each
        shape = (2, int(np.prod(ids.shape[:axis])), length, int(np.prod(ids.shape[axis + 1 :])))
        call = partial(_along, squared.reshape(shape), owners.reshape(shape), squares(length, step, False))
        in_stages([[partial(call, *part) for part in parts(shape[1] * shape[3], threads)]], threads)
    np.sqrt(squared, out=squared)
    return squared[0], squared[1]


@compiled
def _along(squared: Volume, owners: Volume, cost: Volume, start: int, stop: int) -> None:
    """Lines ``start`` to ``stop`` along the third axis of (2, P, n, Q), in place."""
    n, behind = squared.shape[2], squared.shape[3]
    f, own = np.empty((n, 2), np.float32), np.empty((n, 2), np.int32)
    for line in range(start, stop):
        a, b = line // behind, line % behind
        known = 0
        for i in range(n):
            for j in range(2):
                f[i, j], own[i, j] = squared[j, a, i, b], owners[j, a, i, b]
            known += own[i, 0] != NOBODY
        if known == 0:
            continue
        for i in range(n):
            first, second = f[i, 0], f[i, 1]
            nearest, next = own[i, 0], own[i, 1]
            for k in range(1, n):
                if cost[k] >= second:
                    break
                for q in (i - k, i + k):
                    if q < 0 or q >= n:
                        continue
                    for j in range(2):
                        value, owner = f[q, j] + cost[k], own[q, j]
                        if value >= second:
                            break  # the other one is farther still
                        if owner == nearest:
                            first = min(first, value)
                        elif value < first:
                            second, next = first, nearest
                            first, nearest = value, owner
                        else:
                            second, next = value, owner
            squared[0, a, i, b], squared[1, a, i, b] = first, second
            owners[0, a, i, b], owners[1, a, i, b] = nearest, next
