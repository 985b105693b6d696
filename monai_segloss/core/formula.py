"""What a card writes its formula with: the batch, the statistics of its voxels, the maps, and the scores that come out."""

from monai_segloss.core.batch import AREA, AREA_L1, TP, Scored, SegBatch
from monai_segloss.core.counts import FORMULAS, Counts, Stat, Voxels
from monai_segloss.core.derivatives import no_second_derivative
from monai_segloss.core.exact import exact
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.reduce import Scores, Term, quotient
from monai_segloss.core.voxel_sum import VOXELS, VoxelSum

__all__ = [
    "AREA", "AREA_L1", "FORMULAS", "TP", "VOXELS", "Counts", "MapSpec", "Scored", "Scores", "SegBatch", "Stat", "Term",
    "VoxelSum", "Voxels", "exact", "no_second_derivative", "quotient", "scored_map",
]  # fmt: skip
