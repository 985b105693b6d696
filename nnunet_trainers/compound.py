"""Trainers of the compound losses."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerCombo(SegLossTrainer):
    """Weighted binary cross-entropy of each class + Dice."""

    key = "combo"


class nnUNetTrainerDiceBoundary(SegLossTrainer):
    """Dice + boundary loss, weight moving from one to the other."""

    key = "dice_boundary"


class nnUNetTrainerDiceCE(SegLossTrainer):
    """Dice + cross-entropy: the loss of stock nnU-Net, plus 1."""

    key = "dice_ce"


class nnUNetTrainerDiceCEBoundary(SegLossTrainer):
    """Dice + cross-entropy + boundary loss, weight moving from the two to the third."""

    key = "dice_ce_boundary"


class nnUNetTrainerDiceFocal(SegLossTrainer):
    """Dice + focal loss."""

    key = "dice_focal"


class nnUNetTrainerDiceHausdorffDT(SegLossTrainer):
    """Dice + Hausdorff loss by distance transforms, of the same size."""

    key = "dice_hausdorff_dt"


class nnUNetTrainerDiceTopK(SegLossTrainer):
    """Dice + cross-entropy of the k percent worst voxels."""

    key = "dice_topk"


class nnUNetTrainerExponentialLogarithmic(SegLossTrainer):
    """Powers of -ln Dice and of the cross-entropy."""

    key = "exponential_logarithmic"


class nnUNetTrainerGeneralizedDiceBoundary(SegLossTrainer):
    """Generalized Dice + boundary loss, as published."""

    key = "generalized_dice_boundary"


class nnUNetTrainerUnifiedFocal(SegLossTrainer):
    """Focal cross-entropy + focal Tversky."""

    key = "unified_focal"
