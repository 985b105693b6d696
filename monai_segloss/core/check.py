"""Checks of what a caller sends: one sentence that names the argument, before any work."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.arguments import shown
from monai_segloss.core.errors import LossShapeError

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def tensors(input: Tensor, target: Tensor) -> None:
    """Type, device and number of dimensions."""
    for name, x in (("input", input), ("target", target)):
        tensor(name, x)
    if not input.is_floating_point():
        raise TypeError(f"input must be floating point (logits or probabilities) but has dtype {input.dtype}.")
    if input.ndim < 2:
        raise LossShapeError(f"input has shape {tuple(input.shape)}; expected (B, C, *spatial).")
    if input.numel() == 0:
        raise LossShapeError(f"input has shape {tuple(input.shape)} and so no voxels.")
    if input.device != target.device:
        raise ValueError(f"target is on {target.device} but input on {input.device}; move one of them.")


def tensor(name: str, x: Any) -> None:
    """A dense tensor of real numbers."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor but is {type(x).__name__}.")
    if x.is_complex() or x.is_quantized or x.layout != torch.strided:
        kind = str(x.layout) if x.layout != torch.strided else f"dtype {x.dtype}"
        raise TypeError(f"{name} must be a dense tensor of real numbers but has {kind}.")


def labels_shape(input: Tensor, target: Tensor) -> Tensor:
    """The labels as (B, *S)."""
    wanted, with_channel = _voxel_shapes(input)
    if target.shape == with_channel:
        return target.squeeze(1)
    if target.shape == wanted:
        return target
    raise LossShapeError(
        f"target has shape {tuple(target.shape)}; with to_onehot_y=True and input {tuple(input.shape)} expected labels "
        f"of shape {with_channel} or {wanted}."
    )


def channels_shape(input: Tensor, target: Tensor) -> Tensor:
    """The target as (B, C, *S)."""
    if target.shape == input.shape:
        return target
    if input.shape[1] == 1 and target.shape == input.shape[:1] + input.shape[2:]:
        return target[:, None]
    hint = ""
    if input.shape[1] > 1 and tuple(target.shape) in _voxel_shapes(input):
        hint = " (pass to_onehot_y=True for a target of labels)"
    raise LossShapeError(
        f"ground truth has different shape ({tuple(target.shape)}) from input ({tuple(input.shape)}): target must have "
        f"one channel per class{hint}."
    )


