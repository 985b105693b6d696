"""Soft skeletons of a batch, which losses of centerlines share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.kernels.soft_skeleton import Axes, soft_skeleton
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, spanned, valid

BOUNDS: Mapping[str, float] = {"iter_": 1000.0}
"""So many erosions wear away whatever fits into a memory."""


@dataclass
class Skeletons:
    """The soft skeleton of a batch after a number of erosions.

    Args:
        iter_: k, the number of erosions.
        use_spacing: erode an axis of larger voxels less often, so that as many millimeters are eroded along each.
    """

    iter_: int
    use_spacing: bool
    _looked: bool = field(default=False, init=False, compare=False)

    def __post_init__(self) -> None:
        non_negative(iter_=self.iter_)
        if self.iter_ != int(self.iter_):
            raise ValueError(f"iter_ must be a whole number of at least 0, got {self.iter_!r}.")
        self.iter_ = int(self.iter_)

    def __call__(self, batch: SegBatch, x: Tensor) -> Tensor:
        """The soft skeleton of maps (B, K, *S), 0 where ignored."""
        counted = valid(batch)
        if self.use_spacing:
            return by_spacing(_skeleton, batch, x, counted, self.iter_)
        return _skeleton((1.0,) * (batch.ndim - 2), x, counted, self.iter_)

    def of_target(self, batch: SegBatch, g: Tensor) -> Tensor:
        """That of the target; a warning where a foreground class has none, since it is too wide.

        On a GPU only in the first batch, so that no step waits for the device.
        """
        skeleton = self(batch, g)
        if torch.compiler.is_compiling() or self._looked:
            return skeleton
        if g.device.type != "cpu":
            self._looked = True
        foreground = 0 if batch.multilabel or g.shape[1] < batch.classes else 1
        volume, line = (batch.total(x.detach()[:, foreground:]) for x in (g, skeleton))
        worn = (line == 0) & (volume > 0) & (volume < batch.voxels)
        if bool(worn.any()):
            warnings.warn(
                f"the soft skeleton of a class of the target is empty: structures are too wide for iter_={self.iter_}, and "
                "nothing asks for their centerline; iter_ must be at least width / 2 - 1, in voxels.",
                stacklevel=5,
            )
        return skeleton


def _skeleton(spacing: Spacing, x: Tensor, counted: Tensor | None, iter_: int) -> Tensor:
    steps = axes_of_steps(iter_, spacing, x)
    return soft_skeleton(x, steps, counted) if steps else torch.zeros_like(x)


def axes_of_steps(iter_: int, spacing: Spacing, x: Tensor) -> Axes:
    """The axes of each of k + 1 steps: after j of them an axis has had j times (finest spacing / its spacing), rounded."""
    finest, axes = min(spanned(spacing, x)), [axis for axis in range(2, x.ndim) if x.shape[axis] > 1]

    def eroded(axis: int, steps: int) -> int:
        return math.floor(steps * finest / spacing[axis - 2] + 0.5)

    each = (tuple(axis for axis in axes if eroded(axis, j) < eroded(axis, j + 1)) for j in range(iter_ + 1))
    return tuple(step for step in each if step)
