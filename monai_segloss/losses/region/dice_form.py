"""The Dice ratio: what `DiceLoss`, the other ratios and the sums with a Dice term share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from monai_segloss.core.batch import AREA, AREA_L1, ClassView
from monai_segloss.core.counts import Stat
from monai_segloss.core.reduce import Unreduced, quotient

POSITIONAL = (
    "include_background to_onehot_y sigmoid softmax other_act squared_pred jaccard reduction smooth_nr smooth_dr batch "
    "weight"
)


def dice(tp: Tensor, error: Tensor, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Tensor:
    """1 - (2 TP + nr) / (2 TP + error + dr), written as its complement so that small losses keep their digits.

    ``error`` is FP + FN for Dice, sum (p - g)^2 for the squared form, 2 (FP + FN) for Jaccard.  Shape as given, (B, C).
    """
    return one_minus_ratio(2 * tp, error, smooth_nr, smooth_dr)


def one_minus_ratio(hits: Tensor, error: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """1 - (hits + nr) / (hits + error + dr) as its complement, same shape; 0 / 0, where nothing is smoothed, is 0."""
    shift = smooth_dr - smooth_nr
    return quotient(error + shift if shift else error, hits + error + smooth_dr)


@dataclass(frozen=True)
class DiceForm:
    """Which Dice: what `DiceLoss` and the compounds with a Dice term share."""

    squared_pred: bool
    jaccard: bool
    smooth_nr: float
    smooth_dr: float
    soft_label: bool = False

    @property
    def statistics(self) -> tuple[Stat, ...]:
        """The true positives first, then what adds up to the error."""
        if self.squared_pred:
            return (Stat("tp"), Stat("se"))
        return AREA_L1 if self.soft_label else AREA

    def table(self, view: ClassView) -> Tensor:
        """Dice loss per (sample, class), (B | 1, C)."""
        tp, *errors = view.sums(*self.statistics)
        error = errors[0] if len(errors) == 1 else errors[0] + errors[1]
        error = 2 * error if self.jaccard else error
        return dice(tp, error, self.smooth_nr, self.smooth_dr)

    def unreduced(self, view: ClassView, weight: Tensor | None) -> Unreduced:
        """The table with the samples that count."""
        return Unreduced.table(self.table(view), view.voxel_count, weight)
