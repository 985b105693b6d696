"""Boundary loss.  Kervadec et al., MIDL 2019 and Medical Image Analysis 2021."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.check import one_of
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.distances import mean_over_voxels, signed_distance
from monai_segloss.maps.distance import FILLS, MODES, Clip, Fill, Mode, clipping


def boundary(p: Tensor, phi: Tensor, g: Tensor | None = None) -> Tensor:
    """phi p at each voxel (B, C, *S), or phi (p - g), whose least value is 0."""
    return phi * (p if g is None else p - g)


class BoundaryForm:
    """The settings that the loss and the compounds with a boundary term share, and the table of their values.

    Args:
        mode, normalize, empty, clip, offset: see `BoundaryLoss`.
    """

    def __init__(self, mode: Mode, normalize: bool, empty: Fill, clip: Clip, offset: bool = True) -> None:
        one_of(MODES, mode=mode)
        one_of(FILLS, empty=empty)
        clipping(clip)
        self.offset = bool(offset)
        self.map = signed_distance(mode=mode, empty=empty, clip=clip, normalize=bool(normalize))

    def unreduced(self, view: ClassView) -> Unreduced:
        """Mean over voxels per (sample, class)."""
        batch = view.batch
        phi = scored_map(self.map, view)
        g = batch.one_hot[:, view.first :].to(phi.dtype) if self.offset else None
        return mean_over_voxels(boundary(view.prob, phi, g), view)


@register(
    "boundary",
    positional="include_background to_onehot_y sigmoid softmax other_act reduction batch",
    aliases=("surface_loss", "boundary_loss"),
    tags=("distance", "boundary", "imbalance"),
    recommended=Recommended(batch=False, arguments={"offset": True}),
    exempt={
        "perfect_prediction_is_zero": Exempt(
            "as published it lacks a constant of the target and is negative where all is right; offset=True adds it",
            cases=(
                "labels_3d",
                "labels_2d",
                "two_classes",
                "five_classes",
                "one_class",
                "empty_class",
                "ignored",
                "regions_masked",
            ),
        ),
    },
)
class BoundaryLoss(SegLoss):
    r"""Probabilities times the signed distance to the boundary of the target.

    Formula:
        \frac{1}{N} \sum_i \phi_i\, p_i,\quad \phi = \mathrm{signed\ distance,\ negative\ inside}

    When:
        Alongside Dice or cross-entropy where classes are small and the boundary matters: far mistakes cost more. Not
        alone, since a class that is absent from a patch gives no gradient, and weights do not carry over between
        millimeters, voxels and patch sizes.

    Distances are in mm. Up to a constant of the target this is half of the distance between the two boundaries in the
    sense of Kervadec et al.; ``offset=True`` adds the constant, so that the loss is 0 where all is right, with the same
    gradient. Soft targets are cut at 1/2 for the distances. A class without a boundary in the image has phi = 0.

    A keyword ``sdm`` of the call, or with other settings ``sdm_surface`` and the like as ``needs`` says, takes
    precomputed maps (`monai_segloss.transforms.SignedDistanceMapd`), of floating point, (B, C, *S) or of the scored
    classes only. Else they are made in the call, with its ``spacing``, that of a MetaTensor, or 1 and a warning. At 1
    mm the values are those of MONAI 1.6.1, which has no spacing.

    Args:
        mode: how a distance is measured, see `monai_segloss.maps.signed_distance_map`.  ``"kervadec"`` is MONAI's for
            voxels of 1 mm; with voxels that are not cubes ``"surface"`` treats both sides alike.
        normalize: divide each side of a map by its largest distance.
        offset: subtract the mean of phi g.
        empty: of an absent class, ``"zero"``, or the ``"diagonal"`` of the image, which punishes what is found there.
        clip: largest distance in mm, one number or (inside, outside).
        include_background: score channel 0 too, as MONAI does; the papers' binary experiments do not.
        batch: mean over the voxels of all samples at a time.

    Raises:
        TypeError: ``sdm`` of integers, or maps of other settings.
        ValueError: ``sdm`` of another shape; an unknown ``mode`` or ``empty``.

    Example:
        >>> import torch
        >>> from monai_segloss import BoundaryLoss
        >>> loss = BoundaryLoss(include_background=False, softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]]), spacing=(2.0,)).item(), 4)
        0.5

    Reference:
        Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019 and Medical Image Analysis 2021,
        arXiv:1812.07032.
    """

    formula_arguments = ("include_background", "batch")

    def __init__(
        self,
        *,
        include_background: bool = True,
        batch: bool = False,
        mode: Mode = "kervadec",
        normalize: bool = False,
        offset: bool = False,
        empty: Fill = "zero",
        clip: Clip = None,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **reading)
        self.form = BoundaryForm(mode, normalize, empty, clip, offset)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.form.map,)

    def loss(self, batch: SegBatch) -> Unreduced:
        return self.form.unreduced(batch.full_precision.class_view(self.include_background, self.batch))
