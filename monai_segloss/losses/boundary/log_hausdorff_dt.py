"""Logarithm of the Hausdorff loss by distance transforms, as in MONAI."""

from __future__ import annotations

from typing import ClassVar, Unpack

from monai_segloss.core.arguments import EXPONENT
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced, reduce
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.distances import foreground_view
from monai_segloss.losses.boundary.hausdorff_dt import HausdorffForm
from monai_segloss.maps.distance import Side


@register(
    "log_hausdorff_dt",
    positional="alpha include_background to_onehot_y sigmoid softmax other_act reduction batch",
    aliases=("log_hausdorff",),
    tags=("distance", "boundary"),
    recommended=Recommended(batch=False),
    exempt={
        "class_order": Exempt("as in MONAI channel 0 is left out by default, of regions too", cases=("regions",)),
        "perfect_prediction_is_the_minimum": Exempt(
            "a small step can take a probability past 1/2, where the distances of the prediction jump",
            cases=("five_classes",),
        ),
        "reductions_agree": "the logarithm is taken of the reduced loss, as in MONAI, so a sum is no sum of logarithms",
    },
)
class LogHausdorffDTLoss(SegLoss):
    r"""log(1 + Hausdorff loss by distance transforms).

    Formula:
        \log\left(1 + \frac{1}{N} \sum_i (p_i - g_i)^2 \left(d_g(i)^{\alpha} + d_p(i)^{\alpha}\right)\right)

    When:
        As hausdorff_dt, where its size, which grows with distance squared, would drown the other terms of a sum.
        MONAI's; there is no paper, and the gradient shrinks where the loss is large.

    The logarithm is taken after the reduction; with ``reduction="none"`` of each (sample, class). The mean of the
    logarithms would be another loss, and at most as large.

    Args:
        alpha, one_sided, field, binarize, include_background, batch, reading: as for `HausdorffDTLoss`, the keyword
            ``target_field`` of the call too.

    Example:
        >>> import torch
        >>> from monai_segloss import LogHausdorffDTLoss
        >>> loss = LogHausdorffDTLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]]), spacing=(2.0,)).item(), 4)
        1.2528

    Reference:
        MONAI, after Karimi & Salcudean, IEEE TMI 39(2), 2020, arXiv:1904.10030.
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
        unreduced = self.form.unreduced(foreground_view(self, batch.full_precision))
        if self.reduction == "none":
            return Unreduced(unreduced.total.log1p(), unreduced.count)
        value, _ = reduce(unreduced, self.reduction, batch.ndim)
        return Unreduced(value.log1p(), value.new_ones(()))
