"""Dice + boundary loss, weight moving from one to the other.  Kervadec et al., MIDL 2019 and MedIA 2021."""

from __future__ import annotations

from typing import Unpack

from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.scheduled import share, term_schedule
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.maps.distance import Clip, Fill, Mode
from monai_segloss.schedules import TermWeight


@register(
    "dice_boundary",
    tags=("overlap", "distance", "boundary", "imbalance", "schedule"),
)
class DiceBoundaryLoss(Compound):
    r"""Dice plus the boundary loss, which gets more of the weight in each epoch.

    Formula:
        (1 - \alpha_e)\,\mathrm{Dice} + \alpha_e\,\frac{1}{N} \sum_i \phi_i (p_i - g_i),\quad \alpha_e = \min(0.01\,(e +
        1),\, 0.99)

    When:
        Small or thin structures whose boundary counts, after Dice alone has found them. Call set_epoch, as the trainers
        do; weights are per millimeter and do not carry over between spacings and patch sizes.

    By default the paper's rebalancing, with Dice in the place of its generalized Dice: weights 0.99 and 0.01 in the
    first epoch, 0.01 of it moved over in each, 0.01 and 0.99 in the end. The boundary term is `BoundaryLoss` with
    ``offset=True``: both terms are at least 0, with the same gradient. Dice has no unit; the boundary term is in mm (1
    with ``normalize``) and its weight per mm.

    Args:
        lambda_dice: weight of Dice: a number, a schedule, its name or its mapping form (`monai_segloss.schedules`); None is
            1 - ``lambda_boundary``.
        lambda_boundary: weight of the boundary term per mm, likewise.  The authors' constants are 0.01 and 0.1, alongside
            ``lambda_dice=1``.
        squared_pred, jaccard: see `DiceLoss`.
        mode, normalize, empty, clip: see `BoundaryLoss`, whose map (``sdm``) the call takes.
        include_background: whether both terms score channel 0; the paper's boundary term does not.
        batch: batch Dice; the boundary term is a mean over samples.
        smooth_nr, smooth_dr, reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Raises:
        ValueError: a weight that is none, or ``lambda_boundary`` above 1 without ``lambda_dice``.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceBoundaryLoss
        >>> loss = DiceBoundaryLoss(softmax=True, to_onehot_y=True)
        >>> loss.set_epoch(49)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]]), spacing=(2.0,))
        >>> round(value.item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}
        (0.75, {'dice': 0.5, 'boundary': 1.0})

    Reference:
        Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019 and Medical Image Analysis 2021,
        arXiv:1812.07032.

        The figures of the schedule from memory.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

    def __init__(
        self,
        *,
        lambda_dice: TermWeight | None = None,
        lambda_boundary: TermWeight = "rebalance",
        squared_pred: bool = False,
        jaccard: bool = False,
        mode: Mode = "kervadec",
        normalize: bool = False,
        empty: Fill = "zero",
        clip: Clip = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        alpha = term_schedule("lambda_boundary", lambda_boundary)
        rest = share("lambda_dice", lambda_dice, "lambda_boundary", alpha)
        distance = {"mode": mode, "normalize": normalize, "empty": empty, "clip": clip}
        super().__init__(
            common,
            dice=part("lambda_dice", rest, squared_pred=squared_pred, jaccard=jaccard),
            boundary=part("lambda_boundary", alpha, offset=True, batch=False, **distance),
        )
