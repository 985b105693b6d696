"""Region-wise loss.  Valverde & Tohka, Pattern Recognition 2023."""

from __future__ import annotations

from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.boundary import boundary
from monai_segloss.losses.boundary.distances import mean_over_voxels
from monai_segloss.maps.distance import region_wise_map


@register(
    "region_wise",
    aliases=("rw_loss", "rrw"),
    tags=("distance", "imbalance"),
    recommended=Recommended(include_background=True, batch=False, arguments={"offset": True}),
    exempt={
        "perfect_prediction_is_zero": "as published it lacks a constant of the target and is negative where all is right; "
        "offset=True adds it",
    },
)
class RegionWiseLoss(SegLoss):
    r"""Probabilities times a map that is -1 at the deepest voxel of a class and 1 outside of it.

    Formula:
        \frac{1}{N} \sum_i z_i\, p_i,\quad z_i = -\frac{d_i}{\max_j d_j} \text{ inside},\ 1 \text{ outside}

    When:
        A loss of distances that trains alone, without a second term or a schedule, as published. Outside of a class all
        errors weigh the same, however far; inside, the boundary weighs least.

    The mean runs over voxels and classes; z is the rectified map of the paper. d is the distance to the nearest voxel
    outside, max d the largest one of the sample and class. So z lies in [-1, 1] whatever the spacing, which matters
    where voxels are not cubes. An absent class has z = 1, which punishes what is found there; one that fills the image
    has z = -1. Ignored voxels make no boundary and have z = 0. Soft targets are cut at 1/2. The least value is a
    constant of the target below 0, which ``offset=True`` takes away, with the same gradient.

    A keyword ``region_wise`` of the call takes precomputed maps, of floating point, (B, C, *S) or of the scored classes
    only: those of `monai_segloss.transforms.RegionWiseMapd`, or any other z (the paper writes the boundary loss and
    others so).

    Args:
        offset: subtract the mean of z g.
        include_background: score channel 0 too, as published.
        batch: mean over the voxels of all samples at a time.

    Raises:
        TypeError: ``region_wise`` of integers.
        ValueError: ``region_wise`` of another shape.

    Example:
        >>> import torch
        >>> from monai_segloss import RegionWiseLoss
        >>> label = torch.tensor([[[0, 0, 0, 1, 1]]])  # z of class 1 is 1, 1, 1, -1/2, -1
        >>> loss = RegionWiseLoss(include_background=False, softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 5), label, spacing=(3.0,)).item(), 4)
        0.15

    Reference:
        Valverde & Tohka, Region-wise loss for biomedical image segmentation, Pattern Recognition 136, 2023,
        arXiv:2108.01405.

        What a full and an absent class have is this library's choice.
    """

    formula_arguments = ("include_background", "batch")

    def __init__(
        self,
        *,
        offset: bool = False,
        include_background: bool = True,
        batch: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **reading)
        self.offset = bool(offset)
        self.map = MapSpec.of("region_wise", region_wise_map, {})

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def loss(self, batch: SegBatch) -> Unreduced:
        batch = batch.full_precision
        view = batch.class_view(self.include_background, self.batch)
        z = scored_map(self.map, view)
        g = batch.one_hot[:, view.first :].to(z.dtype) if self.offset else None
        return mean_over_voxels(boundary(view.prob, z, g), view)
