from __future__ import annotations

from monai_segloss.core.card import FormulaArgs, Recommended, SegLoss, Unpack, register
from monai_segloss.core.formula import MapSpec, SegBatch, Unreduced, scored_map
from monai_segloss.losses.boundary.boundary import boundary
from monai_segloss.losses.boundary.distances import mean_over_voxels
from monai_segloss.maps.distance import region_wise_map


@register(
    "region_wise",
    aliases=("rw_loss", "rrw"),
    tags=("distance", "imbalance"),
    recommended=Recommended(include_background=True, batch=False, arguments={"offset": True}),
    exempt={"perfect_prediction_is_zero": "as published it lacks a constant of the target, which offset=True adds"},
)
class RegionWiseLoss(SegLoss):
    r"""Probabilities times a map that is -1 at the deepest voxel of a class and 1 outside of it.

    Formula: \frac{1}{N} \sum_i z_i\, p_i,\quad z_i = -\frac{d_i}{\max_j d_j} \text{ inside},\ 1 \text{ outside}

    When: A loss of distances that trains alone, without a second term or a schedule, as published. Outside of a class
    all errors weigh the same, however far; inside, the boundary weighs least.

    The mean runs over voxels and classes; z is the rectified map of the paper. d is the distance to the nearest voxel
    outside, max d the largest one of the sample and class. So z lies in [-1, 1] whatever the spacing, which matters
    where voxels are not cubes. An absent class has z = 1, which punishes what is found there; one that fills the image
    has z = -1 (this library's choices). Ignored voxels make no boundary and have z = 0. Soft targets are cut at 1/2.
    The least value is a constant of the target below 0, which ``offset=True`` takes away, with the same gradient.

    A keyword ``region_wise`` of the call takes precomputed maps, of floating point, (B, C, *S) or of the scored classes
    only: those of `monai_segloss.transforms.RegionWiseMapd`, or any other z, as the paper writes the boundary loss.

    Args:
        offset: subtract the mean of z g.
        include_background: score channel 0 too, as published.
        batch: mean over the voxels of all samples at a time.

    Raises:
        TypeError, ValueError: ``region_wise`` of integers; of another shape.

    Example:
        >>> import torch
        >>> from monai_segloss import RegionWiseLoss
        >>> label = torch.tensor([[[0, 0, 0, 1, 1]]])  # z of class 1 is 1, 1, 1, -1/2, -1
        >>> loss = RegionWiseLoss(include_background=False, softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 5), label, spacing=(3.0,)).item(), 4)
        0.15

    Reference: Valverde & Tohka, Region-wise loss for biomedical image segmentation, Pattern Recognition 136, 2023,
    arXiv:2108.01405.
    """

    formula_arguments = ("include_background", "batch")

    def __init__(self, *, offset: bool = False, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        self.offset = bool(offset)
        self.map = MapSpec.of("region_wise", region_wise_map, {})

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def loss(self, batch: SegBatch) -> Unreduced:
        batch = batch.full_precision
        view = batch.class_view(self.include_background, self.batch)
        z = scored_map(self.map, view)
        g = batch.one_hot[:, view.first :] if self.offset else None
        return mean_over_voxels(boundary, view, view.prob, z, g)
