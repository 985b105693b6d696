"""What the losses of distance maps share: the maps they need, and the mean over voxels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.counts import one_hot_labels
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reduce import Unreduced
from monai_segloss.maps.distance import Side, distance_field, signed_distance_map


def signed_distance(**settings: Any) -> MapSpec:
    """`signed_distance_map` of the target as a need: the key is ``sdm`` for the defaults, see `map_key`."""
    return MapSpec.of("sdm", signed_distance_map, settings)


def target_field(side: Side) -> MapSpec:
    """`distance_field` of the target as a need, ``target_field`` for both sides."""
    return MapSpec.of("target_field", distance_field, {"side": side})


def predicted_masks(p: Tensor, argmax: bool) -> Tensor:
    """Masks of a prediction (B, C, *S) bool: above 1/2, or of several channels the largest one."""
    return one_hot_labels(p.argmax(1), p.shape[1]) if argmax and p.shape[1] > 1 else p > 0.5


def foreground_view(loss: SegLoss, batch: SegBatch) -> ClassView:
    """The view of a loss whose default leaves channel 0 out, which says nothing of a single channel unless it was asked."""
    single = batch.classes == 1 and "include_background" not in loss.arguments
    return batch.class_view(loss.include_background or single, loss.batch)


def mean_over_voxels(values: Tensor, view: ClassView) -> Unreduced:
    """Mean over the voxels that count of a map (B, C', *S), per (sample, class) or class."""
    voxel_count = view.voxel_count
    return Unreduced.table(view.reduce_batch(view.batch.total(values)) / voxel_count.clamp_min(1), voxel_count)
