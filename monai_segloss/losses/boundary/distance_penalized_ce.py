"""Cross-entropy with more weight near boundaries.  Caliva et al., MIDL 2019."""

from __future__ import annotations

from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import ReadingArgs, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss, VoxelSum
from monai_segloss.losses.boundary.voxel_weights import penalty, penalty_weights, weighed_cross_entropy


@register(
    "distance_penalized_ce",
    aliases=("distance_penalized_cross_entropy", "dpce"),
    tags=("likelihood", "distance"),
    recommended=Recommended(include_background=None, batch=None),
)
class DistancePenalizedCELoss(VoxelLoss):
    r"""Cross-entropy whose voxels weigh more the nearer they are to the boundary of their class.

    Formula:
        \frac{1}{N} \sum_i (1 + \lambda \Phi_i)\, \mathrm{CE}_i,\quad \Phi_i = \frac{M_{y_i} - d_i}{M_{y_i} - m_{y_i}}

    When:
        Errors at the boundary, in classes of similar size. The weight of a voxel lies between 1 and 2 and falls over
        the whole depth of its class, so in a large background half of the image weighs more; compare with
        contour_aware.

    CE is `CrossEntropyLoss`. Phi is 1 at the boundary of a class and 0 where it is deepest. d is the distance of the
    voxel to the nearest voxel of another class in mm, M and m are the largest and the smallest d of its class in the
    sample. A class that is as deep everywhere has Phi = 1; one that fills the image has no boundary and Phi = 0.
    Ignored voxels make no boundary. The divisor is the number of voxels, not the sum of the weights. With sigmoid, or a
    single channel, the binary cross-entropy of each channel has weights of its own, from both sides of its region.

    A keyword ``penalty`` of the call takes the precomputed Phi of all classes, background included, of floating point,
    (B, C, *S) (`monai_segloss.transforms.DistancePenaltyMapd`); with sigmoid its name is ``penalty_both_sides``. A
    single channel without sigmoid takes none.

    Code that multiplies by the distance itself weighs voxels far from the boundary most, the opposite. Code of a
    well-known collection computes the weights and returns the plain cross-entropy.

    Args:
        lambda_phi: lambda; the paper has 1, and 0 is cross-entropy.
        weight: a factor per class, or one for all; with sigmoid on the positive term.
        reading: see `SegLoss`; ``reduction="none"`` gives one value per voxel.

    Raises:
        TypeError: ``penalty`` of integers.
        ValueError: ``penalty`` of another shape, or for a single channel without sigmoid; a negative ``lambda_phi``.

    Example:
        >>> import torch
        >>> from monai_segloss import DistancePenalizedCELoss
        >>> label = torch.tensor([[[0, 0, 0, 0, 1, 1, 1]]])
        >>> loss = DistancePenalizedCELoss(softmax=True, to_onehot_y=True, reduction="none")
        >>> values = loss(torch.zeros(1, 2, 7), label, spacing=(2.0,)) / 0.6931
        >>> [round(x, 2) for x in values.flatten().tolist()]
        [1.0, 1.33, 1.67, 2.0, 2.0, 1.5, 1.0]

    Reference:
        Caliva, Iriondo, Martinez, Majumdar & Pedoia, Distance map loss penalty term for semantic segmentation, MIDL
        2019 (extended abstract), arXiv:1908.03679.

        That Phi lies in [0, 1], and its form for several classes, were not verified against the paper.
    """

    formula_arguments = ("weight",)
    own_pass = True

    def __init__(
        self, *, lambda_phi: float = 1.0, weight: Weight | None = None, **reading: Unpack[ReadingArgs]
    ) -> None:
        super().__init__(weight=weight, **reading)
        (self.lambda_phi,) = non_negative(lambda_phi=lambda_phi)
        self.map = penalty(self)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        w = penalty_weights(batch, self.map, self.lambda_phi)
        return weighed_cross_entropy(batch, w, self.weights(batch.classes))
