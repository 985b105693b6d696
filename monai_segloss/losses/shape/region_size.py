from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.card import ReadingArgs, Recommended, SegLoss, Unpack, one_of, register
from monai_segloss.core.formula import ClassView, SegBatch, Stat, Unreduced


@register("region_size", tags=("size", "shape"), recommended=Recommended(include_background=True))
class RegionSizeLoss(SegLoss):
    r"""Difference between the share of each class in the prediction and in the label.

    Formula: |\hat\pi - \pi|,\quad \hat\pi = \frac{1}{N} \sum_i p_i,\ \pi = \frac{1}{N} \sum_i g_i;\qquad \mathrm{or}\
    \mathrm{KL}(\pi \,\|\, \hat\pi)

    When: Alongside cross-entropy, with a weight that rises, against a bias of the predicted volume. It says nothing about
    where a class is. It goes with patches, whose own shares it compares.

    ``measure="l1"`` has one value per (sample, class). ``"kl"`` has one per sample, the sum over all classes of
    pi log(pi / pi^); of channels that are independent one per (sample, channel), with that of the complement. Logarithms
    are those of logits, so that a class that the prediction lacks has a gradient.

    Args:
        measure: ``"l1"`` or ``"kl"``.
        include_background: whether channel 0 is scored.

    Raises:
        ValueError: ``measure="kl"`` without the background where there is one class per voxel.

    Example:
        >>> import torch
        >>> from monai_segloss import RegionSizeLoss
        >>> label = torch.tensor([[[0, 0, 0, 1]]])
        >>> values = [RegionSizeLoss(softmax=True, to_onehot_y=True, measure=m)(torch.zeros(1, 2, 4), label)
        ...           for m in ("l1", "kl")]
        >>> [round(x.item(), 4) for x in values]  # 1/2 instead of 1/4 and 3/4
        [0.25, 0.1308]

    Reference: Liu et al., The hidden label-marginal biases of segmentation losses, 2021, arXiv:2104.08717.
    """

    def __init__(self, *, measure: str = "l1", include_background: bool = True, **common: Unpack[ReadingArgs]) -> None:
        super().__init__(include_background=include_background, **common)
        one_of(("l1", "kl"), measure=measure)
        self.measure = measure

    def loss(self, batch: SegBatch) -> Unreduced:
        view = batch.class_view(self.include_background)
        if self.measure == "kl" and view.first and not batch.multilabel:
            raise ValueError("include_background=False: measure='kl' compares the shares of all classes.")
        hit, extra, label = view.sums(Stat("tp"), Stat("fp"), Stat("g"))
        voxels = batch.voxels.clamp_min(1)
        if self.measure == "l1":
            return Unreduced.table((hit + extra - label).abs() / voxels, batch.voxels)
        return Unreduced.table(divergence(view, label / voxels), batch.voxels)


def divergence(view: ClassView, share: Tensor) -> Tensor:
    """KL of the shares (B, K) of the label from those of the prediction: (B, 1), or (B, K) of independent channels."""
    batch, voxels = view.batch, view.voxels

    def surprise(share: Tensor, log_p: Tensor) -> Tensor:
        """share log(share / mean of p), (B, K)."""
        log_p = log_p if batch.mask is None else log_p.masked_fill(~batch.mask[:, None], -torch.inf)
        log_sum = torch.logsumexp(log_p.flatten(2), 2)
        log_mean = torch.where(batch.voxels > 0, log_sum, 0) - batch.voxels.clamp_min(1).log()
        return torch.xlogy(share, share) - share * log_mean

    if not batch.multilabel:
        return surprise(share, voxels.lp).sum(1, keepdim=True)
    return surprise(share, voxels.lp) + surprise(1 - share, voxels.lq)
