"""What the losses of weights made from the target share: their maps, and sums of voxels with these weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from monai_segloss.core.batch import AREA, SegBatch
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reduce import quotient
from monai_segloss.core.voxel_sum import VoxelSum
from monai_segloss.losses.voxel.weighted_cross_entropy import weighted_cross_entropy
from monai_segloss.maps.distance import distance_penalty_map

INSIDE = MapSpec.of("penalty", distance_penalty_map, {})
BOTH_SIDES = MapSpec.of("penalty", distance_penalty_map, {"both_sides": True})
"""The penalty of the voxels of a region by itself."""


def penalty(loss: SegLoss) -> MapSpec:
    """The penalty map of the target as a need: of all classes, or inside and outside of each region."""
    return BOTH_SIDES if loss.reader.sigmoid else INSIDE


def penalty_weights(batch: SegBatch, spec: MapSpec, factor: float) -> Tensor:
    """1 + factor Phi: (B, 1, *S) with one class per voxel, else of each channel (B, C, *S)."""
    if not batch.multilabel:
        return 1 + factor * scored_map(spec, batch.class_view()).sum(1, keepdim=True)
    if BOTH_SIDES.key != spec.key in batch.maps:  # a single channel without sigmoid has two sides too
        raise ValueError(
            f"{spec.key} has the inside of a region only, and a single channel needs both sides: leave it out, or pass "
            f"logits with sigmoid=True, where its name is {BOTH_SIDES.key}."
        )
    return 1 + factor * scored_map(BOTH_SIDES, batch.class_view())


def weighed_cross_entropy(batch: SegBatch, w: Tensor, weight: Tensor | None) -> VoxelSum:
    """w times the cross-entropy of each voxel, over the number of voxels; ``w`` (B, 1 | C, *S), ``weight`` per class."""
    return weighted_cross_entropy(batch, weight, w, "voxels")


def weighed_area(batch: SegBatch, w: Tensor) -> Sequence[Tensor]:
    """True positives, false positives and false negatives (B, C) of voxels with the weights w (B, 1 | C, *S)."""
    sums = VoxelSum(batch, dict.fromkeys(AREA, 1.0), weight_map=w).totals()
    return [sums[stat] for stat in AREA]


def per_volume(weights: Tensor, voxels: Tensor) -> Tensor:
    """Weights whose mean over so many voxels is 1; nothing where all are 0."""
    return quotient(weights * voxels, weights.sum())
