from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, check, register
from monai_segloss.core.formula import SegBatch, Unreduced, no_second_derivative
from monai_segloss.core.sync import sum_over_processes
from monai_segloss.kernels.voxels import Left
from monai_segloss.kernels.weighed_cross_entropy import WeighedCrossEntropy


@register(
    "seesaw",
    tags=("likelihood", "imbalance"),
    support=("labels", "ignore", "2-D", "3-D"),
    exempt={
        "gradcheck": "the factors S carry no gradient, so the gradient is not the derivative of the value",
        "second_derivatives": "the factors S carry no gradient, so that there is none of the gradient either",
        "calls_leave_no_trace": "in training each call adds the voxels of its classes to the running counts",
    },
)
class SeesawLoss(SegLoss):
    r"""Cross-entropy whose negative gradients from frequent to rare classes are damped by running counts.

    Formula: \log \sum_j S_{y j}\, p_j - \log p_y,\quad S_{ij} = \min\left(1, \frac{N_j}{N_i}\right)^{p} \max\left(1,
    \frac{\bar p_j}{\max(\bar p_i, \epsilon)}\right)^{q}

    When: Many classes with a long tail. Made for instance classification; for voxels there is little evidence, the loss
    depends on what was seen before, and rare classes gain false positives.

    The mean runs over voxels; class j counts S_yj-fold at a voxel of class y. Mitigation (``p``) damps the push on
    class j where it has been seen less often than class y. Compensation (``q``) restores it where j is wrongly the more
    probable. The counts N are voxels, summed over all calls in training mode with gradients enabled, the present batch
    included, and over the processes. They are the buffer ``counts`` (int64) and part of ``state_dict``. In evaluation
    they stay. With deep supervision the coarser scales count too. ``reduction="none"``: (B, 1, *S).

    Args:
        p: exponent of the ratio of counts, at least 0.
        q: exponent of the ratio of probabilities, at least 0; with p = q = 0 it is the cross-entropy.
        eps: lower end of the probability that is divided by, in (0, 1].

    Raises:
        ValueError: ``sigmoid=True``, a single channel or a soft target: the loss is defined for one class per voxel.

    Example:
        >>> import torch
        >>> from monai_segloss import SeesawLoss
        >>> loss = SeesawLoss(softmax=True, to_onehot_y=True)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]]))
        >>> round(value.item(), 4), loss.counts.tolist()
        (0.4338, [3, 1])

    Reference: Wang et al., Seesaw loss for long-tailed instance segmentation, CVPR 2021, arXiv:2008.10032.
    """

    def __init__(self, *, p: float = 0.8, q: float = 2.0, eps: float = 1e-2, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        check.one_class_per_voxel("SeesawLoss", self.reader.sigmoid)
        self.p, self.q = check.non_negative(p=p, q=q)
        if not 0 < eps <= 1:
            raise ValueError(f"eps must lie in (0, 1], got {eps!r}.")
        self.eps = float(eps)
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.counts: Tensor

    def loss(self, batch: SegBatch) -> Unreduced:
        check.one_class_per_voxel("SeesawLoss", batch.multilabel)
        if not batch.has_labels:
            check.hard(batch.one_hot)
        wide = torch.float64 if batch.logits.dtype == torch.float64 else torch.float32
        settings = (mitigation(self._count(batch), self.p, wide), self.q, self.eps)
        if batch.activation == "softmax" and not torch.compiler.is_compiling():
            z, shape = no_second_derivative(batch.logits, "SeesawLoss"), (len(batch.logits), -1)
            mask = None if batch.mask is None else batch.mask.reshape(shape)
            given = z.reshape(*z.shape[:2], -1), batch.labels.reshape(shape), mask, Left(z)
            flat = WeighedCrossEntropy.apply(*given, log_factors, mitigated, *settings)
            value = flat.view(len(z), 1, *z.shape[2:])
        else:
            log_p = no_second_derivative(batch.log_prob, "SeesawLoss")  # the factors are constants of the first one
            value = mitigated(log_p, batch.labels, *settings)
        value = value if batch.mask is None else value * batch.mask[:, None]
        if self.reduction == "none":
            return Unreduced(value, batch.voxels)
        return Unreduced(value.flatten(1).sum(1, keepdim=True), batch.voxels)

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


def seesaw(log_p: Tensor, labels: Tensor, counts: Tensor, p: float, q: float, eps: float) -> Tensor:
    """log(sum_j S_ij p_j / p_i) of each voxel with the true class i, (B, 1, *S)."""
    return mitigated(log_p, labels, mitigation(counts, p, log_p.dtype), q, eps)


def mitigation(counts: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """log min(1, N_j/N_i)^p, (C, C)."""
    frequency = counts.clamp_min(1).to(dtype).log()
    return p * (frequency[None, :] - frequency[:, None]).clamp_max(0)


def mitigated(log_p: Tensor, labels: Tensor, mitigation: Tensor, q: float, eps: float) -> Tensor:
    """`seesaw` from the part of S that the counts make."""
    own = log_p.gather(1, labels[:, None])
    factor = log_factors(log_p.detach(), own.detach(), labels, mitigation, q, eps)
    return torch.logsumexp(log_p + factor, 1, keepdim=True) - own


def log_factors(log_p: Tensor, own: Tensor, labels: Tensor, mitigation: Tensor, q: float, eps: float) -> Tensor:
    """log S_ij = log(min(1, N_j/N_i)^p max(1, p_j / max(p_i, eps))^q), no gradient, (B, C, *S); log S_ii is 0.

    ``own`` is log p of the true class i, (B, 1, *S).
    """
    factor = (log_p - own.clamp_min(math.log(eps))).clamp_min_(0).mul_(q)
    return factor.add_(F.embedding(labels, mitigation).movedim(-1, 1))


def label_counts(batch: SegBatch) -> Tensor:
    """Voxels of each class that count, in the batch of all processes, (C,) int64."""
    labels = batch.labels.flatten()
    counted = torch.ones_like(labels) if batch.mask is None else batch.mask.flatten().long()
    return sum_over_processes(labels.new_zeros(batch.classes).scatter_add(0, labels, counted))
