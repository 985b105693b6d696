"""What every reference starts from: probabilities, one-hot targets and the voxels that count, in NumPy float64.

Written from the definitions and not from the library, so that a mistake in one does not hide in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weight = Sequence[float] | float | None


@dataclass(frozen=True)
class Reading:
    """Logits (or probabilities, without activation) and target (B, C, *S); `valid` is (B, 1, *S) of 0 and 1.

    `at`: the logits that everything without a gradient is computed from, where they are not those of the prediction.
    `raw`: the logits with those of voxels that do not count, of which features of a network are made; `labels`: the target
    was one label per voxel.
    """

    z: Array
    g: Array
    valid: Array
    activation: str | None
    spacing: Sequence[float] | None = None
    at: Array | None = None
    raw: Array = field(default_factory=lambda: np.zeros(0))
    labels: bool = False

    @cached_property
    def log_p(self) -> Array:
        if self.activation == "softmax":
            return self.z - _logsumexp(self.z)
        if self.activation == "sigmoid":
            return -np.logaddexp(0.0, -self.z)
        return np.log(self.z)

    @cached_property
    def log_q(self) -> Array:
        """log(1 - p), from the logits of the others."""
        if self.activation == "softmax":
            others = [_logsumexp(np.delete(self.z, c, axis=1)) for c in range(self.z.shape[1])]
            return np.concatenate(others, axis=1) - _logsumexp(self.z)
        if self.activation == "sigmoid":
            return -np.logaddexp(0.0, self.z)
        return np.log1p(-self.z)

    @cached_property
    def p(self) -> Array:
        return self.z if self.activation is None else np.exp(self.log_p)

    @cached_property
    def still(self) -> Reading:
        """The reading of what carries no gradient."""
        return (
            self if self.at is None else replace(self, z=np.where(self.valid > 0, self.at, 0.0), at=None, raw=self.at)
        )

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(range(2, self.z.ndim))

    @property
    def steps(self) -> tuple[float, ...]:
        """The spacing, 1 where none came."""
        return (1.0,) * len(self.axes) if self.spacing is None else tuple(self.spacing)

    @property
    def exclusive(self) -> bool:
        """One class per voxel: channel 0 is the background."""
        return self.activation != "sigmoid" and self.z.shape[1] > 1

    def first(self, include_background: bool | None) -> int:
        """The first scored channel; None: the background of regions only."""
        if include_background is None:
            include_background = self.activation == "sigmoid"
        return 0 if include_background or self.z.shape[1] == 1 else 1

    def present(self) -> Array:
        """(B,) 1 for the samples of which at least one voxel counts."""
        return (self.valid.sum(axis=(1, *self.axes)) > 0).astype(float)

    def per_class(self, values: Weight) -> Array:
        """(1, C, 1...) one number for each class, or the same for all; None: 1."""
        classes = self.z.shape[1]
        values = np.broadcast_to(1.0 if values is None else np.asarray(values, dtype=float), (classes,))
        return values.reshape(1, classes, *[1] * len(self.axes))


def read(
    input: Array,
    target: NDArray[np.generic],
    activation: str | None,
    mask: NDArray[np.bool_] | None = None,
    *,
    labels: bool = False,
    ignore_index: int | None = None,
    spacing: Sequence[float] | None = None,
    at: Array | None = None,
) -> Reading:
    """`labels`: the target holds one label per voxel, (B, 1, *S); else it has the channels of the input."""
    batch, classes, *shape = input.shape
    valid = np.ones((batch, 1, *shape))
    if mask is not None:
        valid = valid * mask.reshape(valid.shape)
    g = target.astype(float)
    if labels:
        label = target.reshape(batch, 1, *shape)
        if ignore_index is not None:
            valid = valid * (label != ignore_index)
        g = (label == np.arange(classes).reshape(1, -1, *[1] * len(shape))).astype(float)
    g = np.where(valid > 0, g, 0.0)
    z = np.where(valid > 0, input, 0.0)
    return Reading(z, g, valid, activation, spacing, at, input, labels)


def _logsumexp(z: Array) -> Array:
    top = z.max(axis=1, keepdims=True)
    return np.log(np.exp(z - top).sum(axis=1, keepdims=True)) + top


def reduce(values: Array, counted: Array, reduction: str) -> Array:
    """The mean of the values that count; `counted` broadcasts against them; nothing counted gives 0."""
    weight = np.broadcast_to(counted, values.shape)
    values = np.where(weight > 0, values, 0.0) * (weight > 0)
    if reduction == "none":
        return values
    total = values.sum()
    return total if reduction == "sum" else total / max(float((weight > 0).sum()), 1.0)


def reduce_table(r: Reading, table: Array, reduction: str, counted: Array | None = None) -> Array:
    """Reduction of one value per (sample or batch, class); without `counted` a sample counts if one of its voxels does."""
    if counted is None:
        counted = r.present()[:, None]
        counted = counted if len(table) == len(counted) else counted.max(keepdims=True)
    value = reduce(table, counted, reduction)
    return value.reshape(*table.shape, *[1] * len(r.axes)) if reduction == "none" else value


def weighted_mean(r: Reading, values: Array, weights: Array, reduction: str) -> Array:
    """Sum of the values over the sum of their weights, both of the voxels that count; without any weight 0."""
    values, weights = values * r.valid, np.broadcast_to(weights, values.shape) * r.valid
    if reduction != "mean":
        return reduce(values, r.valid, reduction)
    return values.sum() / weights.sum() if weights.sum() > 0 else np.zeros(())


def spanned(shape: Sequence[int], steps: Sequence[float]) -> list[float]:
    """The spacing of the axes with several voxels, of all where none has."""
    return [step for n, step in zip(shape, steps, strict=True) if n > 1] or list(steps)
