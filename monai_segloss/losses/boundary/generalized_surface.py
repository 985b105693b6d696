"""Generalized surface loss: errors weighted by squared distances, as a share of the worst.  Celaya et al., 2023."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import one_of
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import ReadingArgs, SegLoss, Weight
from monai_segloss.core.reduce import Unreduced, quotient
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.distances import signed_distance
from monai_segloss.losses.boundary.neighborhood import class_view
from monai_segloss.maps.distance import FILLS, MODES, Fill, Mode


def generalized_surface(error: Tensor, worst: Tensor) -> Tensor:
    """The sum of D^2 (1 - (1 - (g + p))^2) over that of D^2, (B | 1, K); 0 without a boundary."""
    return quotient(error, worst)


@register(
    "generalized_surface",
    aliases=("gsl",),
    tags=("distance", "boundary"),
)
class GeneralizedSurfaceLoss(SegLoss):
    r"""Errors weighted by their squared distance to the boundary of the target, as a share of the worst prediction.

    Formula:
        1 - \frac{\sum_k w_k \sum_i \left(D_{ik} (1 - (g_{ik} + p_{ik}))\right)^2}{\sum_k w_k \sum_i D_{ik}^2}

    When:
        In place of the boundary or a Hausdorff loss where weights should carry over: it lies in [0, 1] and does not
        know the unit of the spacing. Published alongside Dice and cross-entropy with a share that grows from 0 to 1.
        Voxels on the inner boundary weigh nothing, so alone it does not settle the last voxel.

    The sums run over the classes of a sample, the mean over samples. D is the distance to the boundary of the target;
    its square does not know the side. The loss is 0 where all is right, 1 for the opposite of the target, 3/4 where p
    is 1/2 everywhere. A class without a boundary has D = 0 and no influence. A sample without any is 0, where the
    formula says 0/0 and the authors' code 1. Their code also scores the background. Soft targets are cut at 1/2 for D.

    A keyword ``sdm_maurer`` of the call, or with other settings what ``needs`` says, takes precomputed maps
    (`monai_segloss.transforms.SignedDistanceMapd`), of floating point, (B, C, *S) or of the scored classes only. Else
    they are made in the call, with its ``spacing``, that of a MetaTensor, or 1 and a warning.

    Args:
        mode: how a distance is measured, see `monai_segloss.maps.signed_distance_map`; ``"maurer"``, as published, is 0 on
            the voxels of the inner boundary, ``"surface"`` on none.
        empty: D of an absent class, ``"zero"``, or the ``"diagonal"`` of the image as in the authors' code, which punishes
            what is found there.
        per_class: a ratio of each class with a boundary, and their mean: large classes no longer outweigh small ones.
        weight: w, one per class, that of the background without influence where it is not scored; in one ratio only their
            proportions matter.
        include_background: whether channel 0 is scored; None: where channels are independent.
        batch: sums over all samples at a time.

    Raises:
        TypeError: ``sdm_maurer`` of integers, or maps of other settings.
        ValueError: an unknown ``mode`` or ``empty``; ``weight`` of another length.

    Example:
        >>> import torch
        >>> from monai_segloss import GeneralizedSurfaceLoss
        >>> label = torch.tensor([[[0, 0, 1, 1, 1]]])  # D is 4, 2, 0, 2, 4
        >>> loss = GeneralizedSurfaceLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 5), label, spacing=(2.0,)).item(), 4)
        0.75

    Reference:
        Celaya, Riviere & Fuentes, A generalized surface loss for reducing the Hausdorff distance in medical imaging
        segmentation, 2023, arXiv:2302.03868.

        The choice of w in the paper was not verified; their code has given weights or 1 / (V^2 + 1), V the volume of
        the class.
    """

    formula_arguments = ("include_background", "batch", "weight")

    def __init__(
        self,
        *,
        mode: Mode = "maurer",
        empty: Fill = "zero",
        per_class: bool = False,
        weight: Weight | None = None,
        include_background: bool | None = None,
        batch: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, weight=weight, **reading)
        one_of(MODES, mode=mode)
        one_of(FILLS, empty=empty)
        self.background, self.per_class = include_background, bool(per_class)
        self.map = signed_distance(mode=mode, empty=empty)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def loss(self, batch: SegBatch) -> Unreduced:
        batch = batch.full_precision
        view = class_view(batch, self.background, self.batch)
        square = scored_map(self.map, view) ** 2
        both = view.prob + batch.one_hot[:, view.first :]
        error, worst = (view.reduce_batch(batch.total(x)) for x in (square * both * (2 - both), square))
        weight = view.foreground(self.weights(batch.classes))
        if self.per_class:
            return Unreduced.table(generalized_surface(error, worst), view.voxel_count * (worst != 0), weight)
        if weight is not None:
            error, worst = error * weight.to(error), worst * weight.to(worst)
        return Unreduced.table(generalized_surface(error.sum(1, True), worst.sum(1, True)), view.voxel_count)