def _voxel_shapes(input: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of one value per voxel: (B, *S) and (B, 1, *S)."""
    batch, _, *space = input.shape
    return (batch, *space), (batch, 1, *space)


def countable(x: Tensor) -> Tensor:
    """Unsigned integers of more than 8 bits as int64: torch knows next to no operation of theirs."""
    return x.long() if x.dtype in UNSIGNED else x


def no_wider(x: Tensor, input: Tensor) -> Tensor:
    """What comes with ``input``, countable, and in float32 where only ``x`` is float64: the value is as ``input`` is."""
    return x.float() if x.dtype == torch.float64 != input.dtype else countable(x)


def is_label(x: Tensor, label: int) -> Tensor:
    """Where ``x`` holds a label: nowhere if its type cannot, as 256 in uint8, which torch would compare as 0."""
    if not x.is_floating_point() and x.dtype != torch.bool:
        limits = torch.iinfo(x.dtype)
        if not limits.min <= label <= limits.max:
            return torch.zeros_like(x, dtype=torch.bool)
    return x == label


def mask(x: Tensor, input: Tensor) -> Tensor:
    """The mask as boolean (B, *S), checked on the CPU: 0 and 1, or 255 as in images of 8 bits."""
    x = countable(voxel_shape("mask", x, input))
    if x.dtype != torch.bool and x.device.type == "cpu" and not torch.compiler.is_compiling():
        others = x[(x != 0) & (x != 1) & (x != 255)]
        if others.numel():
            raise ValueError(f"mask holds {float(others[0]):g}; expected 1 where a voxel counts and 0 elsewhere.")
    return x.to(torch.bool)


def voxel_shape(name: str, x: Tensor, input: Tensor) -> Tensor:
    """A map of one value per voxel as (B, *S)."""
    wanted, with_channel = _voxel_shapes(input)
    _beside(name, x, input)
    if x.shape == wanted:
        return x
    if x.shape == with_channel:
        return x[:, 0]
    raise LossShapeError(
        f"{name} has shape {tuple(x.shape)}; with input {tuple(input.shape)} expected {wanted} or {with_channel}."
    )


def class_shape(name: str, x: Tensor, input: Tensor) -> Tensor:
    """A map of one value per class and voxel as (B, C, *S), or of one per voxel as (B, 1, *S)."""
    _beside(name, x, input)
    x = no_wider(x, input)
    if x.shape == input.shape:
        return x
    return voxel_shape(name, x, input)[:, None]


def scored_shape(name: str, x: Tensor, input: Tensor, first: int) -> Tensor:
    """A floating-point map of the classes from ``first`` on, which may come with the channels before it."""
    _beside(name, x, input)
    if not x.is_floating_point():
        raise TypeError(
            f"{name} must be floating point but has dtype {x.dtype}, which cuts distances to whole numbers."
        )
    if x.shape == input.shape:
        return x[:, first:]
    scored = (input.shape[0], input.shape[1] - first, *input.shape[2:])
    if x.shape != scored:
        raise LossShapeError(f"{name} has shape {tuple(x.shape)}; expected {tuple(input.shape)} or {scored}.")
    return x


def _beside(name: str, x: Any, input: Tensor) -> None:
    """A tensor on the device of ``input``."""
    tensor(name, x)
    if x.device != input.device:
        raise ValueError(f"{name} is on {x.device} but input on {input.device}; move one of them.")


def voxel_map(name: str, x: Tensor, input: Tensor, valid: Tensor | None = None) -> Tensor:
    """A map of finite weights >= 0 as (B, *S), checked on the CPU; 0 at ignored voxels, whatever was there."""
    x = no_wider(voxel_shape(name, x, input), input)
    x = x if valid is None else x.masked_fill(~valid, 0)
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(((x >= 0) & (x < math.inf)).all()):
        raise ValueError(f"{name} holds NaN or negative or infinite values; expected finite weights of at least 0.")
    return x


def values(target: Tensor, labels: bool, classes: int, valid: Tensor | None, ignore_index: int | None) -> None:
    """Labels are integers in range, other targets lie in [0, 1]; both free of NaN, ignored voxels aside."""
    target = target.detach()
    if target.dtype == torch.bool:
        return
    if not labels and ignore_index is not None and 0 <= ignore_index < target.shape[1] > 1:
        share = target[:, ignore_index]
        parts = share[(share > 0) & (share < 1)]
        if parts.numel():
            raise ValueError(
                f"target gives {float(parts[0]):g} of a voxel to channel {ignore_index}, which ignore_index leaves out: a "
                "voxel counts or it does not; pass a mask."
            )
    low, high = (float(x) for x in target.aminmax())
    top = classes - 1 if labels else 1
    fractional = labels and target.is_floating_point() and not bool((target == target.floor()).all())
    if low >= 0 and high <= top and not fractional:
        return
    kept = target if valid is None else target[valid if labels else valid[:, None].expand_as(target)]
    if kept.is_floating_point() and bool(kept.isnan().any()):
        raise ValueError(f"target holds NaN at {int(kept.isnan().sum())} voxels.")
    bad = kept[(kept < 0) | (kept > top)]
    if labels and bad.numel():
        note = "" if ignore_index is None else f" or the ignored label {ignore_index}"
        raise ValueError(
            f"target holds the label {_number(bad[0])} ({bad.numel()} voxels outside of the range); with {classes} "
            f"channels in input expected labels 0 to {top}{note}."
        )
    if bad.numel():
        raise ValueError(
            f"target holds the value {_number(bad[0])}; a target of one channel per class must lie in [0, 1] "
            "(pass to_onehot_y=True for labels)."
        )
    if labels and kept.is_floating_point() and not bool((kept == kept.floor()).all()):
        raise ValueError("target holds fractions; with to_onehot_y=True expected integer labels.")


def values_in_graph(target: Tensor, labels: bool, classes: int, valid: Tensor | None) -> None:
    """The range check as an assertion that stays in a compiled graph and does not wait for the device."""
    if target.dtype == torch.bool:
        return
    bad = (target < 0) | (target > (classes - 1 if labels else 1))
    if valid is not None:
        bad = bad & (valid if labels else valid[:, None])
    torch._assert_async(~bad.any(), "target holds a label or value outside of the range that input has channels for")


def hard(target: Tensor) -> Tensor:
    """A target of zeros and ones as bool, for losses that rank voxels or count components."""
    if target.dtype == torch.bool:
        return target
    crisp = ((target == 0) | (target == 1)).all()
    if target.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(crisp, "target holds fractions but this loss needs hard labels")
    elif not bool(crisp):
        raise ValueError("target holds fractions; this loss is defined for hard labels, 0 or 1 per class.")
    return target > 0


def _number(x: Tensor) -> int | float:
    value = float(x)
    return int(value) if value.is_integer() else value


def per_class(name: str, x: Tensor | None, classes: int) -> Tensor | None:
    """An argument of one number, or one per scored class."""
    if x is not None and x.ndim and x.shape[0] != classes:
        raise ValueError(
            f"{name} has {x.shape[0]} values for {classes} scored classes: the length of {name} must be {classes}, or give "
            "one number."
        )
    return x


def non_negative(**arguments: float) -> tuple[float, ...]:
    """Constructor arguments that must be finite numbers of at least 0."""
    for name, value in arguments.items():
        if not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {shown(value)}.")
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} should be no less than 0.0, got {shown(value)}.")
    return tuple(float(value) for value in arguments.values())


def within(low: float, high: float, **arguments: float) -> tuple[float, ...]:
    """Constructor arguments that must be numbers from ``low`` to ``high``."""
    for name, value in arguments.items():
        if not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {shown(value)}.")
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {shown(value)}.")
    return tuple(float(value) for value in arguments.values())


def one_of(allowed: tuple[str, ...], **arguments: object) -> None:
    """Arguments that must be one of some words."""
    for name, value in arguments.items():
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {shown(value)}.")


def smoothing(value: float, multilabel: bool) -> float:
    """``label_smoothing``, checked: in [0, 1), and 0 where channels are independent."""
    if not 0 <= value < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {value!r}.")
    if value and multilabel:
        raise ValueError(
            f"label_smoothing={value!r} is defined for one class per voxel; it cannot be combined with sigmoid=True or a "
            "single channel."
        )
    return float(value)


def one_class_per_voxel(loss: str, multilabel: bool) -> None:
    """Refuse independent channels for a loss that compares the classes of a voxel."""
    if multilabel:
        raise ValueError(
            f"{loss} is defined for one class per voxel; it cannot be combined with sigmoid=True or a single channel."
        )


def odd_window(**arguments: float) -> None:
    """Constructor arguments that must be the edge of a window with a center, in voxels."""
    for name, value in arguments.items():
        if not 1 <= value < math.inf or value % 2 != 1:
            raise ValueError(f"{name} must be an odd number of voxels, at least 1, got {shown(value)}.")
