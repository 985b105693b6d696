"""nnU-Net's own trainers with the seeds, the schedule and the precision of ours.

nnU-Net finds this file through ``nnUNet_extTrainer`` and asks it for ``nnUNetTrainerCELoss_seed0_6epochs_50iterations``.
First weights and batches are those of our trainers with the same seed: only the loss differs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nnunetv2
import torch
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from monai_segloss.core import seeding
from nnunet_trainers import precision
from nnunet_trainers.base import EPOCHS, INITIALIZATION

NAME = re.compile(r"(nnUNetTrainer\w*)_seed(\d+)_(\d+)epochs_(\d+)iterations")
FOLDER, MODULE = Path(nnunetv2.__path__[0]) / "training" / "nnUNetTrainer", "nnunetv2.training.nnUNetTrainer"


class Scheduled:
    """What a name adds to a trainer of nnU-Net."""

    seed: int
    epochs: int
    iterations: int

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device or torch.device("cuda"))
        self.num_epochs, self.num_iterations_per_epoch = self.epochs, self.iterations

    def initialize(self) -> None:
        """As nnU-Net, from the seed."""
        seeding.seed_everything(self.seed, INITIALIZATION)
        super().initialize()
        precision.autocast(self.network, self.device)

    def on_epoch_start(self) -> None:
        """Every epoch from a seed of its own."""
        seeding.seed_everything(self.seed, EPOCHS, self.current_epoch, self.local_rank)
        super().on_epoch_start()


def __getattr__(name: str) -> Any:
    found = NAME.fullmatch(name)
    own = found and recursive_find_python_class(str(FOLDER), found[1], MODULE)
    if not own:
        raise AttributeError(name)
    seed, epochs, iterations = map(int, found.groups()[1:])
    return type(name, (Scheduled, own), {"seed": seed, "epochs": epochs, "iterations": iterations})
