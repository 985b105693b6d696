"""Connected components of masks, the cells of their nearest points, and sums over them.

Labelling runs on the CPU, by connected-components-3d where it is installed (extra ``fast``), else by SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import isclose, lcm
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_segloss.core.exact import sum_by
from monai_segloss.kernels.arrays import volumes

Ids = NDArray[np.int64]
FAR = np.iinfo(np.int64).max
"""Key of a voxel from which no component has been reached."""
BITS = 60
"""Keys, distance and id together, stay below 2 ** BITS."""
LINES = 2**12
"""Lines of an image that are measured at once."""


def connected_components(mask: Tensor, *, faces: bool = False) -> Tensor:
    """Ids of the connected components of a mask, diagonal neighbors connected (26 in 3-D, 8 in 2-D).

    Args:
        mask: (B, C, *S), each (sample, channel) by itself; above 0 is inside.
        faces: only neighbors that share a face are connected (6 in 3-D, 4 in 2-D).

    Returns:
        (B, C, *S) int64 on the device of ``mask``: 0 outside, 1 to K in the order of the first voxel.

    Example:
        >>> import torch
        >>> from monai_segloss.kernels.components import connected_components
        >>> connected_components(torch.tensor([[[1, 1, 0, 1]]]))[0, 0].tolist()
        [1, 1, 0, 2]
    """
    found: Tensor = torch.ops.segloss.components(mask, faces)
    return found


# One operation, so that compilers and transforms of torch do not look inside.
@torch.library.custom_op("segloss::components", mutates_args=(), schema="(Tensor mask, bool faces) -> Tensor")
def _components(mask: Tensor, faces: bool) -> Tensor:
    ids = np.stack([_label(array, faces) for array in volumes(mask > 0)]).reshape(mask.shape)
    return torch.from_numpy(ids).to(mask.device)


def nearest_component(ids: Tensor, spacing: Tensor | None = None) -> Tensor:
    """Id of the component nearest to each voxel: the Voronoi cells of the components.

    The distance is exact and Euclidean, between centers of voxels.  A voxel that is as far from several components
    belongs to the lowest id, also across platforms: distances are compared as integers.  Spacings whose squares have no
    ratio of small numbers are rounded to a relative 1e-6.

    Args:
        ids: (B, C, *S) integers, 0 outside of the components.
        spacing: (ndim,) or (B, ndim) in array axis order; None is 1.

    Returns:
        (B, C, *S) int64; 0 everywhere in a channel without components.
    """
    space = ids.ndim - 2
    rows = torch.ones(space) if spacing is None else spacing
    found: Tensor = torch.ops.segloss.nearest_component(ids, rows.expand(ids.shape[0], space))
    return found


@torch.library.custom_op("segloss::nearest_component", mutates_args=(), schema="(Tensor ids, Tensor rows) -> Tensor")
def _nearest_component(ids: Tensor, rows: Tensor) -> Tensor:
    out = np.empty(ids.shape, dtype=np.int64)
    rows = rows.cpu().double()
    arrays = volumes(ids).reshape(ids.shape).astype(np.int64, copy=False)
    for b, row in enumerate(rows.tolist()):
        for channel, ids_of in zip(out[b], arrays[b], strict=True):
            channel[...] = _nearest(ids_of, tuple(row))
    return torch.from_numpy(out).to(ids.device)


@_components.register_fake
def _(mask: Tensor, faces: bool) -> Tensor:
    return torch.empty(mask.shape, dtype=torch.int64, device=mask.device)


@_nearest_component.register_fake
def _(ids: Tensor, rows: Tensor) -> Tensor:
    return torch.empty(ids.shape, dtype=torch.int64, device=ids.device)


@dataclass(frozen=True)
class Segments:
    """Voxels of (B, C, *S) maps grouped into components.

    Args:
        number: (B, C, *S) int32, component of each voxel, 0 to T - 1; -1 where there is none.
        owner: (T,) row b * C + c of each component.
    """

    number: Tensor
    owner: Tensor

    @staticmethod
    def of(ids: Tensor, inside: Tensor | None = None) -> Segments:
        """The components with an id above 0; with ``inside`` (B, 1 | C, *S) only their voxels there."""
        kept = ids > 0 if inside is None else (ids > 0) & inside
        number, owner = torch.full(ids.shape, -1, dtype=torch.int32, device=ids.device), []
        first, rows = 0, zip(number.flatten(0, 1), ids.flatten(0, 1), kept.flatten(0, 1), strict=True)
        for row, (out, names, there) in enumerate(rows):
            voxel = there.flatten().nonzero()[:, 0]
            own = names.flatten()[voxel]
            if not len(own):
                continue
            last = int(own.max())
            if last > 4 * names.numel():  # far apart, as on a coarser grid than that of the components
                used, rank = torch.unique(own, return_inverse=True)
            else:
                seen = torch.bincount(own, minlength=last + 1) > 0
                used, rank = seen.nonzero()[:, 0], (seen.cumsum(0, dtype=torch.int32) - 1)[own]
            out.view(-1)[voxel] = rank.to(torch.int32).add_(first)
            owner.append(torch.full_like(used, row))
            first += len(used)
        return Segments(number, torch.cat(owner) if owner else ids.new_zeros(0, dtype=torch.int64))

    @property
    def sizes(self) -> Tensor:
        """Voxels of each component, (T,)."""
        rows = self.number.flatten(0, 1)
        return sum(
            (torch.bincount(row[row >= 0], minlength=len(self.owner)) for row in rows), torch.zeros_like(self.owner)
        )

    def those(self, keep: Tensor) -> Segments:
        """Some of the components, ``keep`` (T,) bool."""
        names = torch.where(keep, keep.cumsum(0, dtype=torch.int32) - 1, -1)
        names = torch.cat((names, names.new_full((1,), -1)))  # where the number -1 leads
        return Segments(torch.stack([names[row] for row in self.number]), self.owner[keep])

    def sums(self, *maps: Tensor) -> list[Tensor]:
        """Sums of maps (B, C, *S) over each component, (T,), exact."""
        tables = []
        for x in maps:
            rows = zip(x.expand(self.number.shape).flatten(0, 1), self.number.flatten(0, 1), strict=True)
            tables.append(torch.stack([self.sum_of(values, number) for values, number in rows]).sum(0))
        return tables

    def sum_of(self, values: Tensor, number: Tensor) -> Tensor:
        """Sums over each component (T,) of some voxels, of their values and their components."""
        voxel = (number >= 0).flatten().nonzero()[:, 0]
        return sum_by(values.flatten()[voxel], number.flatten()[voxel], len(self.owner))

    def largest(self, x: Tensor) -> Tensor:
        """Largest value of a map (B, C, *S) in each component, (T,); of equal ones the first has the gradient."""
        voxel = (self.number >= 0).flatten().nonzero()[:, 0]
        number, values = self.number.flatten()[voxel].long(), x.detach().flatten()[voxel]
        top = values.new_full(self.owner.shape, -torch.inf)
        top = torch.scatter_reduce(top, 0, number, values, "amax")
        hit = ~(values < top[number])
        first = voxel.new_full(self.owner.shape, x.numel())
        first = torch.scatter_reduce(first, 0, number[hit], voxel[hit], "amin")
        return x.flatten()[first]

    def mean_by_row(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of a value per component (T,) over the components of each row, and whether there are any, both (B, C)."""
        shape = self.number.shape[:2]
        count = torch.bincount(self.owner, minlength=shape.numel())
        mean = sum_by(values, self.owner, shape.numel()) / count.clamp_min(1)
        return mean.view(shape), (count > 0).view(shape)


