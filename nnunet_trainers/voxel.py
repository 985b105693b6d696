"""Trainers of the voxel losses."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerBalancedCrossEntropy(SegLossTrainer):
    """Cross-entropy in which each class weighs as much as all others take up."""

    key = "balanced_cross_entropy"


class nnUNetTrainerBinaryCrossEntropy(SegLossTrainer):
    """Binary cross-entropy of each region."""

    key = "binary_cross_entropy"


class nnUNetTrainerBootstrappedCrossEntropy(SegLossTrainer):
    """Cross-entropy of the voxels that are not yet certain."""

    key = "bootstrapped_cross_entropy"


class nnUNetTrainerCrossEntropy(SegLossTrainer):
    """Cross-entropy; binary cross-entropy of each region."""

    key = "cross_entropy"


class nnUNetTrainerFocal(SegLossTrainer):
    """Focal loss."""

    key = "focal"


class nnUNetTrainerLabelSmoothingCrossEntropy(SegLossTrainer):
    """Cross-entropy with smoothed labels."""

    key = "label_smoothing_cross_entropy"


class nnUNetTrainerPoly1CrossEntropy(SegLossTrainer):
    """Cross-entropy plus epsilon (1 - p)."""

    key = "poly1_cross_entropy"


class nnUNetTrainerSeesaw(SegLossTrainer):
    """Seesaw loss; its running counts are part of the checkpoint."""

    key = "seesaw"


class nnUNetTrainerTopKCrossEntropy(SegLossTrainer):
    """Cross-entropy of the k percent worst voxels."""

    key = "topk_cross_entropy"


class nnUNetTrainerWeightedCrossEntropy(SegLossTrainer):
    """Cross-entropy with class weights, which come with the plans."""

    key = "weighted_cross_entropy"
