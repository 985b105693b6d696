"""The public names of `monai_segloss`, which loads them from here when first asked for."""

from monai_segloss.losses import *  # noqa: F403
from monai_segloss.losses import __all__ as _losses
from monai_segloss.recipes import recipe

_others = [
    "LossConfig",
    "LossInfo",
    "NetworkShape",
    "SegLoss",
    "Taps",
    "create",
    "find",
    "list_losses",
    "network_shape",
]
__all__ = [*_others, "recipe", *_losses]
