"""Seesaw loss: rare classes are spared the negative gradients of frequent ones.  Wang et al., CVPR 2021."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core import check
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.reduce import Scores
from monai_segloss.core.registry import NnUNetPolicy, register
from monai_segloss.core.sync import sum_over_processes
from monai_segloss.losses.voxel.weighting import is_multilabel, weighted_map


def seesaw(log_p: Tensor, labels: Tensor, counts: Tensor, p: float, q: float, eps: float) -> Tensor:
    """log(sum_j S_ij p_j / p_i) of each voxel with the true class i, (B, 1, *S).

    S_ij = min(1, N_j/N_i)^p max(1, p_j / max(p_i, eps))^q carries no gradient; S_ii is 1.
    """
    frequency = counts.clamp_min(1).to(log_p.dtype).log()
    mitigation = p * (frequency[None, :] - frequency[:, None]).clamp_max(0)
    own, fixed = log_p.gather(1, labels[:, None]), log_p.detach()
    compensation = q * (fixed - own.detach().clamp_min(math.log(eps))).clamp_min(0)
    factor = F.embedding(labels, mitigation).movedim(-1, 1) + compensation
    return torch.logsumexp(log_p + factor, 1, keepdim=True) - own


def label_counts(batch: SegBatch) -> Tensor:
    """Voxels of each class that count, in the batch of all processes, (C,) int64."""
    labels = batch.labels.flatten()
    counted = torch.ones_like(labels) if batch.mask is None else batch.mask.flatten().long()
    return sum_over_processes(labels.new_zeros(batch.classes).scatter_add(0, labels, counted))


@register(
    "seesaw",
    family="voxel",
    summary="Cross-entropy whose negative gradients from frequent to rare classes are damped by running counts.",
    when="Many classes with a long tail. Made for instance classification; for voxels there is little evidence, the loss "
    "depends on what was seen before, and rare classes gain false positives.",
    formula=r"\log \sum_j S_{y j}\, p_j - \log p_y,\quad S_{ij} = \min\left(1, \frac{N_j}{N_i}\right)^{p} "
    r"\max\left(1, \frac{\bar p_j}{\max(\bar p_i, \epsilon)}\right)^{q}",
    paper="Wang et al., Seesaw loss for long-tailed instance segmentation, CVPR 2021",
    doi="arXiv:2008.10032",
    tags=("likelihood", "imbalance"),
    support=("labels", "ignore", "2-D", "3-D"),
    nnunet=NnUNetPolicy(include_background=None, batch=None),
    waive={
        "gradcheck": "the factors S carry no gradient, so the gradient is not the derivative of the value",
        "calls_leave_no_trace": "in training each call adds the voxels of its classes to the running counts",
    },
)
class SeesawLoss(SegLoss):
    """Cross-entropy of probabilities in which class j counts S_ij-fold at a voxel of class i, the mean over voxels.

    Mitigation (``p``) damps the push on class j where it has been seen less often than class i; compensation (``q``)
    restores it where j is wrongly the more probable.  The counts N are voxels, summed over all calls in training mode
    with gradients enabled, the present batch included, and over the processes; they are the buffer ``counts`` (int64)
    and part of ``state_dict``.  In evaluation they stay.  With deep supervision the coarser scales count too.
    ``reduction="none"``: (B, 1, *S).

    Args:
        p: exponent of the ratio of counts, at least 0.
        q: exponent of the ratio of probabilities, at least 0; with p = q = 0 it is the cross-entropy.
        eps: lower end of the probability that is divided by, in (0, 1].
        reading: see `SegLoss`.

    Raises:
        ValueError: ``sigmoid=True``, a single channel or a soft target: the loss is defined for one class per voxel.

    Example:
        >>> import torch
        >>> from monai_segloss import SeesawLoss
        >>> loss = SeesawLoss(softmax=True, to_onehot_y=True)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]]))
        >>> round(value.item(), 4), loss.counts.tolist()
        (0.4338, [3, 1])

    Reference:
        J. Wang et al., CVPR 2021, arXiv:2008.10032.
    """

    scoring = ()

    def __init__(self, *, p: float = 0.8, q: float = 2.0, eps: float = 1e-2, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        _one_class_per_voxel(self.reader.sigmoid)
        self.p, self.q = check.non_negative(p=p, q=q)
        if not 0 < eps <= 1:
            raise ValueError(f"eps must lie in (0, 1], got {eps!r}.")
        self.eps = float(eps)
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.counts: Tensor

    def loss(self, batch: SegBatch) -> Scores:
        _one_class_per_voxel(is_multilabel(batch))
        if not batch.has_labels:
            check.hard(batch.one_hot)
        value = seesaw(batch.log_prob, batch.labels, self._count(batch), self.p, self.q, self.eps)
        value = weighted_map(batch, value)
        if self.reduction == "none":
            return Scores(value, batch.voxels)
        return Scores(value.flatten(1).sum(1, keepdim=True), batch.voxels)

    def _count(self, batch: SegBatch) -> Tensor:
        """The running counts, in training with those of this batch."""
        classes = self.counts.shape[0]
        if classes not in (0, batch.classes):
            raise ValueError(f"input has {batch.classes} channels, but the counts so far are of {classes} classes.")
        counts = self.counts.to(batch.logits.device)
        if not classes:
            counts = counts.new_zeros(batch.classes)
        if self.training and torch.is_grad_enabled():
            counts = counts + label_counts(batch)
            self.counts = counts
        return counts

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}counts")
        if isinstance(saved, Tensor) and saved.shape != self.counts.shape:
            self.counts = self.counts.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _one_class_per_voxel(multilabel: bool) -> None:
    if multilabel:
        raise ValueError(
            "SeesawLoss is defined for one class per voxel; it cannot be combined with sigmoid=True or a single channel."
        )
