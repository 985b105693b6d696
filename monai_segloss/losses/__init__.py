"""All losses, one file each.  Importing the package fills the registry; one line per loss."""

import monai_segloss.kernels  # noqa: F401  (registers the fast backends)
from monai_segloss.losses.compound.dice_ce import DiceCELoss
from monai_segloss.losses.compound.dice_focal import DiceFocalLoss
from monai_segloss.losses.compound.dice_topk import DiceTopKLoss
from monai_segloss.losses.compound.weighted_sum import WeightedSum
from monai_segloss.losses.region.dice import DiceLoss
from monai_segloss.losses.region.focal_tversky import FocalTverskyLoss
from monai_segloss.losses.region.tversky import TverskyLoss
from monai_segloss.losses.voxel.cross_entropy import CrossEntropyLoss
from monai_segloss.losses.voxel.focal import FocalLoss
from monai_segloss.losses.voxel.topk_cross_entropy import TopKCrossEntropyLoss

WeightedSum.__module__ = "monai_segloss"

__all__ = [
    "CrossEntropyLoss",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "DiceTopKLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "TopKCrossEntropyLoss",
    "TverskyLoss",
    "WeightedSum",
]
