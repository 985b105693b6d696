"""nnU-Net v2 trainers, one for every loss of `monai_segloss`.

Each is an attribute of this package, as ``nnunet_trainers.nnUNetTrainerFocalTversky``, made when first asked for.  This
module is imported at interpreter start where ``segloss nnunet enable`` was used: standard library only.
"""

from __future__ import annotations

import os

# The module `typing` would take longer to import than everything else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

VARIABLE = "nnUNet_extTrainer"


def discovery_dir() -> str:
    """The folder in which nnU-Net finds the trainers; the value for the variable ``nnUNet_extTrainer``."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "discovery")


def extend_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Append the discovery folder to ``nnUNet_extTrainer``, after the user's own folders, at most once."""
    folders = [folder for folder in environ.get(VARIABLE, "").split(os.pathsep) if folder]
    if discovery_dir() not in folders:
        environ[VARIABLE] = os.pathsep.join([*folders, discovery_dir()])


def searches_more_folders(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether nnU-Net searches another folder for a trainer after this one."""
    folders = [os.path.realpath(each) for each in environ.get(VARIABLE, "").split(os.pathsep) if os.path.isdir(each)]
    own = os.path.realpath(discovery_dir())
    return own in folders and any(each != own for each in folders[folders.index(own) :])


def __getattr__(name: str) -> Any:
    if name.startswith("nnUNetTrainer"):
        from nnunet_trainers import trainers
        from nnunet_trainers.naming import TrainerNameError

        try:
            return trainers.find(name)
        except TrainerNameError as advice:  # for nnU-Net; here a name is asked for in Python
            raise AttributeError(str(advice)) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from nnunet_trainers import trainers

    return sorted({*globals(), *trainers.plain()})
