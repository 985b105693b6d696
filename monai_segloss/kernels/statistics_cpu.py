"""`soft_statistics` on the CPU: a C++ kernel made from the formulas, else the plain formula in chunks.

Both compute everything again in the backward pass and keep nothing but their inputs.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import FORMULAS, Activation, Stat, is_labels, plain_statistics
from monai_segloss.core.expression import VOXEL
from monai_segloss.kernels import emit, native

CHUNK = 1 << 20
"""Logits of a chunk of the plain formula."""
TYPES = [
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64
]  # fmt: skip
"""What the kernels read, in the order of their codes."""
CODE = {dtype: i for i, dtype in enumerate(TYPES)} | {torch.bool: 0}


@dataclass(frozen=True)
class _Way(ABC):
    """How statistics of logits (B, C, n), labels (B, n) or channels (B, C, n) and weights (B, n) are computed."""

    which: tuple[Stat, ...]
    activation: Activation

    @abstractmethod
    def sums(self, z: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        """(B, C, K)."""

    @abstractmethod
    def gradient(self, grad: Tensor, z: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        """That of the logits, from that of the sums."""


class _Plain(_Way):
    """The definition, chunk by chunk."""

    def sums(self, z: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        found = [plain_statistics(z, y, self.which, self.activation, w) for _, z, y, w in _chunks(z, y, w)]
        return found[0] if len(found) == 1 else torch.stack(found).sum(0, dtype=torch.float64).to(found[0].dtype)

    def gradient(self, grad: Tensor, z: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        out = torch.empty_like(z)
        for part, z, y, w in _chunks(z, y, w):
            leaf = z.detach().requires_grad_()
            with torch.enable_grad():
                sums = plain_statistics(leaf, y, self.which, self.activation, w)
            out[..., part] = torch.autograd.grad(sums, leaf, grad)[0] if sums.requires_grad else 0
        return out


def _chunks(z: Tensor, y: Tensor, w: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor, Tensor | None]]:
    size = max(1, CHUNK // max(1, len(z) * z.shape[1]))
    for start in range(0, max(1, z.shape[2]), size):
        part = slice(start, start + size)
        yield part, z[..., part], y[..., part], None if w is None else w[..., part]


class _Rows(ctypes.Structure):
    """A tensor as the kernels see it: address, type, strides of sample, class and voxel."""

    _fields_ = [(name, ctypes.c_int64) for name in ("at", "type", "b", "c", "n")]

    @classmethod
    def of(cls, x: Tensor) -> _Rows:
        b, *c, n = x.stride()
        return cls(x.data_ptr(), CODE[x.dtype], b, *(c or [0]), n)


class _Call(ctypes.Structure):
    _fields_ = [
        *((name, _Rows) for name in ("z", "y", "w", "out")),
        *((name, ctypes.c_int64) for name in ("batch", "classes", "voxels", "sums", "threads")),
    ]


@dataclass(frozen=True)
class _Native(_Way):
    """The C++ kernels."""

    library: ctypes.CDLL
    dtype: torch.dtype

    def sums(self, z: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        found = torch.empty((*z.shape[:2], len(self.which)), dtype=self.dtype)
        self._run(self.library.sums, z, y, w, z, found)
        return found

    def gradient(self, grad: Tensor, z: Tensor, y: Tensor, w: Tensor | None) -> Tensor:
        out = torch.empty_like(z)
        self._run(self.library.gradient, z, y, w, out, grad.to(self.dtype).contiguous())
        return out

    def _run(self, function: Any, z: Tensor, y: Tensor, w: Tensor | None, out: Tensor, sums: Tensor) -> None:
        rows = _Rows.of(z), _Rows.of(y), _Rows() if w is None else _Rows.of(w), _Rows.of(out)
        function(ctypes.byref(_Call(*rows, *z.shape, sums.data_ptr(), torch.get_num_threads())))


def native_statistics(
    logits: Tensor, target: Tensor, which: tuple[Stat, ...], activation: Activation, weight: Tensor | None = None
) -> Tensor:
    """`soft_statistics` on the CPU (same arguments, same result)."""
    z = logits.reshape(*logits.shape[:2], -1)
    labels = is_labels(logits, target)
    y = target.reshape(len(z), -1) if labels else target.reshape(z.shape)
    w = None if weight is None else weight.reshape(len(z), -1)
    way = _native(which, tuple(FORMULAS[name] for name, _ in which), activation, labels, z.dtype, z.shape[1] == 1)
    if not isinstance(way, _Native):
        return _Statistics.apply(z, y, w, way)
    return _Statistics.apply(z, _readable(y, labels), None if w is None else _readable(w, False), way)


def _readable(x: Tensor, labels: bool) -> Tensor:
    """In a type that the kernels read."""
    return x if x.dtype in CODE else x.to(torch.int64 if labels and not x.is_floating_point() else torch.float32)


@cache
def _native(
    which: tuple[Stat, ...], formulas: tuple[Any, ...], activation: Activation, labels: bool, dtype: torch.dtype, one: bool
) -> _Way:
    """The kernels of statistics with ``formulas``, if there are any."""
    if dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64) or activation not in ("softmax", "sigmoid"):
        return _Plain(which, activation)
    found = emit.expressions(which)
    if activation == "softmax" and one and any(x.has(VOXEL.lq) for x in found):
        return _Plain(which, activation)  # the complement of the constant 1
    double = dtype == torch.float64
    library = native.load(emit.cpp(found, activation == "softmax", labels, double))
    if library is None:
        return _Plain(which, activation)
    return _Native(which, activation, library, torch.float64 if double else torch.float32)


class _Statistics(torch.autograd.Function):
    """The sums (B, C, K) of one way, with its gradient; a second derivative is that of the definition."""

    @staticmethod
    def forward(z: Tensor, y: Tensor, w: Tensor | None, way: _Way) -> Tensor:
        return way.sums(z, y, w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, _Way], output: Tensor) -> None:
        *tensors, ctx.way = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, y, w = ctx.saved_tensors
        way: _Way = ctx.way
        if not torch.is_grad_enabled():
            return way.gradient(grad, z, y, w), None, None, None
        _, pull = torch.func.vjp(lambda z: plain_statistics(z, y, way.which, way.activation, w), z)
        return pull(grad)[0], None, None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        """More samples."""
        *tensors, way = args
        flat = []
        for x, dim in zip(tensors, dims, strict=False):
            if x is not None:
                x = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            flat.append(None if x is None else x.reshape(-1, *x.shape[2:]))
        found = _Statistics.apply(*flat, way)
        return found.reshape(info.batch_size, -1, *found.shape[1:]), 0
