"""Generalized Dice + boundary loss, as published.  Kervadec et al., MIDL 2019 and MedIA 2021."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import FormulaArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.boundary import BoundaryForm
from monai_segloss.losses.compound.scheduled import Scheduled, share, term_schedule
from monai_segloss.losses.region.generalized_dice import GeneralizedForm
from monai_segloss.maps.distance import Clip, Fill, Mode
from monai_segloss.schedules import TermWeight


@register(
    "generalized_dice_boundary",
    aliases=("gdl_boundary",),
    tags=("overlap", "distance", "boundary", "imbalance", "schedule"),
    recommended=Recommended(include_background=True),
)
class GeneralizedDiceBoundaryLoss(Scheduled, SegLoss):
    r"""Generalized Dice plus the boundary loss, which gets more of the weight in each epoch.

    Formula:
        (1 - \alpha_e)\,\mathrm{GDL} + \alpha_e\,\frac{1}{N} \sum_i \phi_i (p_i - g_i),\quad \alpha_e = \min(0.01\,(e +
        1),\, 0.99)

    When:
        The published form of the boundary loss: one small structure in a large image. Call set_epoch, as the trainers
        do; weights are per millimeter. Of many labels the generalized Dice trains mostly the smallest: prefer
        dice_boundary.

    By default the paper's rebalancing: weights 0.99 and 0.01 in the first epoch, 0.01 of it moved over in each, 0.01
    and 0.99 in the end. As published the generalized Dice has the background and the boundary term only the foreground
    (every region). The boundary term is `BoundaryLoss` with ``offset=True``: both terms are at least 0, with the same
    gradient. The generalized Dice has no unit; the boundary term is in mm (1 with ``normalize``) and its weight per mm.

    Args:
        lambda_dice: weight of the generalized Dice: a number, a schedule, its name or its mapping form
            (`monai_segloss.schedules`); None is 1 - ``lambda_boundary``.
        lambda_boundary: weight of the boundary term per mm, likewise.  The authors' constants are 0.01 and 0.1, alongside
            ``lambda_dice=1``.
        w_type: see `GeneralizedDiceLoss`.
        mode, normalize, empty, clip: see `BoundaryLoss`, whose map (``sdm``) the call takes.
        include_background: whether the generalized Dice scores channel 0.
        batch: generalized Dice over the batch; the boundary term is a mean over samples.
        smooth_nr, smooth_dr, reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Raises:
        ValueError: a weight that is none, or ``lambda_boundary`` above 1 without ``lambda_dice``.

    Example:
        >>> import torch
        >>> from monai_segloss import GeneralizedDiceBoundaryLoss
        >>> loss = GeneralizedDiceBoundaryLoss(lambda_dice=1, lambda_boundary=0.1, softmax=True, to_onehot_y=True)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]]), spacing=(2.0,))
        >>> round(value.item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}
        (0.775, {'generalized_dice': 0.625, 'boundary': 1.5})

    Reference:
        Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019 and Medical Image Analysis 2021,
        arXiv:1812.07032.

        The figures of the schedule from memory.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")
    scalar_only = True

    def __init__(
        self,
        *,
        lambda_dice: TermWeight | None = None,
        lambda_boundary: TermWeight = "rebalance",
        w_type: str = "square",
        mode: Mode = "kervadec",
        normalize: bool = False,
        empty: Fill = "zero",
        clip: Clip = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        self.form = GeneralizedForm.of(w_type, True, self.smooth_nr, self.smooth_dr, False)
        self.boundary = BoundaryForm(mode, normalize, empty, clip)
        alpha = term_schedule("lambda_boundary", lambda_boundary)
        self.follow(
            {"generalized_dice": share("lambda_dice", lambda_dice, "lambda_boundary", alpha), "boundary": alpha}
        )

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.boundary.map,)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return (
            self.form.statistics if batch.full_precision is batch else ()
        )  # else of the copy that distances need anyway

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        batch = batch.full_precision
        view, each = batch.class_view(self.include_background, self.batch), batch.class_view(batch.multilabel)
        return self.weighted_terms(
            batch,
            {
                "generalized_dice": lambda: Unreduced.table(self.form.table(view), view.voxel_count),
                "boundary": lambda: self.boundary.unreduced(each),
            },
        )
