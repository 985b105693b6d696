"""Generalized Dice loss: labels pooled, each weighted by its volume.  Sudre et al., DLMIA 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import AREA, AREA_L1, ClassView
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.dice import dice

EXPONENTS = {"square": 2, "simple": 1, "uniform": 0}
"""``w_type`` -> exponent of the volume."""


def volume_weights(g: Tensor, exponent: int, scale_free: bool = True) -> Tensor:
    """Weights 1 / G^exponent of the classes of each row of volumes ``g`` (B | 1, C), same shape.

    An absent class gets the largest weight of its row, and 0 where the row has no class at all.  ``scale_free`` divides
    a row by its largest weight, so that volumes enter by their ratio only.
    """
    if exponent == 0:
        return torch.ones_like(g)
    there = g > 0
    smallest = torch.where(there, g, torch.inf).amin(1, keepdim=True)
    ratio = torch.where(there, smallest / torch.where(there, g, 1), smallest.isfinite().to(g))
    relative = ratio**exponent
    return relative if scale_free else relative / smallest**exponent


def pooled_dice(tp: Tensor, error: Tensor, w: Tensor, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Tensor:
    """1 - (2 sum_l w TP + nr) / (sum_l w (2 TP + error) + dr), error = FP + FN, as its complement, (B | 1, 1)."""
    return dice((w * tp).sum(1, keepdim=True), (w * error).sum(1, keepdim=True), smooth_nr, smooth_dr)


@dataclass(frozen=True)
class GeneralizedForm:
    """Which generalized Dice: what the plain and the penalized loss share."""

    exponent: int
    scale_free: bool
    smooth_nr: float
    smooth_dr: float
    soft_label: bool = False

    @staticmethod
    def of(w_type: object, scale_free: bool, smooth_nr: float, smooth_dr: float, soft_label: bool) -> GeneralizedForm:
        """The form of checked arguments; ``w_type`` may be MONAI's enumeration."""
        name = str(getattr(w_type, "value", w_type))
        if name not in EXPONENTS:
            raise ValueError(f"w_type must be one of {', '.join(map(repr, EXPONENTS))}, got {w_type!r}.")
        return GeneralizedForm(EXPONENTS[name], bool(scale_free), smooth_nr, smooth_dr, bool(soft_label))

    @property
    def statistics(self) -> tuple[Stat, ...]:
        """True positives, false positives, false negatives and the volume."""
        return (*(AREA_L1 if self.soft_label else AREA), Stat("g"))

    def table(self, view: ClassView) -> Tensor:
        """One minus the coefficient of each sample, (B | 1, 1)."""
        tp, fp, fn, g = view.sums(*self.statistics)
        w = volume_weights(g, self.exponent, self.scale_free)
        return pooled_dice(tp, fp + fn, w, self.smooth_nr, self.smooth_dr)


@register(
    "generalized_dice",
    positional="include_background to_onehot_y sigmoid softmax other_act w_type reduction smooth_nr smooth_dr batch "
    "soft_label",
    aliases=("gdl", "generalised_dice"),
    tags=("overlap", "imbalance"),
    recommended=Recommended(include_background=True),
)
class GeneralizedDiceLoss(RegionLoss):
    r"""One Dice for all labels together, each weighted by one over its squared volume.

    Formula:
        1 - \frac{2 \sum_l w_l\,TP_l + s_n}{\sum_l w_l\,(2\,TP_l + FP_l + FN_l) + s_d},\quad w_l = G_l^{-2}

    When:
        Labels of very different volume. A class of few voxels gets nearly all of the weight, so that with w_type
        'square' large classes are hardly trained where a class is tiny; 'simple' is milder.

    One value per sample, mean over samples. The weights of a sample are divided by the largest of them, which changes
    no ratio. Undivided (``scale_free=False``, MONAI's form) they are so small that the smoothing rules: with the
    default 1e-5 two classes of a million voxels each, both predicted wholly wrong, cost 0.286 instead of 1.

    An absent class has the largest weight of its sample. A sample with none of the scored classes gives 0 without
    gradient (with uniform weights: 1, nearly without); scoring the background prevents it. Regions (sigmoid) that are
    all absent have no such help: use ``batch=True``.

    Args:
        w_type: weight of a class of volume G: ``"square"`` 1/G^2, ``"simple"`` 1/G, ``"uniform"`` 1.
        soft_label: L1 form of the counts, for soft labels.
        scale_free: divide the weights of a sample by their largest.

    Raises:
        ValueError: another ``w_type``.

    Example:
        >>> import torch
        >>> from monai_segloss import GeneralizedDiceLoss
        >>> loss = GeneralizedDiceLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.625

    Reference:
        Sudre et al., Generalised Dice overlap as a deep learning loss function for highly unbalanced segmentations,
        DLMIA 2017, arXiv:1707.03237.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

    def __init__(
        self,
        *,
        w_type: str = "square",
        soft_label: bool = False,
        scale_free: bool = True,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        self.form = GeneralizedForm.of(w_type, scale_free, self.smooth_nr, self.smooth_dr, soft_label)
        self.sums = self.form.statistics

    def table(self, view: ClassView) -> Tensor:
        return self.form.table(view)
