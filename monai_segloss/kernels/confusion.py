"""The soft confusion matrix of each sample, from logits to the gradient of the logits, in chunks that stay in cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import Activation, activate, is_labels, learned, mask_logits
from monai_segloss.core.derivatives import pulled
from monai_segloss.core.exact import products, widest_dtype
from monai_segloss.kernels.voxels import Left, some_voxels

FEW_CLASSES = 16
"""Up to this many classes a CPU multiplies matrices with a one-hot of the labels sooner than it adds by label."""


def soft_confusion(logits: Tensor, target: Tensor, activation: Activation, mask: Tensor | None = None) -> Tensor:
    """T[l, c], the sum over voxels of g_l p_c, differentiable in ``logits``.

    Args:
        logits: (B, C, *S), any floating type; computed in float32 (float64 stays).
        target: labels (B, *S) of any integer type, or one channel per class (B, C, *S): bool, one-hot or soft.
        activation: ``"softmax"``, ``"none"`` (``logits`` are probabilities) or a callable.
        mask: (B, *S) bool, the voxels that count; the logits of others have no influence at all.

    Returns:
        (B, C, C) in float32 (float64 for float64 logits).

    Example:
        >>> import torch
        >>> from monai_segloss.kernels.confusion import soft_confusion
        >>> soft_confusion(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]), "softmax").tolist()
        [[[1.5, 1.5], [0.5, 0.5]]]
    """
    labels = is_labels(logits, target)
    z = logits.flatten(2) if logits.ndim > 2 else logits[..., None]
    target = target.reshape(len(z), -1) if labels else target.reshape(z.shape)
    mask = None if mask is None else mask.reshape(len(z), -1)
    if torch.compiler.is_compiling() or learned(target):
        return _plain(z, target, activation, mask)
    if activation not in ("softmax", "none"):
        z, activation = activate(mask_logits(z, mask), activation), "none"
    found: Tensor = _Confusion.apply(z, target, mask, activation == "softmax", Left(z))
    return found


def _plain(z: Tensor, target: Tensor, activation: Activation, mask: Tensor | None) -> Tensor:
    """The definition."""
    p = activate(mask_logits(z, mask), activation)
    return products(_one_hot(target, mask, p), p)


class _Confusion(torch.autograd.Function):
    """The forward pass leaves the probabilities in the memory that the backward pass turns into the gradient."""

    @staticmethod
    def forward(z: Tensor, target: Tensor, mask: Tensor | None, softmax: bool, left: Left) -> Tensor:
        full = z.dtype in (torch.float32, torch.float64)
        left.x = kept = torch.empty_like(z) if softmax and full and left.wanted else None
        kind = "softmax" if softmax else "none"
        total = torch.zeros((len(z), z.shape[1], z.shape[1]), dtype=widest_dtype(z.device), device=z.device)
        for b, part in some_voxels(z):
            own = None if mask is None else mask[b, part]
            p = activate(mask_logits(z[b, :, part], own), kind)
            total[b] += _sums(p, target[b, ..., part], own)
            if kept is not None:
                kept[b, :, part] = p
        return total.to(torch.float64 if z.dtype == torch.float64 else torch.float32)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, target, mask, ctx.softmax, ctx.left = inputs
        ctx.save_for_backward(z, target, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, target, mask = ctx.saved_tensors
        kind = "softmax" if ctx.softmax else "none"
        if torch.is_grad_enabled():  # a second derivative is wanted: differentiate the definition
            return *pulled(lambda x: _plain(x, target, kind, mask), grad, z), None, None, None, None
        kept = ctx.left.take()  # becomes the gradient; a second pass through the same graph computes it again
        out = torch.empty_like(z) if kept is None else kept
        for b, part in some_voxels(z):
            own = None if mask is None else mask[b, part]
            slope = _pull(grad[b], target[b, ..., part], own)
            if ctx.softmax:
                p = activate(mask_logits(z[b, :, part], own), kind) if kept is None else kept[b, :, part]
                slope = slope.mul_(p)
                slope = slope.addcmul_(p, slope.sum(1, keepdim=True), value=-1)
            out[b, :, part] = slope
        return out, None, None, None, None


def _sums(p: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """The matrix (1, C, C) of some voxels."""
    if not _by_label(p, target):
        return products(_one_hot(target, mask, p), p)
    classes = p.shape[1]
    return p.new_zeros(classes, classes + 1).index_add_(1, _known(target, mask, classes), p[0])[:, :classes].mT[None]


def _pull(grad: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """d loss / dp, (1, C, m), from that of the matrix (1, C, C): the row of the true class, or a mean of rows."""
    if not _by_label(grad, target):
        return grad.mT @ _one_hot(target, mask, grad)
    rows = torch.nn.functional.pad(grad[0], (0, 0, 0, 1))  # the last one, of zeros, for what does not count
    return rows.mT.contiguous().index_select(1, _known(target, mask, grad.shape[1]))[None]


def _by_label(x: Tensor, target: Tensor) -> bool:
    return target.ndim == 2 and x.device.type == "cpu" and x.shape[1] > FEW_CLASSES


def _known(target: Tensor, mask: Tensor | None, ignored_label: int) -> Tensor:
    """Labels (m,) of one sample, ``ignored_label`` where nothing counts."""
    labels = target[0].long()
    return labels if mask is None else labels.masked_fill(~mask[0], ignored_label)


def _one_hot(target: Tensor, mask: Tensor | None, like: Tensor) -> Tensor:
    """The target as numbers of the type of ``like`` (B, C, m), one channel per class, 0 where nothing counts."""
    if target.ndim == 2:
        classes = torch.arange(like.shape[1], dtype=like.dtype, device=like.device)[:, None]
        known = target.to(like.dtype)
        known = known if mask is None else known.masked_fill(~mask, -1)
        found = torch.empty((len(target), len(classes), target.shape[1]), dtype=like.dtype, device=like.device)
        return torch.eq(known[:, None], classes, out=found)
    return (target if mask is None else target.masked_fill(~mask[:, None], 0)).to(like.dtype)
