"""Trainers of the voxel losses."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerCrossEntropy(SegLossTrainer):
    """Cross-entropy; binary cross-entropy of each region."""

    key = "cross_entropy"


class nnUNetTrainerFocal(SegLossTrainer):
    """Focal loss."""

    key = "focal"


class nnUNetTrainerTopKCrossEntropy(SegLossTrainer):
    """Cross-entropy of the k percent worst voxels."""

    key = "topk_cross_entropy"
