"""What the losses of distance maps share: the maps they need, and the mean over voxels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from monai_segloss.core.batch import Scored, SegBatch
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reduce import Scores
from monai_segloss.maps.distance import Fill, Mode, Side, distance_field, signed_distance_map


@dataclass(frozen=True)
class SignedDistance:
    """`signed_distance_map` with its settings, which pickles and compares."""

    mode: Mode = "kervadec"
    empty: Fill = "zero"
    clip: tuple[float, float] | None = None
    normalize: bool = False

    def __call__(self, masks: Tensor, spacing: Tensor | None, valid: Tensor | None) -> Tensor:
        return signed_distance_map(
            masks, spacing, valid, mode=self.mode, empty=self.empty, clip=self.clip, normalize=self.normalize
        )

    @property
    def spec(self) -> MapSpec:
        """The map as a need."""
        return MapSpec("sdm", self)


@dataclass(frozen=True)
class Field:
    """`distance_field` of one side or both, which pickles and compares."""

    side: Side = "both"

    def __call__(self, masks: Tensor, spacing: Tensor | None, valid: Tensor | None) -> Tensor:
        return distance_field(masks, spacing, valid, side=self.side)

    @property
    def spec(self) -> MapSpec:
        """The map of the target as a need."""
        return MapSpec("target_field", self)


def foreground_view(loss: SegLoss, batch: SegBatch) -> Scored:
    """The view of a loss whose default leaves channel 0 out, which says nothing of a single channel unless it was asked."""
    single = batch.classes == 1 and "include_background" not in loss.arguments
    return batch.scored(loss.include_background or single, loss.batch)


def mean_scores(values: Tensor, view: Scored) -> Scores:
    """Mean over the voxels that count of a map (B, C', *S), per (sample, class) or class."""
    present = view.present
    return Scores.table(view.fold(view.batch.total(values)) / present.clamp_min(1), present)
