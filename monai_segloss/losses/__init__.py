"""All losses, one file each.  Importing the package fills the registry; one line per loss."""

import monai_segloss.kernels  # noqa: F401  (registers the fast backends)
from monai_segloss.losses.boundary.active_boundary import ActiveBoundaryLoss
from monai_segloss.losses.boundary.active_contour import ActiveContourLoss
from monai_segloss.losses.boundary.border_weighted_ce import BorderWeightedCELoss
from monai_segloss.losses.boundary.boundary import BoundaryLoss
from monai_segloss.losses.boundary.boundary_dou import BoundaryDoULoss
from monai_segloss.losses.boundary.boundary_f1 import BoundaryF1Loss
from monai_segloss.losses.boundary.boundary_iou import BoundaryIoULoss
from monai_segloss.losses.boundary.contour_aware import ContourAwareLoss
from monai_segloss.losses.boundary.contour_dice import ContourDiceLoss
from monai_segloss.losses.boundary.distance_penalized_ce import DistancePenalizedCELoss
from monai_segloss.losses.boundary.distance_penalized_dice import DistancePenalizedDiceLoss
from monai_segloss.losses.boundary.elastic_interaction import ElasticInteractionLoss
from monai_segloss.losses.boundary.generalized_surface import GeneralizedSurfaceLoss
from monai_segloss.losses.boundary.hausdorff_conv import HausdorffConvLoss
from monai_segloss.losses.boundary.hausdorff_dt import HausdorffDTLoss
from monai_segloss.losses.boundary.hausdorff_er import HausdorffERLoss
from monai_segloss.losses.boundary.layer_smoothness import LayerSmoothnessLoss
from monai_segloss.losses.boundary.log_hausdorff_dt import LogHausdorffDTLoss
from monai_segloss.losses.boundary.mumford_shah import MumfordShahLoss
from monai_segloss.losses.boundary.region_wise import RegionWiseLoss
from monai_segloss.losses.boundary.shape_aware import ShapeAwareLoss
from monai_segloss.losses.boundary.signed_distance_regression import SignedDistanceRegressionLoss
from monai_segloss.losses.boundary.surface_dice import SurfaceDiceLoss
from monai_segloss.losses.boundary.weighted_hausdorff import WeightedHausdorffLoss
from monai_segloss.losses.compound.combo import ComboLoss
from monai_segloss.losses.compound.dice_boundary import DiceBoundaryLoss
from monai_segloss.losses.compound.dice_ce import DiceCELoss
from monai_segloss.losses.compound.dice_ce_ace import DiceCEACELoss
from monai_segloss.losses.compound.dice_ce_boundary import DiceCEBoundaryLoss
from monai_segloss.losses.compound.dice_ce_skeleton_recall import DiceCESkeletonRecallLoss
from monai_segloss.losses.compound.dice_cldice import DiceclDiceLoss
from monai_segloss.losses.compound.dice_focal import DiceFocalLoss
from monai_segloss.losses.compound.dice_hausdorff_dt import DiceHausdorffDTLoss
from monai_segloss.losses.compound.dice_topk import DiceTopKLoss
from monai_segloss.losses.compound.exponential_logarithmic import ExponentialLogarithmicLoss
from monai_segloss.losses.compound.generalized_dice_boundary import GeneralizedDiceBoundaryLoss
from monai_segloss.losses.compound.unified_focal import UnifiedFocalLoss
from monai_segloss.losses.compound.weighted_sum import WeightedSum
from monai_segloss.losses.instance.blob import BlobLoss
from monai_segloss.losses.instance.cc_dice_ce import CCDiceCELoss
from monai_segloss.losses.instance.component_mil import ComponentMILLoss
from monai_segloss.losses.instance.component_tversky import ComponentTverskyLoss
from monai_segloss.losses.instance.inverse_weighted_cross_entropy import InverseWeightedCrossEntropyLoss
from monai_segloss.losses.instance.inverse_weighted_dice import InverseWeightedDiceLoss
from monai_segloss.losses.learned.adversarial import AdversarialLoss
from monai_segloss.losses.learned.besnet import BESNetLoss
from monai_segloss.losses.learned.bottleneck_match import BottleneckMatchLoss
from monai_segloss.losses.learned.conv_mcd import ConvMCDLoss
from monai_segloss.losses.learned.distance_regularized import DistanceRegularizedLoss
from monai_segloss.losses.learned.dmtn import DMTNLoss
from monai_segloss.losses.learned.inverse_form import InverseFormLoss
from monai_segloss.losses.learned.latent_shape import LatentShapeLoss
from monai_segloss.losses.learned.multi_scale_l1 import MultiScaleL1Loss
from monai_segloss.losses.learned.multi_task import MultiTaskLoss
from monai_segloss.losses.learned.psi_net import PsiNetLoss
from monai_segloss.losses.partial.exclusion_cross_entropy import ExclusionCrossEntropyLoss
from monai_segloss.losses.partial.exclusion_dice import ExclusionDiceLoss
from monai_segloss.losses.partial.marginal_cross_entropy import MarginalCrossEntropyLoss
from monai_segloss.losses.partial.marginal_dice import MarginalDiceLoss
from monai_segloss.losses.region.adaptive_t_vmf_dice import AdaptiveTvMFDiceLoss
from monai_segloss.losses.region.asymmetric_similarity import AsymmetricSimilarityLoss
from monai_segloss.losses.region.dice import DiceLoss
from monai_segloss.losses.region.dice_metric import DiceMetricLoss
from monai_segloss.losses.region.dice_plus_plus import DicePlusPlusLoss
from monai_segloss.losses.region.focal_positive import FocalPositiveLoss
from monai_segloss.losses.region.focal_tversky import FocalTverskyLoss
from monai_segloss.losses.region.generalized_dice import GeneralizedDiceLoss
from monai_segloss.losses.region.generalized_wasserstein_dice import GeneralizedWassersteinDiceLoss
from monai_segloss.losses.region.hardness_weighted_dice import HardnessWeightedDiceLoss
from monai_segloss.losses.region.jaccard import JaccardLoss
from monai_segloss.losses.region.jaccard_metric import JaccardMetricLoss
from monai_segloss.losses.region.l1_ace import L1ACELoss
from monai_segloss.losses.region.log_cosh_dice import LogCoshDiceLoss
from monai_segloss.losses.region.lovasz_hinge import LovaszHingeLoss
from monai_segloss.losses.region.lovasz_softmax import LovaszSoftmaxLoss
from monai_segloss.losses.region.mcc import MCCLoss
from monai_segloss.losses.region.noise_robust_dice import NoiseRobustDiceLoss
from monai_segloss.losses.region.overlap import OverlapLoss
from monai_segloss.losses.region.penalty_generalized_dice import PenaltyGeneralizedDiceLoss
from monai_segloss.losses.region.sensitivity_specificity import SensitivitySpecificityLoss
from monai_segloss.losses.region.threshold_map_dice import ThresholdMapDiceLoss
from monai_segloss.losses.region.tversky import TverskyLoss
from monai_segloss.losses.region.tversky_metric import TverskyMetricLoss
from monai_segloss.losses.shape.compactness import CompactnessLoss
from monai_segloss.losses.shape.convexity import ConvexityLoss
from monai_segloss.losses.shape.log_barrier import LogBarrierLoss
from monai_segloss.losses.shape.moment_constraint import MomentConstraintLoss
from monai_segloss.losses.shape.perimeter import PerimeterLoss
from monai_segloss.losses.shape.region_size import RegionSizeLoss
from monai_segloss.losses.shape.size_penalty import SizePenaltyLoss
from monai_segloss.losses.shape.star_shape import StarShapeLoss
from monai_segloss.losses.shape.symmetry import SymmetryLoss
from monai_segloss.losses.structural.nacl import NACLLoss
from monai_segloss.losses.structural.region_mutual_information import RegionMutualInformationLoss
from monai_segloss.losses.structural.structural_similarity import StructuralSimilarityLoss
from monai_segloss.losses.topology.betti_prior import BettiPriorLoss
from monai_segloss.losses.topology.cb_dice import CbDiceLoss
from monai_segloss.losses.topology.cl_ce import ClCELoss
from monai_segloss.losses.topology.non_adjacency import NonAdjacencyLoss
from monai_segloss.losses.topology.persistence_matching import PersistenceMatchingLoss
from monai_segloss.losses.topology.skeleton_recall import SkeletonRecallLoss
from monai_segloss.losses.topology.soft_cldice import SoftclDiceLoss
from monai_segloss.losses.topology.topological_interaction import TopologicalInteractionLoss
from monai_segloss.losses.voxel.balanced_cross_entropy import BalancedCrossEntropyLoss
from monai_segloss.losses.voxel.binary_cross_entropy import BinaryCrossEntropyLoss
from monai_segloss.losses.voxel.bootstrapped_cross_entropy import BootstrappedCrossEntropyLoss
from monai_segloss.losses.voxel.cross_entropy import CrossEntropyLoss
from monai_segloss.losses.voxel.focal import FocalLoss
from monai_segloss.losses.voxel.label_smoothing_cross_entropy import LabelSmoothingCrossEntropyLoss
from monai_segloss.losses.voxel.margin_cross_entropy import MarginCrossEntropyLoss
from monai_segloss.losses.voxel.poly1_cross_entropy import Poly1CrossEntropyLoss
from monai_segloss.losses.voxel.seesaw import SeesawLoss
from monai_segloss.losses.voxel.topk_cross_entropy import TopKCrossEntropyLoss
from monai_segloss.losses.voxel.weighted_cross_entropy import WeightedCrossEntropyLoss

