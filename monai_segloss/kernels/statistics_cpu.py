"""`soft_statistics` on the CPU: a C++ kernel made from the formulas, else the plain formula in chunks.

Both compute everything again in the backward pass and keep nothing but their inputs.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import (
    FORMULAS,
    Activation,
    Stat,
    activate,
    is_labels,
    mask_logits,
    plain_statistics,
    soft_statistics,
)
from monai_segloss.core.derivatives import pulled
from monai_segloss.core.exact import widest_dtype
from monai_segloss.kernels import emit, native

CHUNK = {"cpu": 1 << 20}
"""Logits of a chunk of the plain formula, by device."""
TYPES = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64,
]  # fmt: skip
"""What the kernels read, in the order of their codes."""
CODE = {dtype: i for i, dtype in enumerate(TYPES)} | {torch.bool: 0}


@dataclass(frozen=True)
class Form:
    """Which statistics, of what: the probabilities p, or with a ``sharpness`` k those of sigmoid(k (p - T))."""

    which: tuple[Stat, ...]
    activation: Activation
    sharpness: float = 0.0


class Inputs(tuple[Any, ...]):
    """Logits (B, C, n), logits of T (B, n) or None, labels (B, n) or channels (B, C, n), weights (B, n) or None."""

    def part(self, voxels: slice) -> Inputs:
        """Some of the voxels."""
        return Inputs(None if x is None else x[..., voxels] for x in self)


def definition(x: tuple[Any, ...], form: Form, statistics: Callable[..., Tensor] = plain_statistics) -> Tensor:
    """The sums in ordinary tensor operations."""
    z, t, y, w = x
    if not form.sharpness:
        return statistics(z, y, form.which, form.activation, w)
    p = activate(mask_logits(z, w), form.activation)
    level = 0.5 if t is None else mask_logits(t[:, None].to(p.dtype), w).sigmoid()
    return statistics(form.sharpness * (p - level), y, form.which, "sigmoid", w)


class Chunks:
    """The definition, chunk by chunk, in both passes."""

    def __init__(self, form: Form) -> None:
        self.form, self.statistics = form, soft_statistics if form.sharpness else plain_statistics

    def sums(self, x: Inputs) -> Tensor:
        """(B, C, K)."""
        found = [definition(part, self.form, self.statistics) for _, part in self._chunks(x)]
        return (
            found[0]
            if len(found) == 1
            else torch.stack(found).sum(0, dtype=widest_dtype(found[0].device)).to(found[0].dtype)
        )

    def gradient(self, grad: Tensor, x: Inputs) -> tuple[Tensor, Tensor | None]:
        """Of the logits and of the threshold, from that of the sums."""
        found = tuple(None if one is None else torch.zeros_like(one) for one in x[:2])
        for voxels, (*learned, y, w) in self._chunks(x):
            leaves = [None if one is None else one.detach().requires_grad_() for one in learned]
            given = [one for one in leaves if one is not None]
            with torch.enable_grad():
                sums = definition(Inputs((*leaves, y, w)), self.form, self.statistics)
            if sums.requires_grad:
                slopes = torch.autograd.grad(sums, given, grad)
                for out, slope in zip(found, slopes, strict=False):
                    out[..., voxels] = slope  # type: ignore[index]
        return found  # type: ignore[return-value]

    def _chunks(self, x: Inputs) -> Iterator[tuple[slice, Inputs]]:
        batch, classes, voxels = x[0].shape
        size = max(1, CHUNK.get(x[0].device.type, 1 << 26) // max(1, batch * classes))
        for start in range(0, max(1, voxels), size):
            part = slice(start, start + size)
            yield part, x.part(part)


class _Rows(ctypes.Structure):
    """A tensor as the kernels see it: address, type, strides of sample, class and voxel."""

    _fields_ = [(name, ctypes.c_int64) for name in ("at", "type", "b", "c", "n")]

    @classmethod
    def of(cls, x: Tensor | None) -> _Rows:
        if x is None:
            return cls()
        b, *c, n = x.stride()
        return cls(x.data_ptr(), CODE[x.dtype], b, *(c or [0]), n)


class _Call(ctypes.Structure):
    _fields_ = [
        *((name, _Rows) for name in ("z", "y", "w", "out", "t", "t_out")),
        ("sharpness", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("batch", "classes", "voxels", "sums", "threads")),
    ]


class Native(Chunks):
    """The C++ kernels."""

    def __init__(self, form: Form, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        super().__init__(form)
        self.library, self.dtype = library, dtype

    def sums(self, x: Inputs) -> Tensor:
        found = torch.empty((*x[0].shape[:2], len(self.form.which)), dtype=self.dtype)
        self._run(self.library.sums, x, (None, None), found)
        return found

    def gradient(self, grad: Tensor, x: Inputs) -> tuple[Tensor, Tensor | None]:
        found = torch.empty_like(x[0]), None if x[1] is None else torch.empty_like(x[1])
        self._run(self.library.gradient, x, found, grad.to(self.dtype).contiguous())
        return found

    def _run(self, function: Any, x: Inputs, out: tuple[Tensor | None, Tensor | None], sums: Tensor) -> None:
        z, t, y, w = x
        rows = map(_Rows.of, (z, y, w, out[0], t, out[1]))
        function(ctypes.byref(_Call(*rows, self.form.sharpness, *z.shape, sums.data_ptr(), torch.get_num_threads())))


def native_statistics(
    logits: Tensor, target: Tensor, which: tuple[Stat, ...], activation: Activation, weight: Tensor | None = None
) -> Tensor:
    """`soft_statistics` on the CPU (same arguments, same result)."""
    return statistics(logits, None, target, weight, Form(which, activation))


def statistics(logits: Tensor, threshold: Tensor | None, target: Tensor, weight: Tensor | None, form: Form) -> Tensor:
    """The sums of a form, by kernels where there are any."""
    z = logits.reshape(*logits.shape[:2], -1)
    labels = is_labels(logits, target)
    t, y, w = (None if x is None else x.reshape(len(z), -1) for x in (threshold, target, weight))
    y = y if labels else target.reshape(z.shape)
    way = _way(form, tuple(FORMULAS[name] for name, _ in form.which), labels, z.dtype, z.shape[1] == 1, z.device.type)
    if isinstance(way, Native):
        y, w, t = _readable(y, labels), _readable(w), _readable(t)
    # what is made in inference mode cannot be kept for the backward pass
    kept = (
        x.clone() if x is not None and x.is_inference() and not torch.is_inference_mode_enabled() else x for x in (y, w)
    )
    found: Tensor = _Statistics.apply(z, t, *kept, way)
    return found


def _readable(x: Any, labels: bool = False) -> Any:
    """In a type that the kernels read."""
    if x is None or x.dtype in CODE:
        return x
    return x.to(torch.int64 if labels and not x.is_floating_point() else torch.float32)


@cache
def _way(
    form: Form, formulas: tuple[Any, ...], labels: bool, dtype: torch.dtype, one_class: bool, device: str
) -> Chunks:
    """The kernels of statistics with ``formulas``, if there are any."""
    read = ("softmax", "sigmoid", "none") if form.sharpness else ("softmax", "sigmoid")
    if device != "cpu" or not dtype.is_floating_point or dtype not in CODE or form.activation not in read:
        return Chunks(form)
    if form.activation == "softmax" and one_class and emit.complement(form.which):
        return Chunks(form)  # the complement of the constant 1
    double, steep = dtype == torch.float64, form.sharpness != 0
    source = emit.cpp(emit.expressions(form.which), str(form.activation), labels, double, steep)
    library = native.load(source)
    return Chunks(form) if library is None else Native(form, library, torch.float64 if double else torch.float32)


class _Statistics(torch.autograd.Function):
    """The sums (B, C, K) in one way, with its gradient; a second derivative is that of the definition."""

    @staticmethod
    def forward(z: Tensor, t: Tensor | None, y: Tensor, w: Tensor | None, way: Chunks) -> Tensor:
        return way.sums(Inputs((z, t, y, w)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.way = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, t, y, w = ctx.saved_tensors
        way: Chunks = ctx.way
        slopes: tuple[Tensor | None, ...]
        if not torch.is_grad_enabled():
            slopes = way.gradient(grad, Inputs((z, t, y, w)))
        elif t is None:
            slopes = *pulled(lambda z: definition(Inputs((z, t, y, w)), way.form), grad, z), None
        else:
            slopes = pulled(lambda z, t: definition(Inputs((z, t, y, w)), way.form), grad, z, t)
        return *slopes, None, None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        """What is mapped over are more samples."""
        flat = []
        for x, dim in zip(args[:4], dims, strict=False):
            if x is not None:
                x = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            flat.append(None if x is None else x.reshape(-1, *x.shape[2:]))
        found = _Statistics.apply(*flat, args[4])
        return found.reshape(info.batch_size, -1, *found.shape[1:]), 0


# `apply` asks for the signature in every call, a tenth of the time of a small batch.
_Statistics.forward.__signature__ = inspect.signature(_Statistics.forward)  # type: ignore[attr-defined]
