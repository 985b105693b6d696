"""Hausdorff loss by distance transforms.  Karimi & Salcudean, IEEE TMI 2020."""

from __future__ import annotations

from typing import ClassVar, Unpack

from torch import Tensor

from monai_segloss.core.arguments import EXPONENT
from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.check import non_negative, one_of
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.distances import foreground_view, mean_over_voxels, predicted_masks, target_field
from monai_segloss.maps.distance import Side

FIELDS: tuple[Side, ...] = ("both", "inside")
BINARIZE = ("threshold", "argmax")


def hausdorff_dt(p: Tensor, g: Tensor, alpha: float, *fields: Tensor) -> Tensor:
    """(p - g)^2 times the sum of the distance fields to the power of alpha, (B, C, *S)."""
    weight = fields[0] ** alpha
    for field in fields[1:]:
        weight += field**alpha
    return (p - g) ** 2 * weight


class HausdorffForm:
    """The settings that the loss and its logarithm share, and the table of their values.

    Args:
        alpha, one_sided, field, binarize: see `HausdorffDTLoss`.
        sigmoid: whether several classes may hold at a voxel.
    """

    def __init__(self, alpha: float, one_sided: bool, field: Side, binarize: str, sigmoid: bool) -> None:
        (self.alpha,) = non_negative(alpha=alpha)
        one_of(FIELDS, field=field)
        one_of(BINARIZE, binarize=binarize)
        if binarize == "argmax" and sigmoid:
            raise ValueError("binarize='argmax' needs one class per voxel, so no sigmoid=True.")
        self.one_sided, self.argmax = bool(one_sided), binarize == "argmax"
        self.field = target_field(field)

    def unreduced(self, view: ClassView) -> Unreduced:
        """Mean over voxels per (sample, class)."""
        batch = view.batch
        whole = batch.prob if self.argmax else view.prob
        p = whole[:, -view.classes :]
        fields = [scored_map(self.field, view)]
        if not self.one_sided:
            valid = None if batch.mask is None else batch.mask[:, None]
            predicted = predicted_masks(whole.detach(), self.argmax)[:, -view.classes :]
            fields.append(self.field.make(predicted, batch.required_spacing, valid).to(batch.masked_logits.dtype))
        g = batch.one_hot[:, view.first :].to(p.dtype)
        return mean_over_voxels(hausdorff_dt(p, g, self.alpha, *fields), view)


@register(
    "hausdorff_dt",
    positional="alpha include_background to_onehot_y sigmoid softmax other_act reduction batch",
    aliases=("hausdorff", "hausdorff_distance_transform"),
    tags=("distance", "boundary"),
    recommended=Recommended(batch=False),
    exempt={
        "class_order": Exempt("as in MONAI channel 0 is left out by default, of regions too", cases=("regions",)),
        "perfect_prediction_is_the_minimum": Exempt(
            "a small step can take a probability past 1/2, where the distances of the prediction jump",
            cases=("five_classes",),
        ),
    },
)
class HausdorffDTLoss(SegLoss):
    r"""Squared error weighted by the distances to the boundaries of target and prediction.

    Formula:
        \frac{1}{N} \sum_i (p_i - g_i)^2 \left(d_g(i)^{\alpha} + d_p(i)^{\alpha}\right)

    When:
        Alongside Dice where the largest error counts, e.g. HD95. Far mistakes dominate; the distances of the prediction
        are computed in each step, which one_sided=True avoids. Weights do not carry over between spacings.

    d_g and d_p are at each voxel the distance in mm to the other side, of the target and of the prediction cut at 1/2.
    They carry no gradient. A class without a boundary has d = 0. Code that measures only inside of the mask is another
    loss: there a false positive far away weighs no more than one next to the object (``field="inside"``, for
    comparison).

    A keyword ``target_field`` of the call takes the precomputed d_g (`monai_segloss.transforms.DistanceFieldd`), of
    floating point, (B, C, *S) or of the scored classes only. Distances are measured in the ``spacing`` of the call,
    that of a MetaTensor, or 1 and a warning. At 1 mm the values are those of MONAI 1.6.1, which has no spacing and cuts
    distances to whole numbers where the target is one of integers.

    Args:
        alpha: exponent of the distances, at least 0; the paper finds 1 to 3 to work.
        one_sided: leave d_p out, equation 9 of the paper: no distance transform of the prediction.
        field: ``"both"`` sides of the mask, or only ``"inside"``.
        binarize: ``"threshold"`` the prediction at 1/2, as MONAI, or take the class of the largest probability,
            ``"argmax"``: with three classes or more a voxel may have none above 1/2.
        include_background: score channel 0 too; for regions, of which it is one, set it.
        batch: mean over the voxels of all samples at a time.

    Raises:
        ValueError: ``binarize="argmax"`` with ``sigmoid=True``.

    Example:
        >>> import torch
        >>> from monai_segloss import HausdorffDTLoss
        >>> loss = HausdorffDTLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]]), spacing=(2.0,)).item(), 4)
        2.5

    Reference:
        Karimi & Salcudean, Reducing the Hausdorff distance in medical image segmentation with CNNs, IEEE TMI 39(2),
        2020, arXiv:1904.10030.
    """

    formula_arguments = ("include_background", "batch")
    bounds: ClassVar = {"alpha": EXPONENT}

    def __init__(
        self,
        alpha: float = 2.0,
        *,
        include_background: bool = False,
        batch: bool = False,
        one_sided: bool = False,
        field: Side = "both",
        binarize: str = "threshold",
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **reading)
        self.form = HausdorffForm(alpha, one_sided, field, binarize, self.reader.sigmoid)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.form.field,)

    def loss(self, batch: SegBatch) -> Unreduced:
        return self.form.unreduced(foreground_view(self, batch.full_precision))