__all__ = [
    "ActiveBoundaryLoss",
    "ActiveContourLoss",
    "AdaptiveTvMFDiceLoss",
    "AdversarialLoss",
    "AsymmetricSimilarityLoss",
    "BESNetLoss",
    "BalancedCrossEntropyLoss",
    "BettiPriorLoss",
    "BinaryCrossEntropyLoss",
    "BlobLoss",
    "BootstrappedCrossEntropyLoss",
    "BorderWeightedCELoss",
    "BottleneckMatchLoss",
    "BoundaryDoULoss",
    "BoundaryF1Loss",
    "BoundaryIoULoss",
    "BoundaryLoss",
    "CCDiceCELoss",
    "CbDiceLoss",
    "ClCELoss",
    "ComboLoss",
    "CompactnessLoss",
    "ComponentMILLoss",
    "ComponentTverskyLoss",
    "ContourAwareLoss",
    "ContourDiceLoss",
    "ConvMCDLoss",
    "ConvexityLoss",
    "CrossEntropyLoss",
    "DMTNLoss",
    "DiceBoundaryLoss",
    "DiceCEACELoss",
    "DiceCEBoundaryLoss",
    "DiceCELoss",
    "DiceCESkeletonRecallLoss",
    "DiceFocalLoss",
    "DiceHausdorffDTLoss",
    "DiceLoss",
    "DiceMetricLoss",
    "DicePlusPlusLoss",
    "DiceTopKLoss",
    "DiceclDiceLoss",
    "DistancePenalizedCELoss",
    "DistancePenalizedDiceLoss",
    "DistanceRegularizedLoss",
    "ElasticInteractionLoss",
    "ExclusionCrossEntropyLoss",
    "ExclusionDiceLoss",
    "ExponentialLogarithmicLoss",
    "FocalLoss",
    "FocalPositiveLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceBoundaryLoss",
    "GeneralizedDiceLoss",
    "GeneralizedSurfaceLoss",
    "GeneralizedWassersteinDiceLoss",
    "HardnessWeightedDiceLoss",
    "HausdorffConvLoss",
    "HausdorffDTLoss",
    "HausdorffERLoss",
    "InverseFormLoss",
    "InverseWeightedCrossEntropyLoss",
    "InverseWeightedDiceLoss",
    "JaccardLoss",
    "JaccardMetricLoss",
    "L1ACELoss",
    "LabelSmoothingCrossEntropyLoss",
    "LatentShapeLoss",
    "LayerSmoothnessLoss",
    "LogBarrierLoss",
    "LogCoshDiceLoss",
    "LogHausdorffDTLoss",
    "LovaszHingeLoss",
    "LovaszSoftmaxLoss",
    "MCCLoss",
    "MarginCrossEntropyLoss",
    "MarginalCrossEntropyLoss",
    "MarginalDiceLoss",
    "MomentConstraintLoss",
    "MultiScaleL1Loss",
    "MultiTaskLoss",
    "MumfordShahLoss",
    "NACLLoss",
    "NoiseRobustDiceLoss",
    "NonAdjacencyLoss",
    "OverlapLoss",
    "PenaltyGeneralizedDiceLoss",
    "PerimeterLoss",
    "PersistenceMatchingLoss",
    "Poly1CrossEntropyLoss",
    "PsiNetLoss",
    "RegionMutualInformationLoss",
    "RegionSizeLoss",
    "RegionWiseLoss",
    "SeesawLoss",
    "SensitivitySpecificityLoss",
    "ShapeAwareLoss",
    "SignedDistanceRegressionLoss",
    "SizePenaltyLoss",
    "SkeletonRecallLoss",
    "SoftclDiceLoss",
    "StarShapeLoss",
    "StructuralSimilarityLoss",
    "SurfaceDiceLoss",
    "SymmetryLoss",
    "ThresholdMapDiceLoss",
    "TopKCrossEntropyLoss",
    "TopologicalInteractionLoss",
    "TverskyLoss",
    "TverskyMetricLoss",
    "UnifiedFocalLoss",
    "WeightedCrossEntropyLoss",
    "WeightedHausdorffLoss",
    "WeightedSum",
]
