"""Statistics of b = sigmoid(k (p - T)), in the same pass from logits to sums and back."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.counts import Activation, Stat, activate, is_labels, learned, mask_logits, soft_statistics
from monai_segloss.kernels.statistics_cpu import Form, definition, statistics


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
    if activation not in ("softmax", "sigmoid", "none"):
        logits, activation = activate(mask_logits(logits, mask), activation), "none"
    form = Form(which, activation, sharpness)
    if torch.compiler.is_compiling() or learned(target):
        z, t, w = (None if x is None else x.reshape(len(x), -1) for x in (logits, threshold, mask))
        z = logits.reshape(*logits.shape[:2], -1)
        y = target.reshape(len(z), -1) if is_labels(logits, target) else target.reshape(z.shape)
        return definition((z, t, y, w), form, soft_statistics)
    return statistics(logits, threshold, target, mask, form)
