"""Label patches as a training sees them: cropped, rotated, scaled and mirrored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POOL = 8
"""Cases that are kept in memory at a time."""
KNOWN = 1000
"""Voxels of each class that are remembered of a case, to draw patches around."""


@dataclass(frozen=True)
class Labels:
    """The labels of a data set.

    Args:
        cases: their names.
        load: name -> label map, (*S), or (slices, *S) where patches are of two axes.
        channels: the labels that make up each channel of a patch.
        regions: whether channels may overlap; otherwise the first one is the background.
        ignored: labels of voxels that do not count.
    """

    cases: tuple[str, ...]
    load: Callable[[str], NDArray[np.integer]]
    channels: tuple[tuple[int, ...], ...]
    regions: bool = False
    ignored: tuple[int, ...] = ()

    def onehot(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Channels (B, C, *S), 0 where a voxel does not count, and the voxels that do (B, 1, *S), of labels (B, *S)."""
        valid = ~among(labels, self.ignored)
        masks = [among(labels, each) for each in self.channels]
        return (torch.stack(masks, 1) & valid[:, None]).float(), valid[:, None].float()

    @property
    def scored(self) -> range:
        """The channels without the background."""
        return range(0 if self.regions else 1, len(self.channels))

    def of(self, cases: Sequence[str]) -> Labels:
        """The labels of some cases."""
        return replace(self, cases=tuple(cases))


@dataclass(frozen=True)
class Augmentation:
    """What is done to a patch, with nnU-Net's probabilities.

    Args:
        rotation: largest angle, in radians.
        flat: rotate and scale in the last two axes only.
        mirror: axes that are mirrored in half of the patches.
        scale: smallest and largest size of the patch in voxels of the case, relative to its own.
        probability: of a rotation, and of a scale.
    """

    rotation: float = math.pi / 6
    flat: bool = False
    mirror: tuple[int, ...] = ()
    scale: tuple[float, float] = (0.7, 1.4)
    probability: float = 0.2


