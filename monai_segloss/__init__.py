"""Segmentation losses for 3-D CT and MR, as MONAI-compatible modules.

The names load when first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_segloss.config import LossConfig
    from monai_segloss.core.module import SegLoss
    from monai_segloss.core.registry import LossInfo, create, find, list_losses
    from monai_segloss.losses import *
    from monai_segloss.recipes import recipe

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        from monai_segloss import _public

        if name in _public.__all__:
            return getattr(_public, name)
    raise AttributeError(f"module 'monai_segloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    from monai_segloss import _public

    return sorted({*globals(), *_public.__all__})
