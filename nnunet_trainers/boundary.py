"""Trainers of the losses of boundaries, contours and distances."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerBoundary(SegLossTrainer):
    """Boundary loss alone, with its constant; published only beside Dice or cross-entropy."""

    key = "boundary"


class nnUNetTrainerHausdorffDT(SegLossTrainer):
    """Hausdorff loss by distance transforms alone; published beside Dice."""

    key = "hausdorff_dt"


class nnUNetTrainerLogHausdorffDT(SegLossTrainer):
    """Logarithm of the Hausdorff loss by distance transforms alone."""

    key = "log_hausdorff_dt"


class nnUNetTrainerHausdorffER(SegLossTrainer):
    """Hausdorff loss by erosions alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "hausdorff_er"


class nnUNetTrainerHausdorffConv(SegLossTrainer):
    """Hausdorff loss by balls of several radii alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "hausdorff_conv"


class nnUNetTrainerBoundaryDoU(SegLossTrainer):
    """Boundary difference over union, over the batch and with the background, as published."""

    key = "boundary_dou"


class nnUNetTrainerBoundaryIoU(SegLossTrainer):
    """IoU of inner bands alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "boundary_iou"


class nnUNetTrainerBoundaryF1(SegLossTrainer):
    """F1 score of contours alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "boundary_f1"


class nnUNetTrainerContourDice(SegLossTrainer):
    """Contour Dice alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "contour_dice"


class nnUNetTrainerActiveContour(SegLossTrainer):
    """Active contour loss: length and region."""

    key = "active_contour"


class nnUNetTrainerMumfordShah(SegLossTrainer):
    """Mumford-Shah loss of the target in place of the image; for use in a sum of losses."""

    key = "mumford_shah"


class nnUNetTrainerElasticInteraction(SegLossTrainer):
    """Elastic interaction of boundaries alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "elastic_interaction"


class nnUNetTrainerContourAware(SegLossTrainer):
    """Cross-entropy with more weight near contours."""

    key = "contour_aware"


class nnUNetTrainerLayerSmoothness(SegLossTrainer):
    """Cross-entropy plus the smoothness of layers along the last axis."""

    key = "layer_smoothness"


class nnUNetTrainerActiveBoundary(SegLossTrainer):
    """Active boundary loss alone; add it to cross-entropy and Lovász-Softmax in a sum of losses."""

    key = "active_boundary"


class nnUNetTrainerDistancePenalizedCE(SegLossTrainer):
    """Cross-entropy with more weight near boundaries."""

    key = "distance_penalized_ce"


class nnUNetTrainerDistancePenalizedDice(SegLossTrainer):
    """Dice with more weight near boundaries."""

    key = "distance_penalized_dice"


class nnUNetTrainerBorderWeightedCE(SegLossTrainer):
    """Cross-entropy with U-Net's weights between instances."""

    key = "border_weighted_ce"


class nnUNetTrainerRegionWise(SegLossTrainer):
    """Region-wise loss with its constant, alone as published."""

    key = "region_wise"


class nnUNetTrainerWeightedHausdorff(SegLossTrainer):
    """Weighted Hausdorff distance to contours alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "weighted_hausdorff"


class nnUNetTrainerGeneralizedSurface(SegLossTrainer):
    """Generalized surface loss alone; published beside Dice and cross-entropy with a growing share."""

    key = "generalized_surface"


class nnUNetTrainerSurfaceDice(SegLossTrainer):
    """Dice of dilated contours alone; add it to Dice or cross-entropy in a sum of losses."""

    key = "surface_dice"


class nnUNetTrainerShapeAware(SegLossTrainer):
    """Cross-entropy plus that of wrong voxels times the distance between the contours."""

    key = "shape_aware"


class nnUNetTrainerSignedDistanceRegression(SegLossTrainer):
    """Regression of signed distances alone; published beside Dice."""

    key = "signed_distance_regression"
