"""Trainers of the compound losses."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerCombo(SegLossTrainer):
    """Weighted binary cross-entropy of each class + Dice."""

    key = "combo"


class nnUNetTrainerDiceCE(SegLossTrainer):
    """Dice + cross-entropy: the loss of stock nnU-Net, plus 1."""

    key = "dice_ce"


class nnUNetTrainerDiceFocal(SegLossTrainer):
    """Dice + focal loss."""

    key = "dice_focal"


class nnUNetTrainerDiceTopK(SegLossTrainer):
    """Dice + cross-entropy of the k percent worst voxels."""

    key = "dice_topk"


class nnUNetTrainerExponentialLogarithmic(SegLossTrainer):
    """Powers of -ln Dice and of the cross-entropy."""

    key = "exponential_logarithmic"


class nnUNetTrainerUnifiedFocal(SegLossTrainer):
    """Focal cross-entropy + focal Tversky."""

    key = "unified_focal"
