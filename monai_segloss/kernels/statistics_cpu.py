"""`soft_statistics` on the CPU: chunks of voxels that stay in cache.

Labels with softmax, the common case, take a hand-written path: per voxel only the true class needs more than the row sums.
So do one channel per class, and sigmoid.  After a softmax the forward pass leaves the probabilities in the memory that the
backward pass turns into the gradient, so that nothing is computed twice and the peak does not grow.  Probabilities and
other activations run the plain formula chunk by chunk, in both passes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import Activation, Stat, is_labels, plain_statistics
from monai_segloss.core.derivatives import pulled
from monai_segloss.kernels.channels_cpu import POSITIVE, Channels, TrueClass, channel_gradient, channel_sums, pulls_of
from monai_segloss.kernels.chunk_cpu import Part
from monai_segloss.kernels.classes_cpu import cut
from monai_segloss.kernels.labels_cpu import SPARSE, label_gradient, label_sums, slopes_of
from monai_segloss.kernels.voxels import Left

CHUNK_ELEMENTS = 1 << 20
"""Logits per chunk: large enough that the cost of calling an operation vanishes, small enough for the shared cache."""
CHUNK_VOXELS = (1 << 12, 3 << 15)
"""Fewest and most voxels per chunk."""
SLAB_ELEMENTS = 1 << 15
"""Fewest logits for which torch starts one more thread."""
SMALL = 1 << 19
"""Most logits of a sample that shares its chunk with others."""


@dataclass(frozen=True)
class _Voxels:
    """Logits (B, C, n), labels (B, n) or channels (B, C, n), and weights (B, n) or None."""

    logits: Tensor
    target: Tensor
    weight: Tensor | None

    @classmethod
    def of(cls, logits: Tensor, target: Tensor, weight: Tensor | None) -> _Voxels:
        """Those of (B, C, *S)."""
        flat = logits.reshape(*logits.shape[:2], -1)
        target = target.reshape(len(flat), -1) if is_labels(logits, target) else target.reshape(flat.shape)
        return cls(flat, target, None if weight is None else weight.reshape(len(flat), -1))


Writer = Callable[[Part, Tensor, "Tensor | None"], None]
"""Writes the gradient of a part into an array like the logits, from the probabilities if they are kept."""


@dataclass(frozen=True)
class _Way(ABC):
    """How the statistics of a part are computed, and their gradient."""

    which: tuple[Stat, ...]
    activation: Activation

    @abstractmethod
    def sums(self, v: _Voxels, part: Part, keep: Tensor | None) -> list[Tensor]:
        """Of the samples of a part, (R, C) each; ``keep`` receives the probabilities of a softmax."""

    @abstractmethod
    def gradient(self, v: _Voxels, grad: Tensor) -> Writer:
        """For the parts of samples whose sums have the gradient ``grad`` (R, C, K)."""


class _Labels(_Way):
    """Labels and softmax: one class per voxel and the sums over all."""

    def sums(self, v: _Voxels, part: Part, keep: Tensor | None) -> list[Tensor]:
        return label_sums(cut(v.logits, v.target, v.weight, part, keep=keep), self.which)

    def gradient(self, v: _Voxels, grad: Tensor) -> Writer:
        slopes = slopes_of(self.which, grad)

        def write(part: Part, out: Tensor, p: Tensor | None) -> None:
            label_gradient(part.of(out), cut(v.logits, v.target, v.weight, part, p), slopes)

        return write


class _ByChannel(_Way):
    """Softmax or sigmoid with any target: every class of a voxel."""

    def sums(self, v: _Voxels, part: Part, keep: Tensor | None) -> list[Tensor]:
        channels = self._channels(v, part, None)
        found = channel_sums(channels, self.which)
        if keep is not None:
            part.of(keep).copy_(channels.p)
        return found

    def gradient(self, v: _Voxels, grad: Tensor) -> Writer:
        pulls = pulls_of(self.which, grad)

        def write(part: Part, out: Tensor, p: Tensor | None) -> None:
            channel_gradient(part.of(out), self._channels(v, part, p), pulls)

        return write

    def _channels(self, v: _Voxels, part: Part, p: Tensor | None) -> Channels:
        w, p = (None if x is None else part.of(x) for x in (v.weight, p))
        return Channels(part.of(v.logits), part.of(v.target), w, str(self.activation), p, part.several)


class _TrueClass(_ByChannel):
    """Sigmoid and labels, where no other class has a part."""

    def _channels(self, v: _Voxels, part: Part, p: Tensor | None) -> Channels:
        w = None if v.weight is None else part.of(v.weight)
        return TrueClass(part.of(v.logits), part.of(v.target), w, str(self.activation), part.several)


class _Plain(_Way):
    """The definition, whatever the activation."""

    def sums(self, v: _Voxels, part: Part, keep: Tensor | None) -> list[Tensor]:
        return list(plain_statistics(*self._cut(v, part)).unbind(2))

    def gradient(self, v: _Voxels, grad: Tensor) -> Writer:
        def write(part: Part, out: Tensor, p: Tensor | None) -> None:
            z, *rest = self._cut(v, part)
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                sums = plain_statistics(z, *rest)
            found = torch.autograd.grad(sums, z, grad)[0] if sums.requires_grad else torch.zeros_like(z)
            out[part.b : part.b + part.samples, :, part.start : part.stop] = found

        return write

    def _cut(self, v: _Voxels, part: Part) -> tuple[Any, ...]:
        samples, voxels = slice(part.b, part.b + part.samples), slice(part.start, part.stop)
        weight = None if v.weight is None else v.weight[samples, voxels]
        return v.logits[samples, :, voxels], v.target[samples, ..., voxels], self.which, self.activation, weight


def chunked_statistics(
    logits: Tensor, target: Tensor, which: tuple[Stat, ...], activation: Activation, weight: Tensor | None = None
) -> Tensor:
    """`soft_statistics` in chunks (same arguments, same result)."""
    v = _Voxels.of(logits, target, weight)
    return _Chunked.apply(v.logits, v.target, v.weight, _way(v, which, activation), Left(v.logits))


def chunked_gradient(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    which: tuple[Stat, ...],
    activation: Activation,
    weight: Tensor | None = None,
) -> Tensor:
    """What `chunked_statistics`, whose result has the gradient ``grad`` (B, C, K), makes of it in the logits."""
    v = _Voxels.of(logits, target, weight)
    out = torch.empty_like(v.logits)
    _write_gradient(out, v, grad, _way(v, which, activation), None)
    return out.view_as(logits)


def _way(v: _Voxels, which: tuple[Stat, ...], activation: Activation) -> _Way:
    names, labels = {stat.name for stat in which}, v.target.ndim < v.logits.ndim
    if not isinstance(activation, str) or activation not in ("softmax", "sigmoid"):
        way: type[_Way] = _Plain
    elif labels and activation == "softmax" and names <= SPARSE.keys():
        way = _Labels
    elif labels and activation == "sigmoid" and names <= {*POSITIVE}:
        way = _TrueClass
    else:
        way = _ByChannel
    return way(which, activation)


def _write_gradient(out: Tensor, v: _Voxels, grad: Tensor, way: _Way, p: Tensor | None) -> None:
    """The gradient of all logits into ``out``, which may be the probabilities ``p``."""
    for samples, parts in _parts(*v.logits.shape):
        write = way.gradient(v, grad[samples])
        for part in parts:
            write(part, out, p)


def _parts(batch: int, classes: int, voxels: int) -> Iterator[tuple[slice, list[Part]]]:
    """Samples and their chunks: small samples together, others one by one."""
    together = max(1, CHUNK_ELEMENTS // max(1, classes * voxels)) if classes * voxels <= SMALL else 1
    for b in range(0, batch, together):
        samples = slice(b, min(batch, b + together))
        count = samples.stop - b
        yield samples, [Part(b, 0, voxels, count, count)] if count > 1 else list(_chunks(b, classes, voxels))


def _chunks(b: int, classes: int, voxels: int) -> Iterator[Part]:
    """The chunks of sample ``b``; the few voxels that make no whole slab come last."""
    fewest, most = CHUNK_VOXELS
    size = min(most, max(fewest, CHUNK_ELEMENTS // classes))
    for start in range(0, voxels, size):
        n = min(size, voxels - start)
        slabs = max(1, min(torch.get_num_threads(), n * classes // SLAB_ELEMENTS))
        rest = n % slabs
        if n > rest:
            yield Part(b, start, start + n - rest, slabs)
        if rest:
            yield Part(b, start + n - rest, start + n, 1)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(logits: Tensor, target: Tensor, weight: Tensor | None, way: _Way, left: Left) -> Tensor:
        full = logits.dtype in (torch.float32, torch.float64)
        left.x = p = torch.empty_like(logits) if way.activation == "softmax" and full and left.wanted else None
        v = _Voxels(logits, target, weight)
        sums = []
        for _, parts in _parts(*logits.shape):
            found = [torch.stack(way.sums(v, part, p), 2) for part in parts]
            sums.append(found[0] if len(found) == 1 else torch.stack(found).double().sum(0))
        return torch.cat(sums).to(torch.float64 if logits.dtype == torch.float64 else torch.float32)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, target, weight, ctx.way, ctx.left = inputs
        ctx.save_for_backward(logits, target, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, weight = ctx.saved_tensors
        way: _Way = ctx.way
        if torch.is_grad_enabled():  # a second derivative is wanted: differentiate the definition
            found = pulled(lambda z: plain_statistics(z, target, way.which, way.activation, weight), grad, logits)
            return *found, None, None, None, None
        p = ctx.left.take()  # becomes the gradient; a second pass through the same graph computes it again
        out = torch.empty_like(logits) if p is None else p
        _write_gradient(out, _Voxels(logits, target, weight), grad, way, p)
        return out, None, None, None, None
