"""What a card writes its formula with: the batch, the statistics of its voxels, the maps, and the scores that come out."""

from monai_segloss.core.batch import AREA, AREA_L1, TP, ClassView, SegBatch
from monai_segloss.core.counts import FORMULAS, Counts, Stat, Voxels
from monai_segloss.core.derivatives import no_second_derivative
from monai_segloss.core.exact import exact
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.reduce import Term, Unreduced, quotient
from monai_segloss.core.voxel_sum import VOXELS, VoxelSum

__all__ = [
    "AREA",
    "AREA_L1",
    "FORMULAS",
    "TP",
    "VOXELS",
    "ClassView",
    "Counts",
    "MapSpec",
    "SegBatch",
    "Stat",
    "Term",
    "Unreduced",
    "VoxelSum",
    "Voxels",
    "exact",
    "no_second_derivative",
    "quotient",
    "scored_map",
]  # fmt: skip
