"""Exponential logarithmic loss: powers of -ln Dice and of the cross-entropy.  Wong et al., MICCAI 2018."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.arguments import EXPONENT, shown
from monai_segloss.core.batch import AREA, SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import ReadingArgs, SegLoss, class_weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.region.dice import dice

FLOOR = 1e-6
"""Below this a negative logarithm has no gradient: the derivative of a power below 1 is infinite at 0."""
LEAST = 1e-30
"""Below this a numerator of Dice has no gradient."""


def exponential_logarithmic_dice(tp: Tensor, error: Tensor, gamma: float, smooth_nr: float, smooth_dr: float) -> Tensor:
    """(-ln D)^gamma per class, (B | 1, C): the logarithm of 1 - D near D = 1, of the fraction's parts near D = 0."""
    loss, hits = dice(tp, error, smooth_nr, smooth_dr), 2 * tp + smooth_nr
    low = (hits + error + (smooth_dr - smooth_nr)).clamp_min(LEAST).log() - hits.clamp_min(LEAST).log()
    neg_log = torch.where(loss > 0.5, low, -torch.log1p(-loss.clamp_max(0.5)))
    return neg_log.clamp_min(FLOOR if gamma < 1 else 0) ** gamma


def frequency_weights(frequencies: Tensor, complement: bool = False) -> Tensor:
    """sqrt(sum f / f) per class; with ``complement`` those of a region and of what is outside of it, (2, C).

    A class that never occurs gets the weight of the rarest that does.
    """
    if complement:
        f = torch.stack((frequencies, 1 - frequencies))
        return _bounded(f).rsqrt()
    return (frequencies.sum() / _bounded(frequencies)).sqrt()


def _bounded(f: Tensor) -> Tensor:
    return torch.where(f > 0, f, torch.where(f > 0, f, torch.inf).amin())


@register(
    "exponential_logarithmic",
    aliases=("exp_log",),
    tags=("overlap", "likelihood", "imbalance"),
    recommended=Recommended(include_background=None),
    exempt={
        "perfect_prediction_is_zero": "a perfect prediction costs 1e-6 to the power gamma, 0.016 at gamma 0.3: below "
        "1e-6 the logarithms are held, their power has an infinite derivative at 0"
    },
)
class ExponentialLogarithmicLoss(SegLoss):
    r"""Weighted powers of -ln Dice and of the voxels' cross-entropy.

    Formula:
        \lambda_{Dice}\,\overline{(-\ln D_c)^{\gamma}} + \lambda_{CE}\,\overline{w_{y}\,(-\ln p_{y})^{\gamma}},\quad w_c
        = \sqrt{\textstyle\sum_k f_k / f_c}

    When:
        Structures of very different size, with the frequencies of the training set. Powers below 1 make the gradient
        grow where the prediction is nearly right, so it is noisy late in training; gamma 1 is the safe setting.

    The background is part of both terms. D is the Dice coefficient smoothed by 1. The power is taken per class and per
    voxel, before the mean. Regions (sigmoid, or a single channel): each channel against its complement, the mean over
    channels and voxels. The formula was not verified against the paper. SegLoss takes the logarithm of the mean Dice
    and no power of the cross-entropy; PyMIC squeezes the Dice and weighs by (f + .1)^-.5.

    Args:
        gamma: exponent of both terms, above 0.
        lambda_dice, lambda_ce: factors of the two terms, at least 0.
        frequencies: share of the voxels of the training set that each class has, background included (any multiple will
            do; for regions the share itself), from which w = sqrt(sum f / f); None: w = 1.
        smooth_nr, smooth_dr: added to the numerator and the denominator of Dice.
        batch, reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Example:
        >>> import torch
        >>> from monai_segloss import ExponentialLogarithmicLoss
        >>> loss = ExponentialLogarithmicLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.8332

    Reference:
        Wong et al., 3D segmentation with exponential logarithmic loss for highly unbalanced object sizes, MICCAI 2018,
        arXiv:1809.00076.
    """

    formula_arguments = ("batch", "smooth_nr", "smooth_dr")
    bounds: ClassVar = {"gamma": EXPONENT}
    scalar_only = True

    def __init__(
        self,
        *,
        gamma: float = 0.3,
        lambda_dice: float = 0.8,
        lambda_ce: float = 0.2,
        frequencies: Sequence[float] | Tensor | None = None,
        batch: bool = False,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(batch=batch, smooth_nr=smooth_nr, smooth_dr=smooth_dr, **reading)
        (self.gamma,) = check.non_negative(gamma=gamma)
        if self.gamma == 0:
            raise ValueError("gamma must be above 0; with 0 the loss is constant.")
        self.lambda_dice, self.lambda_ce = check.non_negative(lambda_dice=lambda_dice, lambda_ce=lambda_ce)
        self.register_buffer("frequencies", _frequencies(frequencies, self.reader.sigmoid))
        self.frequencies: Tensor | None

    def _powers(self, multilabel: bool) -> tuple[Stat, ...]:
        return tuple(Stat(name, self.gamma) for name in ("ce_power", "ce_neg_power")[: 1 + multilabel])

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return (*AREA, *self._powers(batch.multilabel))

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        view, multilabel = batch.class_view(over_batch=self.batch), batch.multilabel
        tp, fp, fn = view.sums(*AREA)
        overlap = exponential_logarithmic_dice(tp, fp + fn, self.gamma, self.smooth_nr, self.smooth_dr)
        powers = view.sums(*self._powers(multilabel))
        f = check.per_class("frequencies", self.frequencies, view.classes)
        if f is not None:
            weights = frequency_weights(f.to(tp), multilabel).view(-1, view.classes)
            powers = [w * x for w, x in zip(weights, powers, strict=True)]
        ce = Unreduced(sum(powers[1:], powers[0]), view.voxel_count if multilabel else view.voxel_count / view.classes)
        return {
            "dice": Term(self.lambda_dice, Unreduced.table(overlap, view.voxel_count)),
            "cross_entropy": Term(self.lambda_ce, ce),
        }


def _frequencies(values: Sequence[float] | Tensor | None, regions: bool) -> Tensor | None:
    if values is None:
        return None
    f = class_weight(values, "frequencies")
    if f.ndim != 1 or not bool(f.sum() > 0):
        raise ValueError(f"frequencies must be one number per class, not all 0, got {shown(values)}.")
    if regions and not bool((f <= 1).all()):
        raise ValueError(f"frequencies of regions are shares of the voxels and lie in [0, 1], got {shown(values)}.")
    return f
