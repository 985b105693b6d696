"""`soft_statistics` on CUDA: an operator with its gradient, which eager code runs and a compiled graph holds.

Both directions are one pass of a Triton kernel, see `monai_segloss.kernels.statistics_triton`; nothing waits for the device
but the first call of each kind, see `monai_segloss.kernels.trial`.  What the kernels do not take, a second derivative among
it, is the plain formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import Activation, Stat, is_labels, plain_statistics
from monai_segloss.core.derivatives import pulled
from monai_segloss.kernels import emit
from monai_segloss.kernels.trial import VOXELS, is_verified

MOST_CLASSES = 1024
"""A tile holds all classes of a voxel."""
MOST_ELEMENTS = 2**30
"""Offsets within a sample are 32-bit numbers."""


def fused_statistics(
    logits: Tensor, target: Tensor, which: tuple[Stat, ...], activation: Activation, weight: Tensor | None = None
) -> Tensor:
    """`soft_statistics` in one pass each way (same arguments, same result)."""
    if not isinstance(activation, str) or not fits(logits, target, which, activation, weight):
        return plain_statistics(logits, target, which, activation, weight)
    batch, classes = logits.shape[:2]
    flat = logits.reshape(batch, classes, -1)
    target = target.reshape(batch, -1) if is_labels(logits, target) else target.reshape(flat.shape)
    weight = None if weight is None else weight.reshape(batch, -1)
    if not torch.compiler.is_compiling() and not _tried(flat, target, which, activation, weight):
        return plain_statistics(flat, target, which, activation, weight)
    names, powers = [stat.name for stat in which], [float(stat.power) for stat in which]
    found: Tensor = torch.ops.segloss.statistics(flat, target, weight, names, powers, activation)
    return found


def fits(
    logits: Tensor, target: Tensor, which: Sequence[Stat], activation: Activation, weight: Tensor | None = None
) -> bool:
    """Whether the kernels take these arguments."""
    if logits.dtype not in (torch.float16, torch.bfloat16, torch.float32) or activation not in ("softmax", "sigmoid"):
        return False
    if not 0 < logits.shape[1] <= MOST_CLASSES:
        return False
    if not 0 < logits[0].numel() < MOST_ELEMENTS or target.is_complex():
        return False
    if activation == "softmax" and logits.shape[1] == 1 and emit.complement(which):
        return False  # the complement of the constant 1
    if target.requires_grad or (weight is not None and weight.requires_grad):
        return False
    # A compiler that makes a graph for the device has Triton there.
    return (
        torch.compiler.is_compiling() or not logits.is_cuda or torch.cuda.get_device_capability(logits.device) >= (7, 0)
    )


def _tried(logits: Tensor, target: Tensor, which: tuple[Stat, ...], activation: str, weight: Tensor | None) -> bool:
    """Whether the kernels are verified, by their sums and gradients at the first voxels of the first sample."""
    slopes = logits.requires_grad and torch.is_grad_enabled()
    kind = (logits.dtype, logits.shape[1], logits.stride(1) == 1, target.dtype, target.ndim, which, activation, slopes)
    part = logits[:1, :, :VOXELS].detach()  # views, which lie in memory as the whole does
    rest = target[:1, ..., :VOXELS], None if weight is None else weight[:1, :VOXELS].detach(), which, activation
    factors = torch.arange(1.0, len(which) + 1, device=logits.device).expand(1, part.shape[1], -1)

    def kernels() -> tuple[Tensor, ...]:
        sums = triton_sums(part, *rest)
        return (sums, triton_gradient(factors, part, *rest)) if slopes else (sums,)

    def definition() -> tuple[Tensor, ...]:
        leaf = part.double().requires_grad_()
        with torch.enable_grad():
            sums = plain_statistics(leaf, rest[0], which, activation, rest[1])
            slope = torch.autograd.grad(sums + 0 * leaf.nan_to_num().sum(), leaf, factors.double())
        return (sums.detach(), *slope) if slopes else (sums.detach(),)

    return is_verified((*kind, None if weight is None else weight.dtype), logits.device, kernels, definition)


def triton_sums(*args: Any) -> Tensor:
    """The kernel of the sums; Triton is imported where it is needed."""
    from monai_segloss.kernels import statistics_triton

    return statistics_triton.triton_sums(*args)


def triton_gradient(*args: Any) -> Tensor:
    """The kernel of the gradient."""
    from monai_segloss.kernels import statistics_triton

    return statistics_triton.triton_gradient(*args)


def _stats(names: Sequence[str], powers: Sequence[float]) -> tuple[Stat, ...]:
    return tuple(Stat(name, power) for name, power in zip(names, powers, strict=True))


@torch.library.custom_op(
    "segloss::statistics",
    mutates_args=(),
    schema="(Tensor logits, Tensor target, Tensor? weight, str[] names, float[] powers, str activation) -> Tensor",
)
def _statistics(
    logits: Tensor, target: Tensor, weight: Tensor | None, names: list[str], powers: list[float], activation: str
) -> Tensor:
    """Logits (B, C, N), target (B, N) or (B, C, N), weight (B, N) -> (B, C, K)."""
    return triton_sums(logits, target, weight, _stats(names, powers), activation)


@_statistics.register_fake
def _(
    logits: Tensor, target: Tensor, weight: Tensor | None, names: list[str], powers: list[float], activation: str
) -> Tensor:
    return logits.new_empty((*logits.shape[:2], len(names)), dtype=torch.float32)


@torch.library.custom_op(
    "segloss::statistics_gradient",
    mutates_args=(),
    schema="(Tensor grad, Tensor logits, Tensor target, Tensor? weight, str[] names, float[] powers, str activation)"
    " -> Tensor",
)
def _statistics_gradient(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    names: list[str],
    powers: list[float],
    activation: str,
) -> Tensor:
    """The gradient of the logits from that of the statistics (B, C, K)."""
    return triton_gradient(grad, logits, target, weight, _stats(names, powers), activation)


@_statistics_gradient.register_fake
def _(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    names: list[str],
    powers: list[float],
    activation: str,
) -> Tensor:
    return torch.empty_like(logits)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, target, weight, *ctx.rest = inputs
    ctx.save_for_backward(logits, target, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    logits, target, weight = ctx.saved_tensors
    nothing = (None,) * 5
    if not torch.is_grad_enabled():
        return (torch.ops.segloss.statistics_gradient(grad, logits, target, weight, *ctx.rest), *nothing)
    # A second derivative is wanted: differentiate the definition.
    names, powers, activation = ctx.rest
    which = _stats(names, powers)
    return (*pulled(lambda z: plain_statistics(z, target, which, activation, weight), grad, logits), *nothing)


_statistics.register_autograd(_backward, setup_context=_keep)
