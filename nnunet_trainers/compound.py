"""Trainers of the compound losses."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerDiceCE(SegLossTrainer):
    """Dice + cross-entropy: the loss of stock nnU-Net, plus 1."""

    key = "dice_ce"


class nnUNetTrainerDiceFocal(SegLossTrainer):
    """Dice + focal loss."""

    key = "dice_focal"


class nnUNetTrainerDiceTopK(SegLossTrainer):
    """Dice + cross-entropy of the k percent worst voxels."""

    key = "dice_topk"
