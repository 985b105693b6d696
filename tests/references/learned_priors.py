"""Losses with a frozen network: its layers by their definitions, in float64, with torch's functions of convolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from . import compound, region
from .boundary import signed
from .entry import reference
from .reading import Array, Reading, reduce, reduce_table

Weights = Mapping[str, Array]
NONE: Weights = {}
BASES = {"dice": region.dice, "dice_ce": compound.dice_ce}
CONVOLUTION = {2: functional.conv2d, 3: functional.conv3d}


def base_value(r: Reading, base: str, prior: None = None, **arguments: Any) -> Array:
    """The segmentation loss that a term is added to; weights take the place of the file of a prior."""
    return BASES[base](r, **arguments)


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


@reference("latent_shape", base="dice_ce", weight_latent=0.01)
def latent_shape(r: Reading, weight_latent: float, reduction: str, weights: Weights = NONE, **how: Any) -> Array:
    """Oktay et al. 2018: the mean squared difference of two codes."""
    codes = [encode(x * r.valid, weights, halvings(r.z.shape[2:])) for x in (r.p, r.g)]
    distance = ((codes[0] - codes[1]) ** 2).reshape(len(r.z), -1).mean(1)
    return base_value(r, reduction=reduction, **how) + weight_latent * reduce(distance, r.present(), reduction)


def boundary(mask: Array, valid: Array) -> Array:
    """A mask minus the smallest value among a voxel and its neighbors, diagonal ones too; others than valid do not count."""
    filled = np.where(valid > 0, mask, 1.0)
    axes = range(2, mask.ndim)
    padded = np.pad(filled, [(0, 0)] * 2 + [(1, 1)] * (mask.ndim - 2), constant_values=np.inf)
    steps = itertools.product(range(3), repeat=len(axes))
    shifted = [padded[(..., *(slice(k, k + n) for k, n in zip(step, mask.shape[2:], strict=True)))] for step in steps]
    return np.where(valid > 0, mask - np.min(shifted, axis=0), 0.0)


def cut(maps: Array, edge: int) -> list[Array]:
    """Tiles (B, C, *T), half a tile apart and at the end; zeros where an axis is shorter."""
    size = maps.shape[2:]
    maps = np.pad(maps, [(0, 0)] * 2 + [(0, max(0, edge - n)) for n in size])
    firsts = [sorted({*range(0, max(n - edge, 0), edge // 2), max(n - edge, 0)}) for n in size]
    places = itertools.product(*firsts)
    return [maps[(..., *(slice(a, a + edge) for a in place))] for place in places]


def regress(pair: Array, weights: Weights) -> Array:
    """Three convolutions that halve the grid and one between that keeps it, then two linear layers."""
    x = pair
    for layer, stride in ((0, 2), (3, 2), (6, 1), (9, 2)):
        x = convolve(x, weights, f"frozen.module.{layer}", (stride,) * (x.ndim - 2))
        x = normalize(x, weights, f"frozen.module.{layer + 1}")
    x = x.reshape(len(x), -1) @ weights["frozen.module.13.weight"].T + weights["frozen.module.13.bias"]
    x = x / (1 + np.exp(-x))
    return x @ weights["frozen.module.15.weight"].T + weights["frozen.module.15.bias"]


@reference("inverse_form", base="dice_ce", weight_transform=0.3)
def inverse_form(r: Reading, weight_transform: float, reduction: str, weights: Weights = NONE, **how: Any) -> Array:
    """Borse et al. 2021: mean norm of the transformation between boundary tiles of each sample and class."""
    size = r.z.shape[2:]
    edge = min(max(8, min(size) // 8 * 8), {1: 48, 2: 48, 3: 24}[len(size)])
    first = 0 if r.activation == "sigmoid" or r.z.shape[1] == 1 else 1
    both = [cut(boundary(x[:, first:], r.valid), edge) for x in (r.p, r.g)]
    norms: dict[tuple[int, int], list[float]] = {}
    for p, y in zip(*both, strict=True):
        for b, c in np.ndindex(p.shape[:2]):
            one, other = p[b, c].sum(), y[b, c].sum()
            if other > 0 and min(one, other) > 0.1 * max(one, other):
                theta = regress(np.stack((p[b, c], y[b, c]))[None], weights)
                norms.setdefault((b, c), []).append(float(np.sqrt((theta**2).sum())))
    means = np.array([np.mean(each) for each in norms.values()])
    term = reduce(means, np.ones_like(means), reduction)
    return base_value(r, reduction=reduction, **how) + weight_transform * term


def boundary_dice(r: Reading, factor: float, sigma: float, reduction: str) -> Array:
    """Li et al. 2018: Dice of voxels with the weights (w F + 1) exp(-D^2 / 2 sigma^2), scaled to [0, 1]."""
    first = 0 if r.activation == "sigmoid" or r.z.shape[1] == 1 else 1
    table = np.zeros((len(r.z), r.z.shape[1] - first))
    for b, c in np.ndindex(table.shape):
        valid, p, g = r.valid[b, 0] > 0, r.p[b, first + c], r.g[b, first + c]
        if not valid.any():
            continue
        far = signed(g > 0.5, valid, np.asarray(r.steps), "maurer").astype(float)
        a = (factor * (g > 0.5) + 1) * np.exp(-(far**2) / (2 * sigma**2))
        low, high = a[valid].min(), a[valid].max()
        a = (a - low) / (high - low) if high > low else np.ones_like(a)
        hits, all_ = (a * p * g)[valid].sum(), (a * (p + g))[valid].sum()
        table[b, c] = 1 - (2 * hits + 1e-5) / (all_ + 1e-5)
    return reduce_table(r, table, reduction)


@reference("bottleneck_match", base="dice_ce", weight_bottleneck=1.0, weight_boundary=0.0, roi_factor=1.0, sigma=5.0)
def bottleneck_match(
    r: Reading,
    weight_bottleneck: float,
    weight_boundary: float,
    roi_factor: float,
    sigma: float,
    reduction: str,
    weights: Weights = NONE,
    **how: Any,
) -> Array:
    """Li et al. 2018, of normalized codes: twice one minus their cosine, where the smallest size does not matter."""
    features = r.raw
    for _ in range(2):  # the stand-in for the network's bottleneck: means over two voxels, twice
        for axis in range(2, r.raw.ndim):
            ends = range(0, features.shape[axis], 2)
            parts = [features.take(range(a, min(a + 2, features.shape[axis])), axis) for a in ends]
            features = np.concatenate([part.mean(axis, keepdims=True) for part in parts], axis)
    size, grid = r.z.shape[2:], features.shape[2:]
    halved = [next(k for k in range(9) if math.ceil(n / 2**k) == m) for n, m in zip(size, grid, strict=True)]
    levels = max(*halved, 1)
    strides = [[2 if levels - i <= k else 1 for k in halved] for i in range(levels)]
    codes = [x.reshape(len(x), -1) for x in (features, encode(r.g, weights, strides))]
    one, other = (x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6) for x in codes)
    term = reduce(((one - other) ** 2).mean(1), r.present(), reduction)
    boundary = weight_boundary * boundary_dice(r, roi_factor, sigma, reduction) if weight_boundary else 0.0
    return base_value(r, reduction=reduction, **how) + weight_bottleneck * term + boundary
