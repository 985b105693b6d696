"""Exact distances by the C++ kernels of ``distance.cpp``, on all threads of torch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_segloss.kernels import native

Volume = NDArray[Any]


def library() -> ctypes.CDLL | None:
    """The kernels, or None without a compiler."""
    return native.load(native.source("threads", "distance"), "-O3")


class _Distances(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("labels", "out", "steps", "which", "volumes", "depth", "height", "width")
        ),
        *((name, ctypes.c_int64) for name in ("wide", "surface", "sources", "threads")),
    ]


class _Along(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("squared", "owners")),
        ("step", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("before", "n", "behind", "threads")),
    ]


def _run(name: str, call: ctypes.Structure) -> None:
    getattr(library(), name)(ctypes.byref(call))


def distances(
    x: Volume, steps: Sequence[tuple[float, ...]], n: int, surface: bool, which: Sequence[int], out: Volume
) -> None:
    """Distance to the nearest voxel that is not 0 (``n`` 0), or of another label.

    Args:
        x: (N, *S) of one to three axes.
        steps: spacing of each volume in mm, in array axis order.
        n: 0, or the number of labels.
        surface: to the faces of voxels instead of to their centers.
        which: the volumes to measure in, each by itself.
        out: (N, *S) float32, for their distances; inf where there is nothing to measure to.
    """
    one = (1,) * (4 - x.ndim)
    arrays = _as_labels(x, n), out, np.array([(*one, *step) for step in steps], np.float64), np.array(which, np.int64)
    sizes = len(which), *one, *x.shape[1:]
    options = arrays[0].itemsize > 1, surface, n == 0, torch.get_num_threads()
    _run("distances", _Distances(*(array.ctypes.data for array in arrays), *sizes, *options))


def _as_labels(x: Volume, n: int) -> Volume:
    """Labels as uint8 or int32; 0 are sources and 1 the others where ``n`` is 0."""
    if n == 0:
        return (x == 0).view(np.uint8)
    if x.dtype == np.bool_:
        x = x.view(np.uint8)
    return np.ascontiguousarray(x, np.uint8 if n <= 256 else np.int32)


def two_nearest(ids: Volume, steps: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distances to the nearest and the second nearest instance.

    Args:
        ids: (*S), instances 1, 2, ... and 0 outside.
        steps: spacing in mm, in array axis order.

    Returns:
        Two arrays (*S) float32, inf where there are no two.
    """
    owners = np.zeros((2, *ids.shape), np.int32)
    squared = np.full((2, *ids.shape), np.inf, np.float32)
    owners[0] = ids
    squared[0][ids > 0] = 0
    for axis, (length, step) in enumerate(zip(ids.shape, steps, strict=True)):
        around = int(np.prod(ids.shape[:axis])), length, int(np.prod(ids.shape[axis + 1 :]))
        call = _Along(squared.ctypes.data, owners.ctypes.data, step, *around, torch.get_num_threads())
        _run("two_nearest_along", call)
    np.sqrt(squared, out=squared)
    return squared[0], squared[1]
