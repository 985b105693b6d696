"""Dice + cross-entropy + boundary loss, weight moving from the two to the third.  Ma et al., MIDL 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import ScoringArgs, SegLoss
from monai_segloss.core.reduce import Term
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.boundary import BoundaryForm
from monai_segloss.losses.compound.scheduled import Scheduled, share, term_schedule
from monai_segloss.losses.region.dice import DiceForm
from monai_segloss.losses.voxel.cross_entropy import cross_entropy, cross_entropy_statistics, smoothing
from monai_segloss.losses.voxel.weighting import is_multilabel
from monai_segloss.maps.distance import Clip, Fill, Mode
from monai_segloss.schedules import TermWeight


@register(
    "dice_ce_boundary",
    family="compound",
    summary="Dice plus cross-entropy, the default of nnU-Net, plus the boundary loss with a growing weight.",
    when="The baseline of nnU-Net with a pull to the boundary, for small or thin structures. Call set_epoch, as "
    "the trainers do; weights are per millimeter and do not carry over between spacings and patch sizes.",
    formula=r"(1 - \alpha_e)(\mathrm{Dice} + \mathrm{CE}) + \alpha_e\,\frac{1}{N} \sum_i \phi_i (p_i - g_i),\quad "
    r"\alpha_e = \min(0.01\,(e + 1),\, 0.99)",
    paper="Ma et al., How distance transform maps boost segmentation CNNs, MIDL 2020; Kervadec et al., MIDL 2019",
    doi="PMLR 121:479-492; arXiv:1812.07032",
    tags=("overlap", "likelihood", "distance", "boundary", "schedule"),
)
class DiceCEBoundaryLoss(Scheduled, SegLoss):
    """``lambda_dice`` * `DiceLoss` + ``lambda_ce`` * `CrossEntropyLoss` + ``lambda_boundary`` * `BoundaryLoss`.

    By default Kervadec's rebalancing of the boundary term against the other two, as Ma et al. compare losses: weights 0.99,
    0.99 and 0.01 in the first epoch (0 there in their code), 0.01 of it moved over in each, 0.01, 0.01 and 0.99 in the end.
    The boundary term is that of ``offset=True``, so that all terms are at least 0.  Dice and cross-entropy have no unit, the
    boundary term is in mm (1 with ``normalize``): its weight is per mm.

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
        J. Ma et al., MIDL 2020 (PMLR 121:479-492); H. Kervadec et al., arXiv:1812.07032; schedules from the authors' code
        and from memory.
    """

    scalar = True

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
        **common: Unpack[ScoringArgs],
    ) -> None:
        super().__init__(**common)
        self.dice = DiceForm(squared_pred, jaccard, self.smooth_nr, self.smooth_dr)
        self.label_smoothing = smoothing(label_smoothing, self.reader.sigmoid)
        self.boundary = BoundaryForm(mode, normalize, empty, clip)
        alpha = term_schedule("lambda_boundary", lambda_boundary)
        given = {"dice": ("lambda_dice", lambda_dice), "cross_entropy": ("lambda_ce", lambda_ce)}
        others = {term: share(name, value, "lambda_boundary", alpha) for term, (name, value) in given.items()}
        self.follow({**others, "boundary": alpha})

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.boundary.map,)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        if batch.wide is not batch:  # they are those of the copy that distances need anyway
            return ()
        weighted = self.class_weight is not None
        return self.dice.statistics + cross_entropy_statistics(is_multilabel(batch), weighted, self.label_smoothing)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        weight = self.weights(batch.classes)
        batch = batch.wide
        batch.request(*self.statistics(batch))
        view, each = batch.scored(self.include_background, self.batch), batch.scored(self.include_background)
        return self.weigh(
            batch,
            {
                "dice": lambda: self.dice.scores(view, view.foreground(weight)),
                "cross_entropy": lambda: cross_entropy(batch, weight, self.label_smoothing),
                "boundary": lambda: self.boundary.scores(each),
            },
        )
