"""The hardest voxels of a batch, a percentage of them."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.exact import widest_dtype
from monai_segloss.core.reduce import Unreduced


def hardest(batch: SegBatch, values: Tensor, k: float) -> Unreduced:
    """Sum and number of the k percent largest of ``values`` (B, 1 | C, *S) >= 0 that count, at least one."""
    if batch.mask is None:
        kept = max(1, int(values.numel() * k / 100))
        return Unreduced(values.flatten().topk(kept, sorted=False).values.sum(), values.new_tensor(float(kept)))
    channels = values.shape[1] if batch.multilabel else 1
    kept_of_mask = (batch.mask.sum().to(widest_dtype(values.device)) * channels * k / 100).floor().clamp_min(1)
    ranked = torch.where(batch.mask[:, None], values, values.new_full((), -1)).flatten()
    if ranked.device.type == "cpu" and not torch.compiler.is_compiling():
        ranked = ranked.topk(int(kept_of_mask), sorted=False).values
        return Unreduced(torch.where(ranked < 0, 0, ranked).sum(), kept_of_mask.to(values.dtype))
    # a number of voxels that depends on the mask, without waiting for the device: rank all, keep the first
    ranked = ranked.sort(descending=True).values
    chosen = (torch.arange(ranked.numel(), device=ranked.device) < kept_of_mask) & ~(ranked < 0)
    return Unreduced(torch.where(chosen, ranked, ranked.new_zeros(())).sum(), kept_of_mask.to(values.dtype))


def percentage(k: float) -> float:
    """``k``, checked."""
    if not 0 < k <= 100:
        raise ValueError(f"k is a percentage of the voxels and must lie in (0, 100], got {k!r}.")
    return float(k)
