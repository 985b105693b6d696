"""Dice + cross-entropy + boundary loss, weight moving from the two to the third.  Ma et al., MIDL 2020."""

from __future__ import annotations

from typing import Unpack

from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.scheduled import share, term_schedule
from monai_segloss.losses.compound.weighted_sum import Compound, part
from monai_segloss.maps.distance import Clip, Fill, Mode
from monai_segloss.schedules import TermWeight


@register(
    "dice_ce_boundary",
    tags=("overlap", "likelihood", "distance", "boundary", "schedule"),
)
class DiceCEBoundaryLoss(Compound):
    r"""Dice plus cross-entropy, the default of nnU-Net, plus the boundary loss with a growing weight.

    Formula:
        (1 - \alpha_e)(\mathrm{Dice} + \mathrm{CE}) + \alpha_e\,\frac{1}{N} \sum_i \phi_i (p_i - g_i),\quad \alpha_e =
        \min(0.01\,(e + 1),\, 0.99)

    When:
        The baseline of nnU-Net with a pull to the boundary, for small or thin structures. Call set_epoch, as the
        trainers do; weights are per millimeter and do not carry over between spacings and patch sizes.

    By default Kervadec's rebalancing of the boundary term against the other two, as Ma et al. compare losses: weights
    0.99, 0.99 and 0.01 in the first epoch (0 there in their code), 0.01 of it moved over in each, 0.01, 0.01 and 0.99
    in the end. The boundary term is `BoundaryLoss` with ``offset=True``: all terms are at least 0. Dice and
    cross-entropy have no unit; the boundary term is in mm (1 with ``normalize``) and its weight per mm.

    Args:
        lambda_dice, lambda_ce: weights of Dice and cross-entropy: a number, a schedule, its name or its mapping form
            (`monai_segloss.schedules`); None is 1 - ``lambda_boundary``.
        lambda_boundary: weight of the boundary term per mm, likewise.
        squared_pred, jaccard: see `DiceLoss`.
        label_smoothing: see `CrossEntropyLoss`.
        mode, normalize, empty, clip: see `BoundaryLoss`, whose map (``sdm``) the call takes.
        include_background: whether Dice and the boundary term score channel 0; cross-entropy always does.
        batch: batch Dice; the boundary term is a mean over samples.
        weight: one factor per class for cross-entropy, background included; Dice uses those of the scored classes.
        smooth_nr, smooth_dr, reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Raises:
        ValueError: a weight that is none, or ``lambda_boundary`` above 1 without the other two.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceCEBoundaryLoss
        >>> loss = DiceCEBoundaryLoss(lambda_boundary=0.5, softmax=True, to_onehot_y=True)
        >>> value = loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]]), spacing=(2.0,))
        >>> round(value.item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}
        (1.0966, {'dice': 0.5, 'cross_entropy': 0.6931, 'boundary': 1.0})

    Reference:
        Ma et al., How distance transform maps boost segmentation CNNs, MIDL 2020, PMLR 121:479-492; Kervadec et al.,
        MIDL 2019, arXiv:1812.07032.

        Schedules from the authors' code and from memory.
    """

    def __init__(
        self,
        *,
        lambda_dice: TermWeight | None = None,
        lambda_ce: TermWeight | None = None,
        lambda_boundary: TermWeight = "rebalance",
        squared_pred: bool = False,
        jaccard: bool = False,
        label_smoothing: float = 0.0,
        mode: Mode = "kervadec",
        normalize: bool = False,
        empty: Fill = "zero",
        clip: Clip = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        alpha = term_schedule("lambda_boundary", lambda_boundary)
        lambda_dice = share("lambda_dice", lambda_dice, "lambda_boundary", alpha)
        lambda_ce = share("lambda_ce", lambda_ce, "lambda_boundary", alpha)
        distance = {"mode": mode, "normalize": normalize, "empty": empty, "clip": clip}
        super().__init__(
            common,
            dice=part("lambda_dice", lambda_dice, squared_pred=squared_pred, jaccard=jaccard),
            cross_entropy=part("lambda_ce", lambda_ce, label_smoothing=label_smoothing),
            boundary=part("lambda_boundary", alpha, offset=True, batch=False, **distance),
        )
