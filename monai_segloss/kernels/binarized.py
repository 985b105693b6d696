"""Statistics of b = sigmoid(k (p - T)), from logits to the gradient of the logits, in chunks where classes are many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import Activation, Stat, activate, counted, is_labels, soft_statistics
from monai_segloss.kernels.voxels import some_voxels

FEW_CLASSES = 8
"""Up to this many classes whole maps take less time, and little memory."""


@dataclass(frozen=True)
class _Form:
    """Which statistics, of b made how."""

    which: tuple[Stat, ...]
    activation: Activation
    sharpness: float


def binarized_statistics(
    logits: Tensor,
    target: Tensor,
    which: tuple[Stat, ...],
    activation: Activation,
    sharpness: float,
    threshold: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """`soft_statistics` of b = sigmoid(k (p - T)) in place of p, differentiable in ``logits`` and ``threshold``.

    Args:
        logits, target, which, activation: as of `soft_statistics`.
        sharpness: k.
        threshold: (B, *S) logits of T, any floating type; without it T is 1/2.
        mask: (B, *S) bool, the voxels that count; logits and thresholds of others have no influence at all.

    Returns:
        (B, C, K) in float32 (float64 for float64 logits).

    Example:
        >>> import torch
        >>> from monai_segloss.core.counts import Stat
        >>> from monai_segloss.kernels.binarized import binarized_statistics
        >>> logits = torch.tensor([[[9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]]])
        >>> sums = binarized_statistics(logits, torch.tensor([[0, 1, 1]]), (Stat("tp"), Stat("fp")), "softmax", 50.0)
        >>> sums[0].round().tolist()
        [[1.0, 1.0], [1.0, 0.0]]
    """
    labels = is_labels(logits, target)
    z = logits.flatten(2) if logits.ndim > 2 else logits[..., None]
    target = target.reshape(len(z), -1) if labels else target.reshape(z.shape)
    threshold, mask = (None if x is None else x.reshape(len(z), -1) for x in (threshold, mask))
    if activation not in ("softmax", "sigmoid", "none"):
        z, activation = activate(counted(z, mask), activation), "none"
    form = _Form(which, activation, sharpness)
    if torch.compiler.is_compiling() or z.shape[1] <= FEW_CLASSES:
        return _plain(z, threshold, target, mask, form)
    found: Tensor = _Binarized.apply(z, threshold, target, mask, form)
    return found


def _plain(z: Tensor, threshold: Tensor | None, target: Tensor, mask: Tensor | None, form: _Form) -> Tensor:
    """The definition."""
    logits = _logits(activate(counted(z, mask), form.activation), _level(threshold, mask, z), form.sharpness)
    return soft_statistics(logits, target, form.which, "sigmoid", mask)


def _level(threshold: Tensor | None, mask: Tensor | None, z: Tensor) -> Tensor | float:
    """T (B, 1, n), in the precision in which ``z`` is computed."""
    if threshold is None:
        return 0.5
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    return counted(threshold[:, None].to(wide), mask).sigmoid()


def _logits(p: Tensor, level: Tensor | float, sharpness: float) -> Tensor:
    """Those of b."""
    return (p - level).mul_(sharpness)


def _pull(grad: Tensor, logits: Tensor, target: Tensor, mask: Tensor | None, form: _Form) -> Tensor:
    """The gradient in the logits of b."""
    with torch.enable_grad():
        sums = soft_statistics(logits.requires_grad_(), target, form.which, "sigmoid", mask)
    return torch.autograd.grad(sums, logits, grad)[0]


class _Binarized(torch.autograd.Function):
    """The forward pass leaves the probabilities in the memory that the backward pass turns into the gradient."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, threshold: Tensor | None, target: Tensor, mask: Tensor | None, form: _Form
    ) -> Tensor:
        ctx.save_for_backward(z, threshold, target, mask)
        ctx.form = form
        wide = z.dtype in (torch.float32, torch.float64)
        ctx.p = torch.empty_like(z) if wide and ctx.needs_input_grad[0] and form.activation != "none" else None
        sums = z.new_zeros((*z.shape[:2], len(form.which)), dtype=torch.float64)
        for b, part in some_voxels(z):
            level, own = _cut(threshold, b, part), _cut(mask, b, part)
            p = activate(counted(z[b, :, part], own), form.activation)
            logits = _logits(p, _level(level, own, z), form.sharpness)
            sums[b] += soft_statistics(logits, target[b, ..., part], form.which, "sigmoid", own)
            if ctx.p is not None:
                ctx.p[b, :, part] = p
        return sums.to(torch.float64 if z.dtype == torch.float64 else torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold, target, mask = ctx.saved_tensors
        form: _Form = ctx.form
        learned = threshold is not None and ctx.needs_input_grad[1]
        if torch.is_grad_enabled():  # a second derivative is wanted: differentiate the definition
            wanted = [x for x, needed in zip((z, threshold), ctx.needs_input_grad, strict=False) if needed]
            sums = _plain(z, threshold, target, mask, form)
            slopes = iter(torch.autograd.grad(sums, wanted, grad, create_graph=True))
            return (*(next(slopes) if needed else None for needed in ctx.needs_input_grad[:2]), None, None, None)
        kept, ctx.p = ctx.p, None  # becomes the gradient; a second pass through the same graph computes it again
        out = torch.empty_like(z) if kept is None else kept
        moved = torch.empty_like(threshold) if learned else None
        for b, part in some_voxels(z):
            own = _cut(mask, b, part)
            level = _level(_cut(threshold, b, part), own, z)
            p = activate(counted(z[b, :, part], own), form.activation) if kept is None else kept[b, :, part]
            logits = _logits(p, level, form.sharpness)
            slope = _pull(form.sharpness * grad[b], logits, target[b, ..., part], own, form)
            if moved is not None and isinstance(level, Tensor):
                moved[b, part] = (slope.sum(1, keepdim=True) * level).mul_(level - 1)[:, 0]
            if form.activation == "softmax":
                slope = slope.mul_(p)
                out[b, :, part] = slope.addcmul_(p, slope.sum(1, keepdim=True), value=-1)
            else:
                out[b, :, part] = slope if form.activation == "none" else slope.mul_(p).mul_(1 - p)
        return out, moved, None, None, None


def _cut(x: Tensor | None, b: slice, part: slice) -> Tensor | None:
    return None if x is None else x[b, part]
