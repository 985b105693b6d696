"""Trainers of the losses of partial labels.

Which classes a case has labels of is in ``labeled_classes.json`` beside the data set; without it the argument ``labeled`` of
the plans holds for all cases.
"""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerMarginalCrossEntropy(SegLossTrainer):
    """Cross-entropy with unlabeled classes as background."""

    key = "marginal_cross_entropy"


class nnUNetTrainerMarginalDice(SegLossTrainer):
    """Soft Dice with unlabeled classes as background."""

    key = "marginal_dice"


class nnUNetTrainerExclusionDice(SegLossTrainer):
    """Overlap of each class with where it must not be."""

    key = "exclusion_dice"


class nnUNetTrainerExclusionCrossEntropy(SegLossTrainer):
    """log(1 + p) of each class where it must not be."""

    key = "exclusion_cross_entropy"
