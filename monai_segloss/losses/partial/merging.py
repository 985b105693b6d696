"""What the losses of partial labels share: which classes are labeled, and the merged background."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_segloss.core.arguments import shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import countable

VOID = -1e30
"""Logit of a class that is merged into the background: its probability is exactly 0."""


def labeled_indices(labeled: Sequence[int] | None) -> tuple[int, ...] | None:
    """``labeled``, checked: whole numbers of at least 0, or None."""
    if labeled is None:
        return None
    try:
        found = tuple(int(c) for c in labeled)
        fits = all(c >= 0 and c == given for c, given in zip(found, labeled, strict=True))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        fits = False
    if not fits:
        raise ValueError(f"labeled must hold indices of classes, 0 or more, got {shown(labeled)}.")
    return found


def refuse_sigmoid(sigmoid: bool) -> None:
    """Merging into the background needs one class per voxel."""
    if sigmoid:
        raise ValueError(
            "sigmoid=True: partial labels are defined for one class per voxel; leave channels without labels out by "
            "their class weight instead."
        )


def labeled_classes(batch: SegBatch, default: tuple[int, ...] | None) -> Tensor | None:
    """Whether each class of each sample is labeled, (B, C) bool; the background always is.  None where all are.

    Raises:
        ValueError: a map ``labeled`` that is not (B, C) of zeros and ones, an index beyond the classes, one channel only.
    """
    if batch.classes == 1:
        raise ValueError("input has a single channel; partial labels need a background and at least one class.")
    sent = batch.maps.get("labeled")
    shape = (batch.logits.shape[0], batch.classes)
    if sent is None:
        if default is None:
            return None
        if max(default, default=0) >= batch.classes:
            raise ValueError(f"labeled names the class {max(default)}; input has the classes 0 to {batch.classes - 1}.")
        row = [c == 0 or c in default for c in range(batch.classes)]
        return torch.tensor(row, device=batch.logits.device).expand(shape)
    if sent.is_meta:
        raise ValueError("labeled is on meta and has no values.")
    sent = countable(sent).to(batch.logits.device)
    if sent.shape != shape:
        raise ValueError(f"labeled has shape {tuple(sent.shape)}; expected {shape}, one value per sample and class.")
    if sent.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(((sent == 0) | (sent == 1)).all()):
        raise ValueError("labeled holds other values than 0 and 1; expected whether each class is labeled.")
    background = torch.arange(batch.classes, device=sent.device) == 0
    return (sent > 0) | background


def merged(batch: SegBatch, labeled: Tensor | None) -> SegBatch:
    """The batch with every class that is not labeled as part of the background, in prediction and target.

    The probabilities add up, by log-sum-exp of the logits for softmax; the channels of merged classes stay, empty.
    """
    if labeled is None:
        return batch
    kept = labeled.view(*labeled.shape, *(1,) * (batch.ndim - 2))
    organ = kept.clone()
    organ[:, 0] = False
    if batch.activation == "softmax":
        background = torch.logsumexp(batch.masked_logits.masked_fill(organ, VOID), 1, keepdim=True)
        rest, activation = batch.masked_logits[:, 1:].masked_fill(~kept[:, 1:], VOID), batch.activation
    else:
        p = batch.prob
        background = p.masked_fill(organ, 0).sum(1, keepdim=True)
        rest, activation = p[:, 1:].masked_fill(~kept[:, 1:], 0), "none"
    input = torch.cat((background, rest), 1)
    return SegBatch(input, merged_target(batch, labeled), batch.mask, activation, maps=batch.maps)


def merged_target(batch: SegBatch, labeled: Tensor | None) -> Tensor:
    """The target with voxels of classes that are not labeled as background: labels stay labels, channels channels."""
    if labeled is None:
        return batch.labels if batch.has_labels else batch.one_hot
    if batch.has_labels:
        known = labeled.gather(1, batch.labels.reshape(len(labeled), -1)).view_as(batch.labels)
        return batch.labels * known
    kept = labeled.view(*labeled.shape, *(1,) * (batch.ndim - 2))
    g = batch.one_hot
    background = g[:, :1] + g.masked_fill(kept, 0).sum(1, keepdim=True)
    return torch.cat((background.to(g.dtype), g[:, 1:].masked_fill(~kept[:, 1:], 0)), 1)


def exclusion(batch: SegBatch, labeled: Tensor | None) -> SegBatch:
    """The batch with, as target (B, C, *S), where each class must not be.

    A labeled class must not be where it is not; the background and a class without labels not in the labeled organs.
    """
    target = merged_target(batch, labeled)
    g = SegBatch(batch.logits, target, batch.mask, batch.activation).one_hot
    if labeled is not None:
        kept = labeled.view(*labeled.shape, *(1,) * (batch.ndim - 2))
        g = torch.where(kept, g, g[:, :1])
    never = ~g if g.dtype == torch.bool else 1 - g
    return SegBatch(batch.logits, never, batch.mask, batch.activation)
