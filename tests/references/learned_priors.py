"""Losses with a frozen network: its layers by their definitions, in float64, with torch's functions of convolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from . import compound, region
from .reading import Array, read, reduce

Weights = Mapping[str, Array]
BASES = region.REFERENCES | compound.REFERENCES
CONVOLUTION = {2: functional.conv2d, 3: functional.conv3d}


def base_value(base: str, input: Array, target: Any, activation: str | None, mask: Any, **arguments: Any) -> Array:
    """The segmentation loss that a term is added to."""
    return BASES[base](input, target, activation, mask, **arguments)


def halvings(size: Sequence[int]) -> list[list[int]]:
    """An axis is halved, rounding up, while four voxels are left: at most four times."""
    found = []
    for _ in range(4):
        stride = [2 if math.ceil(n / 2) >= 4 else 1 for n in size]
        if set(stride) == {1}:
            break
        found.append(stride)
        size = [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]
    return found or [[1] * len(size)]


def convolve(x: Array, weights: Weights, name: str, stride: Sequence[int] = ()) -> Array:
    """A convolution that keeps the grid or halves it."""
    kernel, bias = (torch.from_numpy(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
    axes = x.ndim - 2
    step = tuple(stride) or (1,) * axes
    made = CONVOLUTION[axes](torch.from_numpy(x), kernel, bias, stride=step, padding=kernel.shape[2] // 2)
    return made.numpy()


def normalize(x: Array, weights: Weights, name: str, groups: int = 4) -> Array:
    """Each group of channels with mean 0 and variance 1, then scale and shift of each channel; then x sigmoid(x)."""
    parts = x.reshape(len(x), groups, -1)
    mean, variance = parts.mean(2, keepdims=True), parts.var(2, keepdims=True)
    x = ((parts - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    scale, shift = (weights[f"{name}.{part}"].reshape(1, -1, *[1] * (x.ndim - 2)) for part in ("weight", "bias"))
    x = x * scale + shift
    return x / (1 + np.exp(-x))


def encode(x: Array, weights: Weights, strides: Sequence[Sequence[int]]) -> Array:
    """Convolution, normalization and activation of each level, then a convolution: layers 0, 1, 3, 4, 6, ..."""
    for level, stride in enumerate(strides):
        x = convolve(x, weights, f"frozen.module.{3 * level}", stride)
        x = normalize(x, weights, f"frozen.module.{3 * level + 1}")
    return convolve(x, weights, f"frozen.module.{3 * len(strides)}")


def latent_shape(
    input: Array,
    target: Any,
    activation: str | None,
    mask: Any = None,
    *,
    weights: Weights,
    labels: bool = False,
    ignore_index: int | None = None,
    base: str = "dice_ce",
    weight_latent: float = 0.01,
    reduction: str = "mean",
    **common: Any,
) -> Array:
    """Oktay et al. 2018: the mean squared difference of two codes."""
    reading = {"labels": labels, "ignore_index": ignore_index}
    r = read(input, target, activation, mask, **reading)
    codes = [encode(x * r.valid, weights, halvings(input.shape[2:])) for x in (r.p, r.g)]
    distance = ((codes[0] - codes[1]) ** 2).reshape(len(input), -1).mean(1)
    term = reduce(distance, r.present(), reduction)
    return base_value(base, input, target, activation, mask, reduction=reduction, **reading, **common) + (
        weight_latent * term
    )


REFERENCES = {"latent_shape": latent_shape}
UNIFORM: dict[str, Any] = {}