class Patches:
    """A stream of patches, a batch per step; the same for the same step, seed and labels.

    Args:
        labels: of the data set.
        size: of the patches.
        augmentation: of them; None: patches around the foreground as they are.
        spacing: of a voxel, in array axis order.
    """

    def __init__(
        self,
        labels: Labels,
        size: Sequence[int],
        augmentation: Augmentation | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        self.labels, self.size, self.augmentation, self.spacing = labels, tuple(size), augmentation, spacing
        self._volume = lru_cache(maxsize=POOL)(self._read)

    def draw(self, count: int, step: int, generator: torch.Generator) -> list[View]:
        """Places in volumes to take patches from."""
        cases = self.labels.cases
        order = np.random.default_rng(0).permutation(len(cases))
        pool = sorted({int(order[(step + i) % len(cases)]) for i in range(POOL)})  # one new case per step
        chosen = torch.randint(len(pool), (count,), generator=generator).tolist()
        return [self._view(self._volume(cases[pool[i]]), generator) for i in chosen]

    def _read(self, case: str) -> Volume:
        volume = torch.from_numpy(np.ascontiguousarray(self.labels.load(case)).astype(np.int16))
        rng = np.random.default_rng(0)
        known = []
        for channel in self.labels.scored:
            places = torch.nonzero(among(volume, self.labels.channels[channel]))
            if len(places):
                known.append(places[torch.from_numpy(rng.permutation(len(places))[:KNOWN])])
        return Volume(volume, tuple(known))

    def _view(self, volume: Volume, generator: torch.Generator) -> View:
        axes, augmentation = len(self.size), self.augmentation
        inside = torch.tensor(volume.labels.shape)
        centre = (torch.rand(len(inside), generator=generator) * inside).long()
        around = augmentation is None or bool(torch.rand(1, generator=generator) < 0.5)
        if volume.known and around:
            places = volume.known[int(torch.randint(len(volume.known), (1,), generator=generator))]
            centre = places[int(torch.randint(len(places), (1,), generator=generator))]
        labels = volume.labels[int(centre[0])] if len(inside) > axes else volume.labels
        centre = self._within(centre[-axes:].double(), labels.shape)
        matrix = torch.eye(axes, dtype=torch.float64)
        if augmentation is not None:
            matrix = self._augmented(augmentation, generator)
        return View(labels, self.size, matrix, centre)

    def _within(self, centre: Tensor, shape: Sequence[int]) -> Tensor:
        """The patch inside of the volume, or the volume inside of the patch."""
        half = [(n - 1) / 2 for n in self.size]
        middle = torch.tensor(half, dtype=torch.float64)
        centre = (centre - middle).floor() + middle  # so that voxel meets voxel
        ends = [sorted((h, n - 1 - h)) for h, n in zip(half, shape, strict=True)]
        low, high = torch.tensor(ends, dtype=torch.float64).unbind(1)
        return torch.minimum(torch.maximum(centre, low), high)

    def _augmented(self, how: Augmentation, generator: torch.Generator) -> Tensor:
        axes = len(self.size)
        chance, scale, *mirrored = torch.rand(2 + axes, generator=generator).tolist()
        matrix = torch.eye(axes, dtype=torch.float64)
        turned = torch.rand(3, generator=generator).tolist()
        if turned[0] < how.probability:
            angles = (2 * torch.rand(1 if axes == 2 else 3, generator=generator) - 1).double() * how.rotation
            if how.flat and axes == 3:
                angles[1:] = 0  # the first turns the last two axes
            matrix = in_voxels(rotation(angles), self.spacing)
        if chance < how.probability:
            low, high = how.scale
            factors = torch.full((axes,), low + (high - low) * scale, dtype=torch.float64)
            if how.flat and axes == 3:
                factors[0] = 1
            matrix = matrix * factors
        signs = [-1.0 if axis in how.mirror and mirrored[axis] < 0.5 else 1.0 for axis in range(axes)]
        return matrix * torch.tensor(signs, dtype=torch.float64)


@dataclass(frozen=True)
class Volume:
    """A label map with some voxels of each class."""

    labels: Tensor
    known: tuple[Tensor, ...]


@dataclass(frozen=True)
class View:
    """A patch of a label map: voxel x of it, from its centre, lies at ``matrix @ x + centre``."""

    labels: Tensor
    size: tuple[int, ...]
    matrix: Tensor
    centre: Tensor

    def take(self, size: Sequence[int] | None = None, move: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The labels; background outside of the map.

        Args:
            size: another one, around the same centre.
            move: a matrix and a translation, in voxels of the patch, that are applied before.
        """
        size = self.size if size is None else tuple(size)
        matrix, centre = self.matrix, self.centre
        if move is not None:
            matrix, centre = matrix @ move[0], centre + matrix @ move[1]
        index, inside = torch.zeros(size, dtype=torch.long), torch.ones(size, dtype=torch.bool)
        for axis, n in enumerate(self.labels.shape):
            place = torch.full(size, float(centre[axis]))
            for i, m in enumerate(size):
                if matrix[axis, i]:
                    steps = (torch.arange(m) - (m - 1) / 2) * float(matrix[axis, i])
                    place = place + steps.view(*[-1 if j == i else 1 for j in range(len(size))])
            whole = (place + 0.5).floor().long()
            inside &= (whole >= 0) & (whole < n)
            index = index * n + whole.clamp(0, n - 1)
        return torch.where(inside, self.labels.flatten()[index], 0)


def among(labels: Tensor, wanted: Sequence[int]) -> Tensor:
    """Where a label is one of the wanted ones; `torch.isin` takes ten times as long for the few of a channel."""
    found = torch.zeros_like(labels, dtype=torch.bool)
    for each in wanted:
        found |= labels == each
    return found


def rotation(angles: Tensor) -> Tensor:
    """A rotation in 2-D (one angle) or 3-D (about the three axes in turn)."""
    if len(angles) == 1:
        return _turn(2, 0, 1, angles[0])
    one, two, three = (_turn(3, a, b, angle) for (a, b), angle in zip([(1, 2), (0, 2), (0, 1)], angles, strict=True))
    return one @ two @ three


def in_voxels(matrix: Tensor, spacing: Sequence[float] | None) -> Tensor:
    """A linear map of lengths as a map of voxels."""
    if spacing is None:
        return matrix
    lengths = torch.tensor(spacing, dtype=torch.float64)
    return matrix * lengths / lengths[:, None]


def _turn(axes: int, a: int, b: int, angle: Tensor) -> Tensor:
    matrix = torch.eye(axes, dtype=torch.float64)
    matrix[a, a] = matrix[b, b] = torch.cos(angle)
    matrix[a, b], matrix[b, a] = -torch.sin(angle), torch.sin(angle)
    return matrix
