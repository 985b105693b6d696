"""Trainers of the region losses."""

from nnunet_trainers.base import SegLossTrainer


class nnUNetTrainerDice(SegLossTrainer):
    """Soft Dice loss."""

    key = "dice"


class nnUNetTrainerTversky(SegLossTrainer):
    """Tversky loss: alpha weighs false positives, beta false negatives."""

    key = "tversky"


class nnUNetTrainerFocalTversky(SegLossTrainer):
    """Focal Tversky loss."""

    key = "focal_tversky"


class nnUNetTrainerJaccard(SegLossTrainer):
    """Jaccard (IoU) loss."""

    key = "jaccard"


class nnUNetTrainerJaccardMetric(SegLossTrainer):
    """Jaccard metric loss; with hard labels the Jaccard loss."""

    key = "jaccard_metric"


class nnUNetTrainerGeneralizedDice(SegLossTrainer):
    """Generalized Dice loss, background included."""

    key = "generalized_dice"


class nnUNetTrainerPenaltyGeneralizedDice(SegLossTrainer):
    """Penalty generalized Dice loss, background included."""

    key = "penalty_generalized_dice"


class nnUNetTrainerGeneralizedWassersteinDice(SegLossTrainer):
    """Generalized Wasserstein Dice loss; distances between classes come with the plans."""

    key = "generalized_wasserstein_dice"


class nnUNetTrainerAsymmetricSimilarity(SegLossTrainer):
    """Asymmetric similarity loss: one minus F_beta."""

    key = "asymmetric_similarity"


class nnUNetTrainerSensitivitySpecificity(SegLossTrainer):
    """Sensitivity-specificity loss."""

    key = "sensitivity_specificity"


class nnUNetTrainerLogCoshDice(SegLossTrainer):
    """Log-cosh Dice loss."""

    key = "log_cosh_dice"


class nnUNetTrainerMCC(SegLossTrainer):
    """Matthews correlation coefficient loss."""

    key = "mcc"


class nnUNetTrainerNoiseRobustDice(SegLossTrainer):
    """Noise-robust Dice loss."""

    key = "noise_robust_dice"


class nnUNetTrainerHardnessWeightedDice(SegLossTrainer):
    """Hardness-weighted Dice loss."""

    key = "hardness_weighted_dice"


class nnUNetTrainerLovaszSoftmax(SegLossTrainer):
    """Lovász-Softmax loss."""

    key = "lovasz_softmax"


class nnUNetTrainerLovaszHinge(SegLossTrainer):
    """Lovász hinge loss; the network's outputs become margins."""

    key = "lovasz_hinge"


class nnUNetTrainerOverlap(SegLossTrainer):
    """Overlap term alone; it does not read the labels and is of use in a sum of losses only."""

    key = "overlap"


class nnUNetTrainerThresholdMapDice(SegLossTrainer):
    """Dice of a nearly hard prediction; without a head for thresholds the threshold is 1/2. Experimental."""

    key = "threshold_map_dice"


class nnUNetTrainerFocalPositive(SegLossTrainer):
    """Focal loss of the foreground of a nearly hard prediction; blind to false positives. Experimental."""

    key = "focal_positive"
