"""Trainers of the losses of connected components."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerBlob(SegLossTrainer):
    """Blob loss: Dice + cross-entropy of each lesion, beside the global one."""

    key = "blob"


class nnUNetTrainerCCDiceCE(SegLossTrainer):
    """Dice + cross-entropy in the Voronoi cell of each lesion, beside the global one."""

    key = "cc_dice_ce"


class nnUNetTrainerInverseWeightedCrossEntropy(SegLossTrainer):
    """Cross-entropy in which every lesion weighs the same."""

    key = "inverse_weighted_cross_entropy"


class nnUNetTrainerInverseWeightedDice(SegLossTrainer):
    """Squared Dice in which every lesion weighs the same."""

    key = "inverse_weighted_dice"
