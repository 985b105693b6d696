"""Tasks alongside the segmentation: targets by brute force, heads in NumPy, decoders in torch's float64 functions.

The features are those of `monai_segloss.testing.stand_in`: the logits for the decoder and the finest skip, means over two
voxels per axis for what is coarser, and an image that is bright in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

import monai_segloss

from . import compound, region, voxel
from .boundary import nearest, signed
from .entry import reference
from .reading import Array, Reading

Weights = Mapping[str, Array]
NONE: Weights = {}
BASES = {"dice_ce": compound.dice_ce, "cross_entropy": voxel.cross_entropy, "dice": region.dice}
FACTORS = {"classification": (1.0, 0.5), "regression": (0.5, 0.5), "laplace": (1.0, 1.0)}
KINDS = {"cross_entropy": "classification", "square": "regression", "absolute": "laplace"}
USUAL = {
    "contour": "cross_entropy",
    "skeleton": "cross_entropy",
    "distance": "square",
    "signed_distance": "square",
    "reconstruction": "square",
}


def half(x: Array) -> Array:
    """Means over two voxels along each axis, the last one of an odd length by itself."""
    for axis in range(2, x.ndim):
        starts = np.arange(0, x.shape[axis], 2)
        counts = np.minimum(2, x.shape[axis] - starts).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        x = np.add.reduceat(x, starts, axis=axis) / counts
    return x


def bright_middle(z: Array) -> Array:
    """Products of half a sine along each axis."""
    image = np.ones((len(z), 1, *z.shape[2:]))
    for axis, n in enumerate(z.shape[2:]):
        image = image * np.sin(np.pi * (np.arange(n) + 0.5) / n).reshape(
            [-1 if a == axis + 2 else 1 for a in range(z.ndim)]
        )
    return image


def features(z: Array) -> dict[str, Array]:
    once = half(z)
    coarse = {"middle": once, "bottleneck": half(once), "skip_1": once}
    return {"decoder": z, "skip_0": z, "image": bright_middle(z), **coarse}


def foreground(r: Reading) -> int:
    """Regions, and one channel, have no background."""
    return 0 if r.z.shape[1] == 1 or (r.activation == "sigmoid" and not r.labels) else 1


def linear(found: Mapping[str, Array], r: Reading, weights: Weights, name: str) -> Array:
    """A 1x1 convolution; voxels that do not count have the features 0."""
    x = np.where(r.valid > 0, found["decoder"], 0.0)
    bias = weights[f"{name}.bias"].reshape(-1, *[1] * len(r.axes))
    return np.einsum("oc,bc...->bo...", weights[f"{name}.weight"], x) + bias


def decoder(
    found: Mapping[str, Array], r: Reading, weights: Weights, name: str, start: str, skips: Sequence[str]
) -> Array:
    """Up from a tap: linear interpolation, the skip next to it, 3x3 convolution, instance norm, leaky ReLU; at last 1x1."""
    axes = len(r.axes)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[axes]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[axes]
    full, w = r.z.shape[2:], {key: torch.from_numpy(np.asarray(x)) for key, x in weights.items()}

    def sized(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        return x if tuple(x.shape[2:]) == tuple(size) else F.interpolate(x, size=tuple(size), mode=mode)

    x, step = torch.from_numpy(found[start]), 0
    while f"{name}.steps.{step}.0.weight" in w:
        if skips:
            skip = torch.from_numpy(found[skips[step]])
            x = torch.cat((sized(x, skip.shape[2:]), skip), 1)
        else:
            x = sized(x, [min(2 * a, b) for a, b in zip(x.shape[2:], full, strict=True)])
        x = convolve(x, w[f"{name}.steps.{step}.0.weight"], padding=1)
        space = tuple(range(2, x.ndim))
        x = x - x.mean(space, keepdim=True)
        x = x / (x.square().mean(space, keepdim=True) + 1e-5).sqrt()
        shape = (1, -1, *[1] * axes)
        x = x * w[f"{name}.steps.{step}.1.weight"].view(shape) + w[f"{name}.steps.{step}.1.bias"].view(shape)
        x, step = F.leaky_relu(x, 0.01), step + 1
    x = convolve(x, w[f"{name}.last.weight"], w[f"{name}.last.bias"])
    return sized(x, full).numpy()


def output(kind: str, found: Mapping[str, Array], r: Reading, weights: Weights, name: str) -> Array:
    if kind == "linear":
        return linear(found, r, weights, name)
    start = "middle" if kind == "late_decoder" else "bottleneck"
    coarse_first = [] if kind == "free_decoder" else ["skip_1", "skip_0"]
    size = np.prod(found[start].shape[2:])
    return decoder(found, r, weights, name, start, [s for s in coarse_first if np.prod(found[s].shape[2:]) > size])


def contour(g: Any, valid: Any, width: int = 1, both_sides: bool = False) -> Array:
    """Voxels of a class within so many steps of its outside, and with both sides those outside likewise."""
    step = ndimage.generate_binary_structure(g.ndim, 1)

    def grown(x: Any) -> Any:
        return ndimage.binary_dilation(x, step, iterations=width) if x.any() else x

    found = g & grown(~g & valid)
    if both_sides:
        found = found | (~g & grown(g & valid))
    return (found & valid).astype(float)


def distance(g: Any, valid: Any, steps: Array, side: str, d_max: float, normalize: bool) -> Array:
    inside, outside = g & valid, ~g & valid
    if not inside.any() or not outside.any():
        return np.zeros(g.shape)
    there = {"inside": inside, "outside": outside, "both": valid}[side]
    found = np.where(g, nearest(outside, steps), nearest(inside, steps)).astype(np.float32).astype(float)
    found = np.where(there, found, 0.0)
    return found / max(found.max(), 1e-30) if normalize else np.minimum(found / d_max, 1)


def signed_distance(g: Any, valid: Any, steps: Array, d_max: float, normalize: bool) -> Array:
    phi = signed(g, valid, steps, "surface")
    if normalize:
        return np.where(phi > 0, phi / max(phi.max(), 1e-30), phi / max(-phi.min(), 1e-30))
    return np.clip(phi / d_max, -1, 1)


def target(task: Mapping[str, Any], g: Any, valid: Any, steps: Array) -> Array:
    kind, d_max, normalize = task["target"], task.get("d_max", 10.0), task.get("normalize", False)
    if kind == "contour":
        return contour(g, valid, task.get("width", 1), task.get("both_sides", False))
    if kind == "distance":
        return distance(g, valid, steps, task.get("side", "inside"), d_max, normalize)
    assert kind == "signed_distance", "a skeleton has its own test"
    return signed_distance(g, valid, steps, d_max, normalize)


def difference(task: Mapping[str, Any], z: Array, y: Array) -> Array:
    loss = task.get("loss") or USUAL[task["target"]]
    if loss == "cross_entropy":
        return y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)
    activation = task.get("activation") or {"signed_distance": "tanh", "reconstruction": "linear"}.get(
        task["target"], "sigmoid"
    )
    p = {"sigmoid": lambda: 1 / (1 + np.exp(-z)), "tanh": lambda: np.tanh(z), "linear": lambda: z}[activation]()
    return (p - y) ** 2 if loss == "square" else np.abs(p - y)


def mean_over_rows(values: Array, known: Array, r: Reading, reduction: str) -> float:
    """Mean over the voxels of each (sample, class), then over those that are known."""
    count = r.valid.sum(axis=r.axes)
    rows = (values * r.valid).sum(axis=r.axes) / np.maximum(count, 1)
    there = np.broadcast_to(known * (count > 0), rows.shape) > 0
    total = rows[there].sum()
    return float(total if reduction == "sum" else total / max(there.sum(), 1))


def task_value(
    task: Mapping[str, Any], z: Array, r: Reading, found: Mapping[str, Array], first: int, reduction: str
) -> float:
    if task["target"] == "reconstruction":
        return mean_over_rows(difference(task, z, found["image"]), np.ones((len(z), 1)), r, reduction)
    steps = np.array(r.steps, dtype=float)
    g, valid = r.g[:, first:] > 0.5, r.valid[:, 0] > 0
    y = np.stack([np.stack([target(task, x, v, steps) for x in row]) for row, v in zip(g, valid, strict=True)])
    known = (y != 0).any(axis=r.axes) if "distance" in task["target"] else np.ones(y.shape[:2])
    return mean_over_rows(difference(task, z, y), known, r, reduction)


def summed(values: Mapping[str, tuple[float, float, str]], balance: Any, weights: Weights) -> float:
    """Sum of weight times value; with learned weights w (c e^-s L + a s)."""
    if balance is None:
        return sum(w * value for w, value, _ in values.values())
    kind = balance.get("kind") if isinstance(balance, Mapping) else None
    total = 0.0
    for s, (w, value, own) in zip(weights["balance.log_scales"], values.values(), strict=True):
        factor, slope = FACTORS[kind or own]
        total += w * (factor * np.exp(-s) * value + slope * s)
    return float(total)


def base_value(r: Reading, name: str, **shared: Any) -> float:
    """The segmentation loss, with those of the shared arguments that it has."""
    known = monai_segloss.find(name).parameters
    return float(BASES[name](r, **{key: value for key, value in shared.items() if key in known}))


def sum_of_tasks(
    r: Reading,
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    base: Any,
    weights: Weights,
    balance: Any,
    reduction: str,
    more: Callable[[Reading, Mapping[str, Array], int], Mapping[str, tuple[float, float, str]]] | None = None,
    **shared: Any,
) -> Array:
    """The base and each task by name, with "weight", "target", "head" and the settings of the target."""
    found = features(r.raw)
    first = foreground(r)
    values: dict[str, tuple[float, float, str]] = {}
    for name, weight in ({base: 1.0} if isinstance(base, str) else base).items():
        values[name] = (weight, base_value(r, name, reduction=reduction, **shared), "classification")
    for name, given in tasks.items():
        task = {"target": name, "weight": 1.0, **(given if isinstance(given, Mapping) else {"weight": given})}
        z = output(task.get("head", "linear"), found, r, weights, f"heads.{name}")
        value = task_value(task, z, r, found, first, reduction)
        values[name] = (task["weight"], value, KINDS[task.get("loss") or USUAL[task["target"]]])
    if more is not None:
        values |= more(r, found, first)
    return np.array(summed(values, balance, weights))


@reference("multi_task", base="dice_ce", tasks={"contour": 1.0, "distance": 1.0})
def multi_task(r: Reading, tasks: Any, weights: Weights = NONE, **how: Any) -> Array:
    """Any tasks."""
    return sum_of_tasks(r, tasks, weights=weights, **how)


def contour_and_distance(head: str, contour: float, distance: float, **settings: Any) -> dict[str, Any]:
    """Cross-entropy of the contour, squared error of the distance."""
    return {"contour": {"weight": contour, "head": head}, "distance": {"weight": distance, "head": head, **settings}}


@reference("conv_mcd", base="dice_ce", lambda_contour=1.0, lambda_distance=1.0, side="inside", d_max=10.0)
def conv_mcd(
    r: Reading,
    lambda_contour: float,
    lambda_distance: float,
    side: str,
    d_max: float,
    normalize: bool,
    weights: Weights = NONE,
    **how: Any,
) -> Array:
    """Murugesan 2019."""
    settings = {"side": side, "d_max": d_max, "normalize": normalize}
    tasks = contour_and_distance("linear", lambda_contour, lambda_distance, **settings)
    return sum_of_tasks(r, tasks, weights=weights, **how)


@reference("psi_net", base="dice_ce", lambda_contour=1.0, lambda_distance=1.0, side="inside", d_max=10.0)
def psi_net(
    r: Reading,
    lambda_contour: float,
    lambda_distance: float,
    side: str,
    d_max: float,
    normalize: bool,
    weights: Weights = NONE,
    **how: Any,
) -> Array:
    """Murugesan 2019: the same from decoders of their own."""
    settings = {"side": side, "d_max": d_max, "normalize": normalize}
    tasks = contour_and_distance("decoder", lambda_contour, lambda_distance, **settings)
    return sum_of_tasks(r, tasks, weights=weights, **how)


@reference("dmtn", base="dice_ce", lambda_distance=1.0, side="both", d_max=10.0)
def dmtn(
    r: Reading,
    lambda_distance: float,
    side: str,
    d_max: float,
    normalize: bool,
    weights: Weights = NONE,
    **how: Any,
) -> Array:
    """Tan 2018: squared error of a distance from the middle of the decoder."""
    task = {"weight": lambda_distance, "head": "late_decoder", "side": side, "d_max": d_max, "normalize": normalize}
    return sum_of_tasks(r, {"distance": task}, weights=weights, **how)


@reference(
    "distance_regularized",
    base="dice_ce",
    lambda_distance=1.0,
    signed=True,
    d_max=10.0,
    balance="uncertainty_weighting",
)
def distance_regularized(
    r: Reading,
    lambda_distance: float,
    signed: bool,
    d_max: float,
    normalize: bool,
    weights: Weights = NONE,
    **how: Any,
) -> Array:
    """Dangi 2019: absolute error of a distance from the bottleneck; e^-s L + s/2 and e^-s L + s."""
    task = {"target": "signed_distance" if signed else "distance", "side": "both", "d_max": d_max}
    task |= {"normalize": normalize, "head": "free_decoder", "loss": "absolute", "activation": "linear"}
    return sum_of_tasks(r, {"distance": {**task, "weight": lambda_distance}}, weights=weights, **how)


@reference(
    "besnet",
    base="dice_ce",
    lambda_boundary=1.0,
    lambda_enhanced=1.0,
    enhancement=0.5,
    threshold=1.0,
    where="boundary",
)
def besnet(
    r: Reading,
    lambda_boundary: float,
    lambda_enhanced: float,
    enhancement: float,
    threshold: float,
    where: str,
    reduction: str,
    weights: Weights = NONE,
    **how: Any,
) -> Array:
    """Oda 2018: -mean[(1 + b) g log p + (1 - g) log(1 - p)], b = alpha max(beta - boundary, 0)."""

    def boost(r: Reading) -> Array:
        z = output("decoder", features(r.raw), r, weights, "heads.boundary")
        return enhancement * np.maximum(threshold - 1 / (1 + np.exp(-z)), 0)

    def more(r: Reading, found: Mapping[str, Array], first: int) -> Mapping[str, tuple[float, float, str]]:
        b = boost(r)
        if where == "boundary":
            b = boost(r.still)
            g, valid = r.g[:, first:] > 0.5, r.valid[:, 0] > 0
            b = b * np.stack([np.stack([contour(x, v, 1, True) for x in row]) for row, v in zip(g, valid, strict=True)])
        g = r.g[:, first:]
        values = -((1 + b) * g * r.log_p[:, first:] + (1 - g) * r.log_q[:, first:])
        mean = mean_over_rows(values, np.ones(values.shape[:2]), r, reduction)
        return {"enhanced": (lambda_enhanced, mean, "classification")}

    tasks = {"boundary": {"target": "contour", "weight": lambda_boundary, "head": "decoder", "both_sides": True}}
    return sum_of_tasks(r, tasks, weights=weights, reduction=reduction, more=more, **how)
