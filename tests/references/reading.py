"""What every reference starts from: probabilities, one-hot targets and the voxels that count, in NumPy float64.

Written from the definitions and not from the library, so that a mistake in one does not hide in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """Logits (or probabilities, without activation) and target (B, C, *S); `valid` is (B, 1, *S) of 0 and 1."""

    z: Array
    g: Array
    valid: Array
    activation: str | None

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

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(range(2, self.z.ndim))

    def present(self) -> Array:
        """(B,) 1 for the samples of which at least one voxel counts."""
        return (self.valid.sum(axis=(1, *self.axes)) > 0).astype(float)


def read(
    input: Array,
    target: NDArray[np.generic],
    activation: str | None,
    mask: NDArray[np.bool_] | None = None,
    *,
    labels: bool,
    ignore_index: int | None = None,
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
    return Reading(z, g, valid, activation)


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


def spanned(shape: Sequence[int], steps: Sequence[float]) -> list[float]:
    """The spacing of the axes with several voxels, of all where none has."""
    return [step for n, step in zip(shape, steps, strict=True) if n > 1] or list(steps)
