"""`soft_statistics` on the CPU: chunks of voxels that stay in cache.

Labels with softmax, the common case, take a hand-written path: per voxel only the true class needs more than the row sums.
So do one channel per class, and sigmoid.  After a softmax the forward pass leaves the probabilities in the memory that the
backward pass turns into the gradient, so that nothing is computed twice and the peak does not grow.  Probabilities and
other activations run the plain formula chunk by chunk, in both passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import Activation, Stat, is_labels, plain_statistics
from monai_segloss.kernels.channels_cpu import POSITIVE, Channels, TrueClass, channel_gradient, channel_sums, pulls_of
from monai_segloss.kernels.chunk_cpu import Part
from monai_segloss.kernels.classes_cpu import cut
from monai_segloss.kernels.labels_cpu import SPARSE, label_gradient, label_sums, slopes_of

CHUNK_ELEMENTS = 1 << 20
"""Logits per chunk: large enough that the cost of calling an operation vanishes, small enough for the shared cache."""
CHUNK_VOXELS = (1 << 12, 3 << 15)
"""Fewest and most voxels per chunk."""
SLAB_ELEMENTS = 1 << 15
"""Fewest logits for which torch starts one more thread."""


def chunked_statistics(
    logits: Tensor, target: Tensor, which: tuple[Stat, ...], activation: Activation, weight: Tensor | None = None
) -> Tensor:
    """`soft_statistics` in chunks (same arguments, same result)."""
    batch, classes = logits.shape[:2]
    flat = logits.reshape(batch, classes, -1)
    labels = is_labels(logits, target)
    target = target.reshape(batch, -1) if labels else target.reshape(flat.shape)
    weight = None if weight is None else weight.reshape(batch, -1)
    if labels and activation == "softmax" and all(stat.name in SPARSE for stat in which):
        way = "labels"
    else:
        way = "channels" if isinstance(activation, str) and activation in ("softmax", "sigmoid") else "plain"
        if labels and activation == "sigmoid" and all(stat.name in POSITIVE for stat in which):
            way = "true class"
    return _Chunked.apply(flat, target, weight, which, activation, way)


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
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        which: tuple[Stat, ...],
        activation: Activation,
        way: str,
    ) -> Tensor:
        ctx.save_for_backward(logits, target, weight)
        ctx.which, ctx.activation, ctx.way = which, activation, way
        batch, classes, voxels = logits.shape
        full = logits.dtype in (torch.float32, torch.float64)
        kept = activation == "softmax" and full and ctx.needs_input_grad[0]
        p = torch.empty_like(logits) if kept else None
        ctx.p = p
        sums = []
        for b in range(batch):
            parts: list[Tensor] = []
            for part in _chunks(b, classes, voxels):
                if way == "labels":
                    parts += label_sums(cut(logits, target, weight, part, keep=p), which)
                elif way != "plain":
                    channels = _channels(logits, target, weight, part, activation, way)
                    parts += channel_sums(channels, which)
                    if p is not None:
                        part.of(p).copy_(channels.p)
                else:
                    parts += plain_statistics(*_cut(logits, target, weight, part, which, activation))[0].unbind(1)
            sums.append(torch.stack(parts).double().view(-1, len(which), classes).sum(0).T)
        return torch.stack(sums).to(torch.float64 if logits.dtype == torch.float64 else torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: differentiate the definition
            sums = plain_statistics(logits, target, ctx.which, ctx.activation, weight)
            if not sums.requires_grad:
                return torch.zeros_like(logits), None, None, None, None, None
            return (*torch.autograd.grad(sums, logits, grad, create_graph=True), None, None, None, None, None)
        batch, classes, voxels = logits.shape
        p, ctx.p = ctx.p, None  # becomes the gradient; a second pass through the same graph computes it again
        out = torch.empty_like(logits) if p is None else p
        for b in range(batch):
            wide = grad[b].double() if logits.dtype == torch.float64 else grad[b].float()
            slopes = slopes_of(ctx.which, wide) if ctx.way == "labels" else None
            pulls = pulls_of(ctx.which, wide) if ctx.way in ("channels", "true class") else None
            for part in _chunks(b, classes, voxels):
                if slopes is not None:
                    label_gradient(part.of(out), cut(logits, target, weight, part, p), slopes)
                    continue
                if pulls is not None:
                    channel_gradient(
                        part.of(out), _channels(logits, target, weight, part, ctx.activation, ctx.way, p), pulls
                    )
                    continue
                z, *rest = _cut(logits.detach(), target, weight, part, ctx.which, ctx.activation)
                with torch.enable_grad():
                    z = z.requires_grad_()
                    sums = plain_statistics(z, *rest)
                found = torch.autograd.grad(sums, z, grad[b : b + 1])[0] if sums.requires_grad else torch.zeros_like(z)
                out[b, :, part.start : part.stop] = found[0]
        return out, None, None, None, None, None


def _channels(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    part: Part,
    act: Activation,
    way: str,
    p: Tensor | None = None,
) -> Channels:
    w, p = (None if x is None else part.of(x) for x in (weight, p))
    assert isinstance(act, str)
    z, target = part.of(logits), part.of(target)
    return TrueClass(z, target, w, act) if way == "true class" else Channels(z, target, w, act, p)


def _cut(
    logits: Tensor, target: Tensor, weight: Tensor | None, part: Part, which: tuple[Stat, ...], act: Activation
) -> tuple[Any, ...]:
    one, voxels = slice(part.b, part.b + 1), slice(part.start, part.stop)
    return logits[one, :, voxels], target[one, ..., voxels], which, act, None if weight is None else weight[one, voxels]
