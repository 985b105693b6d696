"""Sensitivity-specificity loss.  Brosch et al., MICCAI 2015."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import ClassView
from monai_segloss.core.check import within
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register

SQUARED = (Stat("se_g"), Stat("se_neg"), Stat("g"))
LINEAR = (Stat("fn"), Stat("fp"), Stat("g"))


def sensitivity_specificity(
    missed: Tensor, false: Tensor, g: Tensor, n: Tensor, r: float, smooth_dr: float = 1e-5
) -> Tensor:
    """r * missed / (G + dr) + (1 - r) * false / (N - G + dr), (B | 1, C).

    ``missed`` and ``false`` are sums of errors on and off the class, squared or not; ``n`` (B | 1, 1) counts the voxels.
    """
    # a class that is absent, or everywhere, makes no error of that kind: a slope of 1 / dr there would swamp the others
    on, off = (torch.where(volume > 0, volume + smooth_dr, torch.inf) for volume in (g, n - g))
    return r * missed / on + (1 - r) * false / off


@register(
    "sensitivity_specificity",
    tags=("imbalance", "recall"),
)
class SensitivitySpecificityLoss(RegionLoss):
    r"""Weighted sum of the mean squared error on a class and off it.

    Formula:
        r\,\frac{\sum g\,(g - p)^2}{G + s_d} + (1 - r)\,\frac{\sum (1 - g)(g - p)^2}{N - G + s_d}

    When:
        Lesions of less than a percent of the volume. r trades recall for false positives and must be tuned; with two
        classes and the background included the two channels mirror each other and r loses its effect.

    The mean runs over samples and classes. ``r`` weighs errors on the class (sensitivity). Errors off it weigh more, 1
    - r, since they can lie anywhere in the volume. Popular code swaps the names of the two parts; NiftyNet sums over
    the classes.

    Args:
        r: in [0, 1]; the paper tried 0.01 to 0.1 and used 0.05.
        squared: squared errors, as published; False gives r (1 - sensitivity) + (1 - r)(1 - specificity).
        common: see `SegLoss`; the only smoothing is ``smooth_dr``.

    Raises:
        ValueError: ``r`` outside of [0, 1].

    Example:
        >>> import torch
        >>> from monai_segloss import SensitivitySpecificityLoss
        >>> loss = SensitivitySpecificityLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 4, 4), torch.tensor([[[0, 1, 2, 3]]])).item(), 4)
        0.0875

    Reference:
        Brosch et al., Deep convolutional encoder networks for multiple sclerosis lesion segmentation, MICCAI 2015,
        doi:10.1007/978-3-319-24574-4_1.
    """

    formula_arguments = ("include_background", "batch", "smooth_dr", "weight")

    def __init__(self, *, r: float = 0.05, squared: bool = True, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.r,), self.squared = within(0, 1, r=r), bool(squared)
        self.sums = SQUARED if squared else LINEAR

    def table(self, view: ClassView) -> Tensor:
        missed, false, g = view.sums(*self.sums)
        return sensitivity_specificity(missed, false, g, view.voxel_count, self.r, self.smooth_dr)
