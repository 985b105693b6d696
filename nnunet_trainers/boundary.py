"""Trainers of the losses of boundaries, contours and distances."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerHausdorffER(SegLossTrainer):
    """Hausdorff loss by erosions alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "hausdorff_er"


class nnUNetTrainerHausdorffConv(SegLossTrainer):
    """Hausdorff loss by balls of several radii alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "hausdorff_conv"


class nnUNetTrainerBoundaryDoU(SegLossTrainer):
    """Boundary difference over union, over the batch and with the background, as published."""

    key = "boundary_dou"
