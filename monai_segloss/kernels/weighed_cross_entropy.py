"""Cross-entropy in which each class counts by a factor that depends on the true one, from logits in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import mask_logits
from monai_segloss.core.derivatives import pulled
from monai_segloss.kernels.voxels import Left, some_voxels


class WeighedCrossEntropy(torch.autograd.Function):
    """log(sum_j S_ij p_j / p_i) of logits with the true class i, some voxels at a time.

    S carries no gradient, so that the gradient is softmax(z + log S) less the true class.  ``log_factors`` are log S
    (m, C, n) of log p (m, C, n), log p_i (m, 1, n), the labels (m, n) and ``settings``; ``definition`` is the value from
    log p, the labels and ``settings``, for a gradient with a graph.

    The forward pass leaves that softmax in the memory that the backward pass turns into the gradient.
    """

    @staticmethod
    def forward(
        z: Tensor,
        labels: Tensor,
        mask: Tensor | None,
        left: Left,
        log_factors: Callable[..., Tensor],
        definition: Callable[..., Tensor],
        *settings: Any,
    ) -> Tensor:
        full = z.dtype in (torch.float32, torch.float64)
        left.x = shares = torch.empty_like(z) if full and left.wanted else None
        out = torch.empty((len(z), 1, z.shape[2]), dtype=z.dtype if full else torch.float32, device=z.device)
        for b, part in some_voxels(z):
            scores, own = _scores(z, labels, mask, b, part, log_factors, settings)
            total = scores.logsumexp(1, keepdim=True)
            out[b, :, part] = total - own
            if shares is not None:
                shares[b, :, part] = scores.sub_(total).exp_()
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, labels, mask, ctx.left, ctx.log_factors, ctx.definition, *ctx.settings = inputs
        ctx.save_for_backward(z, labels, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, labels, mask = ctx.saved_tensors
        nothing = (None,) * (5 + len(ctx.settings))
        if torch.is_grad_enabled():  # a graph is wanted: differentiate the definition
            definition, settings = ctx.definition, ctx.settings
            found = pulled(lambda x: definition(mask_logits(x, mask).log_softmax(1), labels, *settings), grad, z)
            return *found, *nothing
        kept = ctx.left.take()  # becomes the gradient; a second pass computes it again
        out = torch.empty_like(z) if kept is None else kept
        for b, part in some_voxels(z):
            if kept is None:
                share = _scores(z, labels, mask, b, part, ctx.log_factors, ctx.settings)[0].softmax(1)
            else:
                share = kept[b, :, part]
            weight = grad[b, :, part]  # 0 where nothing counts
            slope = share * weight
            out[b, :, part] = slope.scatter_add_(1, labels[b, None, part], -weight)
        return out, *nothing


def _scores(
    z: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    b: slice,
    part: slice,
    log_factors: Callable[..., Tensor],
    settings: Sequence[Any],
) -> tuple[Tensor, Tensor]:
    """z + log S of some voxels (1, C, m), and z of their true class (1, 1, m)."""
    z, y = mask_logits(z[b, :, part], None if mask is None else mask[b, part]), labels[b, part]
    log_p = z.log_softmax(1)
    own = log_p.gather(1, y[:, None])
    factor = log_factors(log_p, own, y, *settings)
    return factor.add_(z), z.gather(1, y[:, None])
