"""The Dice coefficient of the last epoch, which a loss may follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import one_hot_labels
from monai_segloss.core.derivatives import under_transform
from monai_segloss.core.exact import widest_dtype
from monai_segloss.core.sync import sum_over_processes


class EpochDice(nn.Module):
    """Dice coefficient of the hard predictions of an epoch, class by class.

    Of the calls without gradients (validation), where there were any, else of those in training; of all processes.
    ``counts`` (2, 3, C) holds both, as true positives, predicted and true voxels; ``dice`` (C) the last epoch's result.
    Before the first call there are no classes.
    """

    counts: Tensor
    dice: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(2, 3, 0, dtype=torch.int64))
        self.register_buffer("dice", torch.zeros(0, dtype=torch.float64))

    def forward(self, batch: SegBatch) -> Tensor:
        """Count a batch, unless it is of a coarser scale; the Dice coefficient of the last epoch, (C,), at first 0."""
        if self.counts.shape[2] not in (0, batch.classes):
            raise ValueError(
                f"input has {batch.classes} channels, but the counts so far are of {self.counts.shape[2]} classes."
            )
        training = torch.is_grad_enabled()
        if batch.full_resolution and (self.training or not training) and not under_transform():
            counts = self.counts.to(batch.logits.device)
            counts = counts.clone() if counts.shape[2] else counts.new_zeros(2, 3, batch.classes)
            counts[int(training)] += hard_counts(batch)
            self.counts = counts
        zero = batch.voxels.new_zeros(batch.classes)
        return zero + self.dice.to(zero) if len(self.dice) else zero

    @torch.no_grad()
    def start(self, epoch: int) -> None:
        """Begin an epoch: the coefficient is that of what was counted; at epoch 0 it is 0."""
        if not epoch:
            self.counts, self.dice = self.counts.new_zeros(2, 3, 0), self.dice.new_zeros(0)
        if not self.counts.numel():
            return
        validation, training = sum_over_processes(self.counts)
        hits, *sizes = validation if validation.any() else training
        size = (sizes[0] + sizes[1]).to(widest_dtype(hits.device))
        before = self.dice.to(size) if len(self.dice) else torch.zeros_like(size)
        self.dice = torch.where(size > 0, 2 * hits / size.clamp_min(1), before)
        self.counts = torch.zeros_like(self.counts)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in ("counts", "dice"):
            saved, own = state_dict.get(f"{prefix}{name}"), getattr(self, name)
            if isinstance(saved, Tensor) and saved.shape != own.shape:
                setattr(self, name, own.new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


@torch.no_grad()
def hard_counts(batch: SegBatch) -> Tensor:
    """True positives, predicted and true voxels of each class, (3, C): the largest channel, of regions above 1/2."""
    scores = batch.masked_logits if batch.activation == "softmax" else batch.prob
    found = scores > 0.5 if batch.multilabel else one_hot_labels(scores.argmax(1), batch.classes)
    found = found if batch.mask is None else found & batch.mask[:, None]
    true = batch.one_hot > 0.5
    return torch.stack([x.transpose(0, 1).flatten(1).sum(1) for x in (found & true, found, true)])
