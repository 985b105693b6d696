"""Losses with an opponent, whose weights are given: convolutions in torch float64, everything else in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from . import compound, region
from .entry import reference
from .reading import Array, Reading

BASES = {"dice": region.dice, "dice_ce": compound.dice_ce}
LEVELS = 3
NONE: Mapping[str, Array] = {}


def image_of(r: Reading) -> Array:
    """That of the stand-in for a network, 0 where ignored."""
    image = np.ones(r.valid.shape)
    for axis in r.axes:
        n = r.valid.shape[axis]
        image = image * np.sin(np.pi * (np.arange(n) + 0.5) / n).reshape(-1, *[1] * (r.valid.ndim - 1 - axis))
    return image * r.valid


def convolve(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """Zeros around it."""
    axes = x.ndim - 2
    f = {2: functional.conv2d, 3: functional.conv3d}[axes]
    return f(*map(torch.from_numpy, (np.ascontiguousarray(x), weight, bias)), stride=stride, padding=1).numpy()


def layer(x: Array, weights: Mapping[str, Array], name: str, stride: int) -> Array:
    """A convolution, of which the largest singular value is about 1 where it has a singular vector."""
    w = weights[f"{name}.weight"].astype(float)
    b = weights.get(f"{name}.bias", np.zeros(len(w))).astype(float)
    if f"{name}.u" in weights:
        w = w / np.linalg.norm(weights[f"{name}.u"].astype(float) @ w.reshape(len(w), -1))
    return convolve(x, w, b, stride)


def layers(x: Array, weights: Mapping[str, Array], network: str) -> list[Array]:
    """What is shown, and each level."""
    found = [x]
    for number in range(LEVELS):
        name = f"{network}.levels.{number}"
        x = layer(x, weights, name, 2)
        if number and f"{name}.u" not in weights:
            axes = tuple(range(2, x.ndim))
            x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
        x = np.where(x > 0, x, 0.2 * x)
        found.append(x)
    return found


def over_samples(r: Reading, values: Array, reduction: str) -> float:
    """The mean of those with a voxel that counts, or the sum."""
    total = float((values * r.present()).sum())
    return total if reduction == "sum" else total / max(r.present().sum(), 1)


FOOLED = {"bce": lambda z: np.logaddexp(0, -z), "least_squares": lambda z: (z - 1) ** 2, "hinge": lambda z: -z}


@reference(
    "adversarial",
    base="dice_ce",
    adversarial_weight=0.01,
    criterion="bce",
    image=True,
    label_smoothing=0.1,
    spectral_norm=True,
    features=32,
    discriminator_lr=2e-4,
    warmup=0,
)
def adversarial(
    r: Reading,
    base: str,
    adversarial_weight: float,
    criterion: str,
    image: bool,
    label_smoothing: float,
    spectral_norm: bool,
    features: int,
    discriminator_lr: float,
    warmup: int,
    reduction: str,
    weights: Mapping[str, Array] = NONE,
    **scoring: Any,
) -> Array:
    """Luc 2016; the discriminator's own arguments act in its step alone."""
    value = BASES[base](r, reduction=reduction, **scoring)
    if warmup:
        return value
    shown = np.where(r.valid > 0, r.p, 0.0)
    if image:
        shown = np.concatenate((shown, image_of(r)), 1)
    network = "opponents.discriminator"
    logits = layer(layers(shown, weights, network)[-1], weights, f"{network}.last", 1)
    judged = FOOLED[criterion](logits).reshape(len(logits), -1).mean(1)
    return value + adversarial_weight * over_samples(r, judged, reduction)


@reference("multi_scale_l1", base="dice_ce", critic_weight=1.0, bound=0.05, features=32, critic_lr=2e-4, warmup=0)
def multi_scale_l1(
    r: Reading,
    base: str,
    critic_weight: float,
    bound: float,
    features: int,
    critic_lr: float,
    warmup: int,
    reduction: str,
    weights: Mapping[str, Array] = NONE,
    **scoring: Any,
) -> Array:
    """Xue 2018, the layers averaged."""
    value = BASES[base](r, reduction=reduction, **scoring)
    if warmup:
        return value
    if bound:
        assert all(np.abs(w).max() <= bound * (1 + 1e-6) for name, w in weights.items() if name.startswith("opponents"))
    picture = image_of(r)
    for b in range(len(picture)):
        if r.valid[b].any():
            picture[b] = np.where(r.valid[b] > 0, picture[b] - picture[b][r.valid[b] > 0].min(), 0.0)
    one, other = (layers(np.where(r.valid > 0, x, 0.0) * picture, weights, "opponents.critic") for x in (r.p, r.g))
    distances = [np.abs(a - b).reshape(len(a), -1).mean(1) for a, b in zip(one, other, strict=True)]
    return value + critic_weight * over_samples(r, np.mean(distances, axis=0), reduction)
