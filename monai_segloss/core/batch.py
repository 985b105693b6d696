"""A batch as read, `SegBatch`, and what every loss computes from it, each once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.counts import (
    Activation,
    Counts,
    Stat,
    Voxels,
    activate,
    log_activate,
    mask_logits,
    one_hot_labels,
    soft_statistics,
)
from monai_segloss.core.errors import Renamed, renamed_in
from monai_segloss.core.neighbors import worst_of_neighbors
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.spacing import SpacingError, known_spacing
from monai_segloss.core.sync import sum_over_processes

TP, FP, FN = Stat("tp"), Stat("fp"), Stat("fn")
AREA = (TP, FP, FN)
AREA_L1 = (Stat("tp_l1"), Stat("fp_l1"), Stat("fn_l1"))


class SegBatch:
    """A batch as read: logits, target, mask, and what losses compute from them, each once.

    Args:
        logits: (B, C, *S) as given (half precision stays half; everything computed from it is float32).
        target: labels (B, *S), or one channel per class (B, C, *S).
        mask: (B, *S) bool, True where a voxel counts, or None where all do.
        activation: ``"softmax"``, ``"sigmoid"``, ``"none"`` or a callable.
        spacing: physical size of a voxel in array axis order, (ndim,) or (B, ndim), or None; the
            error of an affine that cannot be right is raised where a loss asks for the spacing.
        maps: what the caller sent alongside the target, by name.
        spacing_rows: the spacing as numbers, one row for all samples or one per sample, where the caller gave numbers.
    """

    clean, wide, sizes = Renamed("masked_logits"), Renamed("full_precision"), Renamed("required_spacing")
    scored = Renamed("class_view")

    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        mask: Tensor | None,
        activation: Activation,
        spacing: Tensor | SpacingError | None = None,
        maps: Mapping[str, Tensor] | None = None,
        spacing_rows: tuple[tuple[float, ...], ...] | None = None,
    ) -> None:
        self.logits, self.target, self.mask, self.activation = logits, target, mask, activation
        self._spacing, self.maps = spacing, dict(maps or {})
        self.spacing_rows = spacing_rows
        self.full_resolution = True  # else a coarser scale of deep supervision
        self.as_given: SegBatch | None = None  # the batch whose neighbors gave the logits of this one
        self.shared: dict[Any, dict[int, Any]] = {}  # maps that several terms of a sum need, see `core.maps.share_maps`
        self._sums: dict[Stat, Tensor] = {}
        self._masked_logits: Tensor | None = None
        self._count: Tensor | None = None
        self._grad = torch.is_grad_enabled()

    @property
    def spacing(self) -> Tensor | None:
        """Physical size of a voxel in array axis order, (ndim,) or (B, ndim), or None."""
        if isinstance(self._spacing, SpacingError):
            raise self._spacing
        return self._spacing

    @property
    def ndim(self) -> int:
        """Number of dimensions of (B, C, *S)."""
        return self.logits.ndim

    @property
    def classes(self) -> int:
        """Number of channels C."""
        return self.logits.shape[1]

    @property
    def has_labels(self) -> bool:
        """Whether the target is one label per voxel."""
        return self.target.ndim < self.logits.ndim

    @property
    def multilabel(self) -> bool:
        """Whether channels are independent (sigmoid, or a single channel) rather than one class per voxel."""
        return self.activation == "sigmoid" or self.classes == 1

    @property
    def masked_logits(self) -> Tensor:
        """Logits in float32 (or float64) with 0 at ignored voxels, so that a NaN there reaches no gradient."""
        if self._masked_logits is None:
            with torch.set_grad_enabled(self._grad):  # whoever reads it first, perhaps without gradients, others follow
                self._masked_logits = mask_logits(self.logits, self.mask)
        return self._masked_logits

    @property
    def prob(self) -> Tensor:
        """Probabilities (B, C, *S)."""
        return activate(self.masked_logits, self.activation)

    @property
    def log_prob(self) -> Tensor:
        """log of the probabilities (B, C, *S)."""
        return log_activate(self.masked_logits, self.activation)

    @property
    def one_hot(self) -> Tensor:
        """Target (B, C, *S): bool from labels, else as given; 0 where ignored."""
        target = one_hot_labels(self.target, self.classes) if self.has_labels else self.target
        return target if self.mask is None else target.masked_fill(~self.mask[:, None], 0)

    @property
    def labels(self) -> Tensor:
        """Class of each voxel (B, *S), int64, 0 where ignored; of a one-hot or soft target the largest channel."""
        labels = self.target.long() if self.has_labels else self.target.float().argmax(1)
        return labels if self.mask is None else labels.masked_fill(~self.mask, 0)

    @property
    def voxels(self) -> Tensor:
        """Number of voxels that count, (B, 1)."""
        if self._count is None:
            shape = self.logits.shape
            dtype = torch.float64 if self.logits.dtype == torch.float64 else torch.float32
            if self.mask is None:
                self._count = torch.full((shape[0], 1), shape[2:].numel(), dtype=dtype, device=self.logits.device)
            else:
                self._count = self.mask.reshape(shape[0], -1).sum(1, keepdim=True).to(dtype)
        return self._count

    @property
    def required_spacing(self) -> Tensor:
        """The spacing, for losses that measure distances: 1, and a warning, where neither caller nor metadata has one."""
        return known_spacing(self.spacing, self.ndim - 2)

    @property
    def full_precision(self) -> SegBatch:
        """The batch in float32 at least, so that gradients of sums and of maps add up there and not in half precision."""
        if self.logits.dtype in (torch.float32, torch.float64):
            return self
        return self._with_logits(self.masked_logits, self.as_given)

    def with_neighbors(self, width: int) -> SegBatch:
        """The batch whose logits are the worst of a window, see `core.neighbors`; of the width 1: as given."""
        given = self.as_given or self
        if width == 1:
            return given
        if given.activation == "none":
            raise ValueError(
                f"neighbors={width} compares logits, but input is read without an activation: give logits and softmax=True, "
                "sigmoid=True or other_act."
            )
        with torch.set_grad_enabled(given._grad):
            logits = worst_of_neighbors(given.masked_logits, given.target, given.mask, width)
        return given._with_logits(logits, given)

    def _with_logits(self, logits: Tensor, as_given: SegBatch | None) -> SegBatch:
        other = SegBatch(logits, self.target, self.mask, self.activation, self._spacing, self.maps, self.spacing_rows)
        other.shared, other.full_resolution, other.as_given = self.shared, self.full_resolution, as_given
        return other

    def request(self, *which: Stat) -> None:
        """Compute statistics that are not there yet, all in one pass."""
        if new := tuple(s for i, s in enumerate(which) if s not in self._sums and s not in which[:i]):
            self._sums.update(zip(new, self.statistics(new).unbind(2), strict=True))

    def statistics(self, which: tuple[Stat, ...]) -> Tensor:
        """Some statistics, (B, C, K)."""
        return soft_statistics(self.logits, self.target, which, self.activation, self.mask)

    def sum(self, stat: Stat) -> Tensor:
        """One statistic, (B, C)."""
        self.request(stat)
        return self._sums[stat]

    def total(self, x: Tensor) -> Tensor:
        """Masked spatial sum of ``x`` (B, C, *S), (B, C)."""
        x = x if self.mask is None else x * self.mask[:, None]
        return x.flatten(2).sum(2) if x.ndim > 2 else x

    def nothing(self) -> Unreduced:
        """0 per sample, in the graph of the logits: the value of a loss that is not evaluated."""
        return Unreduced.table(0 * self.masked_logits.flatten(1).sum(1, keepdim=True), self.voxels)

    def class_view(self, include_background: bool = True, over_batch: bool = False) -> ClassView:
        """The view of a loss that leaves channel 0 out or sums over the batch (and over the processes of DDP)."""
        if not include_background and self.classes == 1:
            warnings.warn("single channel prediction, `include_background=False` ignored.", stacklevel=6)
            include_background = True
        return ClassView(self, include_background, over_batch)

    def map(self, name: str) -> Tensor | None:
        """A map of one value per voxel that the caller sent, as (B, *S), 0 where ignored, or None."""
        return check.voxel_map(name, self.maps[name], self.logits, self.mask) if name in self.maps else None

    def class_map(self, name: str) -> Tensor | None:
        """A map of one value per class and voxel that the caller sent, as (B, C, *S) or, for all classes, (B, 1, *S)."""
        return check.class_shape(name, self.maps[name], self.logits) if name in self.maps else None


class ClassView:
    """Statistics of a `SegBatch` as one loss scores them: with or without background, per sample or over the batch."""

    present, fold, drop = Renamed("voxel_count"), Renamed("reduce_batch"), Renamed("drop_background")

    def __init__(self, batch: SegBatch, include_background: bool, over_batch: bool) -> None:
        self.batch, self.over_batch = batch, over_batch
        self.first = 0 if include_background else 1
        self._voxels: Voxels | None = None

    def sums(self, *which: Stat) -> list[Tensor]:
        """Statistics (B | 1, C), computed in one pass."""
        self.batch.request(*which)
        return [self.reduce_batch(self.drop_background(self.batch.sum(stat))) for stat in which]

    def drop_background(self, table: Tensor) -> Tensor:
        """Statistics (B, C) of the scored classes; what is not a number in the others shows, since their logits count."""
        return table[:, self.first :] + 0 * table[:, :1].detach() if self.first else table

    @property
    def prob(self) -> Tensor:
        """Probabilities of the scored classes (B, C', *S); others have no part in them where channels are independent."""
        batch = self.batch
        if batch.activation == "sigmoid":
            return activate(batch.masked_logits[:, self.first :], "sigmoid")
        return batch.prob[:, self.first :]

    @property
    def voxels(self) -> Voxels:
        """The scored classes for the formula of a statistic before its sum."""
        if self._voxels is None:
            batch = self.batch
            self._voxels = Voxels(
                batch.masked_logits, batch.one_hot.to(batch.masked_logits.dtype), batch.activation, self.first
            )
        return self._voxels

    @property
    def classes(self) -> int:
        """Number of scored classes."""
        return self.batch.classes - self.first

    def foreground(self, weight: Tensor | None) -> Tensor | None:
        """The scored classes' part of weights of all classes."""
        return weight if weight is None or weight.ndim == 0 else weight[self.first :]

    @property
    def voxel_count(self) -> Tensor:
        """Number of voxels that each row sums over, (B | 1, 1)."""
        return self.reduce_batch(self.batch.voxels)

    def counts(self, soft_label: bool = False) -> Counts:
        """True positives, false positives, false negatives; with ``soft_label`` in the L1 form for soft targets."""
        tp, fp, fn = self.sums(*(AREA_L1 if soft_label else AREA))
        return Counts(tp, fp, fn, self.voxel_count)

    def reduce_batch(self, x: Tensor) -> Tensor:
        """Sums per sample as they are, or added up over the batch and over the processes of DDP."""
        return sum_over_processes(x.sum(0, keepdim=True)) if self.over_batch else x


__getattr__ = renamed_in(__name__, Scored=ClassView)
