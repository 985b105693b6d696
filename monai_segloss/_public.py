"""The public names of `monai_segloss`, which loads them from here when first asked for."""

from monai_segloss.config import LossConfig
from monai_segloss.core.module import SegLoss
from monai_segloss.core.probe import network_shape
from monai_segloss.core.registry import LossInfo, create, find, list_losses
from monai_segloss.core.taps import NetworkShape, Taps
from monai_segloss.losses import *  # noqa: F403
from monai_segloss.losses import __all__ as _losses
from monai_segloss.recipes import recipe

__all__ = [
    "LossConfig",
    "LossInfo",
    "NetworkShape",
    "SegLoss",
    "Taps",
    "create",
    "find",
    "list_losses",
    "network_shape",
    "recipe",
    *_losses,
]
