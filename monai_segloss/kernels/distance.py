"""Exact Euclidean distances in millimeters, batched, on the device of the tensor.

CPU: our own C++ (`monai_segloss.kernels.distance_native`); without a compiler the package ``edt``, else SciPy.
CUDA: separable min-plus passes in Triton, see `monai_segloss.kernels.distance_triton`.
Other devices: the same passes in torch.  No gradient, float32, and on CUDA no wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_segloss.kernels.arrays import volumes
from monai_segloss.kernels.distance_native import distances, library

CHUNK = 2**24
"""Most elements of an intermediate result of the passes in torch."""


@torch.no_grad()
def distance_to(sources: Tensor, spacing: Tensor | None = None, *, surface: bool = False) -> Tensor:
    """Distance of each voxel to the nearest voxel of ``sources``, 0 on them and inf where there are none.

    Args:
        sources: (B, C, *S) bool, each (sample, channel) by itself.
        spacing: (ndim,) or (B, ndim) in array axis order, in mm; None is 1.
        surface: to the nearest point of the boxes of these voxels, faces included, instead of to their centers.

    Returns:
        (B, C, *S) float32.

    Example:
        >>> import torch
        >>> from monai_segloss.kernels.distance import distance_to
        >>> distance_to(torch.tensor([[[True, False, False]]]), torch.tensor([2.0])).tolist()
        [[[0.0, 2.0, 4.0]]]
    """
    found: Tensor = torch.ops.segloss.distance(sources, _rows(sources, spacing), 0, surface)
    return found


@torch.no_grad()
def distance_across(
    labels: Tensor,
    spacing: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    classes: int = 2,
    surface: bool = False,
) -> Tensor:
    """Distance of each voxel to the nearest voxel with another label: for a mask, to the other side.

    Args:
        labels: (B, C, *S), bool or labels from 0 to ``classes`` - 1, each (sample, channel) by itself.
        spacing: (ndim,) or (B, ndim) in array axis order, in mm; None is 1.
        valid: (B, 1 | C, *S) bool; the others are no source of a distance.  None: all are.
        classes: number of labels, 2 for a mask.
        surface: to the nearest face of such a voxel instead of to its center.

    Returns:
        (B, C, *S) float32; inf where no other label exists.
    """
    rows = _rows(labels, spacing)
    if valid is None:
        found: Tensor = torch.ops.segloss.distance(labels, rows, classes, surface)
        return found
    out = torch.full(labels.shape, torch.inf, dtype=torch.float32, device=labels.device)
    for label in range(classes):
        own = labels == label
        out = torch.where(own, torch.ops.segloss.distance(~own & valid, rows, 0, surface), out)
    return out


def _rows(x: Tensor, spacing: Tensor | None) -> Tensor:
    """Spacing of each sample, (B, ndim) float64."""
    ndim = x.ndim - 2
    spacing = torch.ones(ndim, dtype=torch.float64) if spacing is None else spacing.double()
    return spacing.expand(x.shape[0], ndim)


@torch.library.custom_op(
    "segloss::distance", mutates_args=(), schema="(Tensor x, Tensor rows, int n, bool s) -> Tensor"
)
def _distance(x: Tensor, rows: Tensor, n: int, s: bool) -> Tensor:
    """With ``n`` 0 the distance to the nearest voxel that is not 0, else to the nearest one of another of ``n`` labels."""
    if x.numel() == 0:
        return torch.empty(x.shape, dtype=torch.float32, device=x.device)
    if x.device.type == "cpu":
        return _on_cpu(x, rows, n, s)
    passes = _passes(x.device.type)
    if n == 0:
        return passes(x != 0, rows, s)
    out = torch.full(x.shape, torch.inf, dtype=torch.float32, device=x.device)
    for label in range(n):
        own = x == label
        out = torch.where(own, passes(~own, rows, s), out)
    return out


@_distance.register_fake
def _(x: Tensor, rows: Tensor, n: int, s: bool) -> Tensor:
    return torch.empty(x.shape, dtype=torch.float32, device=x.device)


@cache
def _passes(device: str) -> Callable[[Tensor, Tensor, bool], Tensor]:
    """The passes for a type of device: Triton on CUDA, where it is installed."""
    if device == "cuda":
        try:
            from monai_segloss.kernels.distance_triton import min_plus as in_triton
        except ImportError:
            return min_plus
        return in_triton
    return min_plus


def min_plus(sources: Tensor, rows: Tensor, surface: bool) -> Tensor:
    """Distance to the nearest source (B, C, *S): along one axis after the other min_q f(q) + w(x - q), in torch."""
    rows = rows.to(sources.device, torch.float32, non_blocking=True)
    f = torch.full(sources.shape, torch.inf, dtype=torch.float32, device=sources.device).masked_fill_(sources, 0)
    for axis in range(2, f.ndim):
        step = rows[:, axis - 2, None, None]
        reach = torch.arange(f.shape[axis], device=f.device, dtype=f.dtype)
        gap = (reach[:, None] - reach).abs() * step
        cost = (gap - step / 2).clamp_min(0) ** 2 if surface else gap**2
        lines = f.movedim(axis, -1)
        found = _lowest(lines.reshape(lines.shape[0], -1, lines.shape[-1]), cost)
        f = found.reshape(lines.shape).movedim(-1, axis)
    return f.sqrt().contiguous()


def _lowest(lines: Tensor, cost: Tensor) -> Tensor:
    """min over q of lines (B, R, q) + cost (B, x, q), (B, R, x), in chunks of lines."""
    size = max(1, CHUNK // (cost.numel()))
    return torch.cat([(part[:, :, None] + cost[:, None]).amin(-1) for part in torch.split(lines, size, 1)], 1)


# -- CPU ----------------------------------------------------------------------------------------------------------

Volume = NDArray[Any]


def _on_cpu(x: Tensor, rows: Tensor, n: int, surface: bool) -> Tensor:
    """Every (sample, channel) by itself."""
    arrays = volumes(x)
    steps = [tuple(row) for row in rows.tolist() for _ in range(x.shape[1])]
    out = np.empty(arrays.shape, dtype=np.float32)
    alike = [uniform(array, n) for array in arrays]
    for i, value in enumerate(alike):
        if value is not None:
            out[i] = value
    which = [i for i, value in enumerate(alike) if value is None]
    if which:
        (distances if x.ndim <= 5 and library() else _one_by_one)(arrays, steps, n, surface, which, out)
    return torch.from_numpy(out).view(x.shape)


def cpu_backend() -> str:
    """What distances on the CPU come from."""
    if library() is not None:
        return "C++"
    return "SciPy" if _transform() is transform_by_scipy else "edt"


def uniform(x: Volume, n: int) -> float | None:
    """The distance everywhere in a volume of one label, as of an absent class; None where there are several."""
    if (x != x.flat[0]).any():
        return None
    return 0.0 if n == 0 and x.flat[0] else np.inf


def _one_by_one(
    x: Volume, steps: Sequence[tuple[float, ...]], n: int, surface: bool, which: Sequence[int], out: Volume
) -> None:
    """By a package: both hold the interpreter's lock, so edt has the threads."""
    for i in which:
        out[i] = _surface(x[i], steps[i], n) if surface else _transform()(x[i], steps[i], n)


