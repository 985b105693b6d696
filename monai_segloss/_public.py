"""The public names of `monai_segloss`, which loads them from here when first asked for."""

from monai_segloss.config import LossConfig
from monai_segloss.core.module import SegLoss
from monai_segloss.core.registry import LossInfo, create, find, list_losses
from monai_segloss.losses import *  # noqa: F403
from monai_segloss.losses import __all__ as _losses
from monai_segloss.recipes import recipe

__all__ = ["LossConfig", "LossInfo", "SegLoss", "create", "find", "list_losses", "recipe", *_losses]
