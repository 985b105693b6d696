"""What the losses of components share: which channels have instances, and their components."""

from __future__ import annotations

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.counts import Voxels
from monai_segloss.kernels.components import Segments, connected_components
from monai_segloss.losses.voxel.cross_entropy import is_multilabel


def first_class(batch: SegBatch) -> int:
    """First channel with instances: with one class per voxel channel 0 is the background, which has none."""
    return 0 if is_multilabel(batch) else 1


def inside(batch: SegBatch) -> Tensor:
    """Voxels of each class with instances, bool (B, C', *S); a soft target is inside above 1/2."""
    return batch.one_hot[:, first_class(batch) :] > 0.5


def components(batch: SegBatch) -> Tensor:
    """Ids of the components of each class with instances, (B, C', *S) int64, 0 outside and where ignored.

    From the map ``components`` if the caller sent it, else found here, without the ignored voxels.

    Raises:
        ValueError: the map is not made of whole numbers from 0 to the number of voxels, or says 0 inside of a class.
    """
    mask, sent = inside(batch), batch.class_map("components")
    if sent is None:
        return connected_components(mask)
    sent = sent[:, first_class(batch) :] if sent.shape[1] == batch.classes > 1 else sent
    sent = sent if sent.is_floating_point() else sent.long()
    ids = sent.expand(mask.shape).masked_fill(~mask, 0)
    if not bool(((ids >= 0) & (ids <= mask.shape[2:].numel()) & (ids == ids.floor())).all()):
        raise ValueError("components holds ids that are not whole numbers from 0 to the number of voxels of a sample.")
    if bool((mask & (ids == 0)).any()):
        missing = int((mask & (ids == 0)).sum())
        raise ValueError(
            f"components is 0 at {missing} voxels of a class; expected the id of their component, 1 or more."
        )
    return ids.long()


def voxels(batch: SegBatch) -> Voxels:
    """Probabilities and their logarithms of the voxels; 0 logits where ignored."""
    return Voxels(batch.clean, batch.one_hot.to(batch.clean.dtype), batch.activation)


def instance_table(segments: Segments, values: Tensor, batch: SegBatch, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean of a value per component (T,) in each (sample, class), times the class weights, and which have components."""
    mean, there = (x.to(batch.clean.dtype) for x in segments.mean_by_row(values))
    if weight is not None and weight.ndim:
        weight = weight[first_class(batch) :]
    return mean if weight is None else mean * weight.to(mean), there


def clipping(clip: tuple[float, float] | None) -> tuple[float, float] | None:
    """``clip``, checked: (low, high) with 0 <= low <= high."""
    if clip is None:
        return None
    if len(clip) != 2:
        raise ValueError(f"clip must be None or (low, high), got {clip!r}.")
    low, high = non_negative(clip_low=clip[0], clip_high=clip[1])
    if low > high:
        raise ValueError(f"clip must be None or (low, high) with low <= high, got {clip!r}.")
    return low, high