def _surface(x: Volume, steps: tuple[float, ...], n: int) -> Volume:
    """Distance to the faces of voxels: on a grid twice as fine the boxes of voxels are sets of points, faces included."""
    if n == 0:
        sources = _boxes(x != 0)
    else:  # the nearest point of another label lies on an interface
        times = sum(_boxes(x == label).astype(np.uint8) for label in range(n))
        sources = np.asarray(times) > 1
    fine = _transform()(sources, tuple(step / 2 for step in steps), 0)
    return fine[(slice(1, None, 2),) * x.ndim]


def _boxes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The closed boxes of a mask on a grid of 2 n + 1 points per axis: odd ones are centers, even ones faces."""
    for axis in range(mask.ndim):
        lines = np.moveaxis(mask, axis, 0)
        fine = np.zeros((2 * len(lines) + 1, *lines.shape[1:]), dtype=bool)
        fine[1::2] = lines
        fine[:-1:2] |= lines
        fine[2::2] |= lines
        mask = np.moveaxis(fine, 0, axis)
    return mask


@cache
def _transform() -> Callable[..., Volume]:
    """The distance transform of one volume, with the meaning of ``n`` as above."""
    try:
        import edt
    except ImportError:
        return transform_by_scipy
    return partial(_transform_by_edt, edt.edt)


def _transform_by_edt(edt: Callable[..., Volume], x: Volume, steps: tuple[float, ...], n: int) -> Volume:
    """edt sets labels apart by itself, in one pass, and measures to 0: so across labels none may be 0."""
    if not 1 <= x.ndim <= 3:
        return transform_by_scipy(x, steps, n)
    x = np.add(x, 1, dtype=np.uint8 if n < 255 else np.uint32, casting="unsafe") if n else (x == 0).view(np.uint8)
    anisotropy = steps if x.ndim > 1 else steps[0]
    return edt(np.ascontiguousarray(x), anisotropy=anisotropy, black_border=False, parallel=torch.get_num_threads())


def transform_by_scipy(x: Volume, steps: tuple[float, ...], n: int) -> Volume:
    """The same by SciPy, which must not be asked where there is nothing to measure to."""
    from scipy import ndimage

    out = np.full(x.shape, np.inf, dtype=np.float32)
    if n == 0:
        return ndimage.distance_transform_edt(x == 0, sampling=steps).astype(np.float32) if x.any() else out
    for label in range(n):
        own = x == label
        if own.any() and not own.all():
            out[own] = ndimage.distance_transform_edt(own, sampling=steps)[own]
    return out
