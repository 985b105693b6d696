"""All losses, one file each.  Importing the package fills the registry; one line per loss."""

import monai_segloss.kernels  # noqa: F401  (registers the fast backends)
from monai_segloss.losses.compound.dice_ce import DiceCELoss
from monai_segloss.losses.compound.dice_focal import DiceFocalLoss
from monai_segloss.losses.compound.dice_topk import DiceTopKLoss
from monai_segloss.losses.compound.weighted_sum import WeightedSum
from monai_segloss.losses.instance.blob import BlobLoss
from monai_segloss.losses.instance.cc_dice_ce import CCDiceCELoss
from monai_segloss.losses.instance.inverse_weighted_cross_entropy import InverseWeightedCrossEntropyLoss
from monai_segloss.losses.instance.inverse_weighted_dice import InverseWeightedDiceLoss
from monai_segloss.losses.region.dice import DiceLoss
from monai_segloss.losses.region.focal_tversky import FocalTverskyLoss
from monai_segloss.losses.region.tversky import TverskyLoss
from monai_segloss.losses.voxel.balanced_cross_entropy import BalancedCrossEntropyLoss
from monai_segloss.losses.voxel.binary_cross_entropy import BinaryCrossEntropyLoss
from monai_segloss.losses.voxel.bootstrapped_cross_entropy import BootstrappedCrossEntropyLoss
from monai_segloss.losses.voxel.cross_entropy import CrossEntropyLoss
from monai_segloss.losses.voxel.focal import FocalLoss
from monai_segloss.losses.voxel.label_smoothing_cross_entropy import LabelSmoothingCrossEntropyLoss
from monai_segloss.losses.voxel.poly1_cross_entropy import Poly1CrossEntropyLoss
from monai_segloss.losses.voxel.seesaw import SeesawLoss
from monai_segloss.losses.voxel.topk_cross_entropy import TopKCrossEntropyLoss
from monai_segloss.losses.voxel.weighted_cross_entropy import WeightedCrossEntropyLoss

WeightedSum.__module__ = "monai_segloss"

__all__ = [
    "BalancedCrossEntropyLoss",
    "BinaryCrossEntropyLoss",
    "BlobLoss",
    "BootstrappedCrossEntropyLoss",
    "CCDiceCELoss",
    "CrossEntropyLoss",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "DiceTopKLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "InverseWeightedCrossEntropyLoss",
    "InverseWeightedDiceLoss",
    "LabelSmoothingCrossEntropyLoss",
    "Poly1CrossEntropyLoss",
    "SeesawLoss",
    "TopKCrossEntropyLoss",
    "TverskyLoss",
    "WeightedCrossEntropyLoss",
    "WeightedSum",
]
