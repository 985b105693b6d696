"""The generalized Dice ratio: what `GeneralizedDiceLoss`, the penalized loss and the sum with a boundary term share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_segloss.core.batch import AREA, AREA_L1, ClassView
from monai_segloss.core.counts import Stat
from monai_segloss.losses.region.dice_form import dice

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
