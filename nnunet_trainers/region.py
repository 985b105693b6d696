"""Trainers of the region losses."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerDice(SegLossTrainer):
    """Soft Dice loss."""

    key = "dice"


class nnUNetTrainerTversky(SegLossTrainer):
    """Tversky loss: alpha weighs false positives, beta false negatives."""

    key = "tversky"


class nnUNetTrainerFocalTversky(SegLossTrainer):
    """Focal Tversky loss."""

    key = "focal_tversky"