def _label(mask: NDArray[np.bool_], faces: bool) -> Ids:
    """Components of one mask, numbered in the order of their first voxels."""
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.int64)
    labels = _labeler()(mask, faces)
    where = np.flatnonzero(labels)
    found = labels.ravel()[where]
    first = np.zeros(int(found.max()) + 1, dtype=np.int64)
    first[found[::-1]] = where[::-1]  # of several assignments the last one stays
    rank = np.empty_like(first)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    out = np.zeros(mask.size, dtype=np.int64)
    out[where] = rank[found]
    return out.reshape(mask.shape)


@cache
def _labeler() -> Any:
    """From a mask to some numbering of its components."""
    try:
        import cc3d
    except ImportError:
        return label_by_scipy

    def by_cc3d(mask: NDArray[np.bool_], faces: bool) -> NDArray[Any]:
        if mask.ndim not in (2, 3):
            return label_by_scipy(mask, faces)
        connectivity = 2 * mask.ndim if faces else 3**mask.ndim - 1
        # not as bool: there cc3d 4.1.1 labels voxels outside of a 2-D mask whose axes differ in length
        return cc3d.connected_components(mask.view(np.uint8), connectivity=connectivity)

    return by_cc3d


def label_by_scipy(mask: NDArray[np.bool_], faces: bool = False) -> NDArray[Any]:
    """Components of one mask in some numbering, by SciPy."""
    from scipy import ndimage

    return ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, 1 if faces else mask.ndim))[0]


