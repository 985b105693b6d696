"""What a card declares a loss with: its shape, its arguments and their checks, and its entry in the registry."""

from typing import Unpack

from monai_segloss.core import check
from monai_segloss.core.arguments import exponents, numbers, shown
from monai_segloss.core.check import non_negative, one_of, within
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import FormulaArgs, ReadingArgs, SegLoss, Weight, class_weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss

__all__ = [
    "Exempt",
    "FormulaArgs",
    "LossShapeError",
    "ReadingArgs",
    "Recommended",
    "RegionLoss",
    "SegLoss",
    "Unpack",
    "VoxelLoss",
    "Weight",
    "check",
    "class_weight",
    "exponents",
    "non_negative",
    "numbers",
    "one_of",
    "register",
    "shown",
    "within",
]  # fmt: skip
