"""Trainers of the losses of neighborhoods."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerStructuralSimilarity(SegLossTrainer):
    """Cross-entropy where the structure of prediction and target differs."""

    key = "structural_similarity"


class nnUNetTrainerRegionMutualInformation(SegLossTrainer):
    """Region mutual information with cross-entropy."""

    key = "region_mutual_information"
