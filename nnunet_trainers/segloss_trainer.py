"""The trainer whose loss is written in the plans."""

from __future__ import annotations

from monai_segloss.config import LossConfig
from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerSegLoss(SegLossTrainer):
    """The loss that ``segloss nnunet plan`` wrote into the plans configuration."""

    @classmethod
    def name_parameters(cls) -> dict[str, type[int] | type[float]]:
        """None: the arguments of the loss stand in the plans."""
        return {}

    @classmethod
    def named_loss(cls) -> LossConfig | None:
        """None: the name says nothing about the loss."""
        return None

    def loss_config(self) -> LossConfig:
        """The loss of the plans configuration."""
        planned = self.planned_loss()
        if planned is None:
            raise LookupError(
                f"configuration {self.configuration_name!r} of {self.plans_manager.plans_name} names no loss: make one "
                "that does with `segloss nnunet plan`, or use the trainer of a loss"
            )
        return planned
