from __future__ import annotations

from monai_segloss.core.card import ReadingArgs, Recommended, SegLoss, Unpack, exponents, register
from monai_segloss.core.formula import MapSpec, SegBatch, Unreduced
from monai_segloss.core.reduce import reduce
from monai_segloss.losses.boundary.distances import foreground_view
from monai_segloss.losses.boundary.hausdorff_dt import EXEMPT, HausdorffForm
from monai_segloss.maps.distance import Side


@register(
    "log_hausdorff_dt",
    positional="alpha include_background to_onehot_y sigmoid softmax other_act reduction batch",
    aliases=("log_hausdorff",),
    tags=("distance", "boundary"),
    recommended=Recommended(batch=False),
    exempt={**EXEMPT, "reductions_agree": "no sum of logarithms: they are taken after the reduction, as in MONAI"},
)
class LogHausdorffDTLoss(SegLoss):
    r"""log(1 + Hausdorff loss by distance transforms).

    Formula: \log\left(1 + \frac{1}{N} \sum_i (p_i - g_i)^2 \left(d_g(i)^{\alpha} + d_p(i)^{\alpha}\right)\right)

    When: As hausdorff_dt, where its size, which grows with distance squared, would drown the other terms of a sum.
    MONAI's; there is no paper, and the gradient shrinks where the loss is large.

    The logarithm is taken after the reduction; with ``reduction="none"`` of each (sample, class). The mean of the
    logarithms would be another loss, and at most as large.

    Args:
        alpha, one_sided, field, binarize, include_background, batch: see `HausdorffDTLoss`, also for ``target_field``.

    Example:
        >>> import torch
        >>> from monai_segloss import LogHausdorffDTLoss
        >>> loss = LogHausdorffDTLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]]), spacing=(2.0,)).item(), 4)
        1.2528

    Reference: MONAI, after Karimi & Salcudean, IEEE TMI 39(2), 2020, arXiv:1904.10030.
    """

    bounds = exponents("alpha")

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