def _nearest(ids: Ids, spacing: tuple[float, ...]) -> Ids:
    """Cells of one channel (*S): a pass per axis over keys that hold the squared distance and, in the low digits, the id."""
    top = int(ids.max())
    if top > ids.size:  # far apart: the digits of an id are those of a distance
        known, rank = np.unique(ids, return_inverse=True)
        rank = rank.reshape(ids.shape) + int(known[0] > 0)
        return np.concatenate(([0], known[known > 0]))[_nearest(rank, spacing)]
    if top <= 1:  # one component has the whole channel
        return np.full_like(ids, top)
    digits = top + 1
    key = np.where(ids > 0, ids, FAR)
    for axis, weight in enumerate(_weights(spacing, ids.shape, digits)):
        lines = np.atleast_2d(np.moveaxis(key, axis, -1))
        for some in np.array_split(lines, max(1, min(len(lines), key.size // lines.shape[-1] // LINES))):
            some[...] = _envelope(some.reshape(-1, some.shape[-1]), weight * digits).reshape(some.shape)
    key %= digits
    return key


def _weights(spacing: tuple[float, ...], shape: tuple[int, ...], digits: int) -> list[int]:
    """Squared spacings as integers in the same ratio, small enough for the keys."""
    squares = [(s / min(spacing)) ** 2 for s in spacing]
    ratios = [Fraction(x).limit_denominator(1000) for x in squares]
    exact = all(isclose(float(r), x, rel_tol=1e-12) for r, x in zip(ratios, squares, strict=True))
    scale = lcm(*(r.denominator for r in ratios)) if exact else 2**20
    reach = 2 * digits * sum(x * n * n for x, n in zip(squares, shape, strict=True))
    while scale > 1 and scale * reach > 2**BITS:
        scale //= 2
    return [max(1, round(x * scale)) for x in squares]


def _envelope(f: Ids, weight: int) -> Ids:
    """min over q of f[q] + weight * (x - q)^2 at every x of each line (lines, L): the lower envelope of parabolas.

    Felzenszwalb & Huttenlocher's algorithm in integers, all lines at a time: a stack of parabolas per line, each with
    the first x from which it is the lowest.
    """
    lines, length = f.shape
    every = np.arange(lines)
    center: Ids = np.zeros((lines, length), dtype=np.int64)
    start = np.full((lines, length + 1), length, dtype=np.int64)
    depth = np.zeros(lines, dtype=np.int64)
    for q in range(length):
        todo = np.flatnonzero(f[:, q] != FAR)
        first = np.zeros(lines, dtype=np.int64)
        while len(todo):
            todo = todo[depth[todo] > 0]
            top = depth[todo] - 1
            v = center[todo, top]
            rise = f[todo, q] - f[todo, v] + weight * (q * q - v * v)
            first[todo] = np.maximum(-(-rise // (2 * weight * (q - v))), 0)
            todo = todo[first[todo] <= start[todo, top]]
            depth[todo] -= 1
            first[todo] = 0
        push = np.flatnonzero((f[:, q] != FAR) & (first < length))
        center[push, depth[push]] = q
        start[push, depth[push]] = first[push]
        depth[push] += 1
    start[every, depth] = length
    out = np.full_like(f, FAR)
    at = np.zeros(lines, dtype=np.int64)
    filled = np.flatnonzero(depth > 0)
    for x in range(length):
        at[filled] += start[filled, at[filled] + 1] == x
        lowest = center[filled, at[filled]]
        out[filled, x] = f[filled, lowest] + weight * (x - lowest) ** 2
    return out
