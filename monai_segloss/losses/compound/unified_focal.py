"""Unified focal loss: focal cross-entropy and focal Tversky with shared parameters.  Yeung et al., CMIG 2022."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import AREA, ClassView, SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.region.focal_tversky import focal_tversky
from monai_segloss.losses.region.tversky import tversky

KINDS = ("asymmetric", "symmetric")


def unified_focal_statistics(multilabel: bool, asymmetric: bool, gamma: float) -> tuple[Stat, Stat]:
    """The sums of the foreground and of the background (regions: of the complement) part of the cross-entropy."""
    return Stat("ce") if asymmetric else Stat("focal", gamma), Stat("focal_neg" if multilabel else "focal", gamma)


def unified_focal_ce(view: ClassView, asymmetric: bool, delta: float, gamma: float) -> Unreduced:
    """-(delta sum_fg log p_t + (1 - delta) sum_bg (1 - p_t)^gamma log p_t), (B | 1, C), and the voxels."""
    multilabel = view.batch.multilabel
    rare, common = view.sums(*unified_focal_statistics(multilabel, asymmetric, gamma))
    if multilabel:
        return Unreduced(delta * rare + (1 - delta) * common, view.voxel_count)
    total = torch.cat(((1 - delta) * common[:, :1], delta * rare[:, 1:]), 1)
    return Unreduced(total, view.voxel_count / view.classes)


def unified_focal_tversky(
    view: ClassView, asymmetric: bool, delta: float, gamma: float, smooth_nr: float, smooth_dr: float
) -> Tensor:
    """(1 - TI)^(1 - gamma) per class, (B | 1, C), delta on the false negatives; asymmetric: the background as 1 - TI."""
    n = view.counts()
    table = focal_tversky(n, 1 - delta, delta, 1 / (1 - gamma), smooth_nr, smooth_dr)
    if not asymmetric or view.batch.multilabel:
        return table
    return torch.cat((tversky(n, 1 - delta, delta, smooth_nr, smooth_dr)[:, :1], table[:, 1:]), 1)


@register(
    "unified_focal",
    aliases=("unified_focal_loss",),
    tags=("overlap", "likelihood", "imbalance", "recall"),
    recommended=Recommended(include_background=None),
)
class UnifiedFocalLoss(SegLoss):
    r"""Focal cross-entropy plus focal Tversky, with one weight and one exponent for both.

    Formula:
        \lambda\,\mathrm{CE}_{\delta,\gamma} + (1 - \lambda)\,\frac{1}{C}\sum_c (1 - TI_c)^{1 - \gamma_c},\quad TI =
        \frac{TP + s_n}{TP + \delta FN + (1 - \delta) FP + s_d}

    When:
        Strong imbalance between background and foreground. Two of its three parameters pull in opposite directions for
        easy voxels; compare with dice_ce and dice_focal on the same folds.

    Every class but 0 is foreground. Asymmetric: the exponent damps easy background voxels only, -(delta sum_fg log p_t
    + (1 - delta) sum_bg (1 - p_t)^gamma log p_t) / N. It lifts the foreground only, (1 - TI)^(1 - gamma); the
    background enters as 1 - TI. Symmetric: both exponents for all classes, as in the authors' code; the paper has gamma
    and 1 - gamma exchanged there, the same at .5. Regions (sigmoid, or a single channel): each channel is a foreground
    against its complement, TI is that of the region.

    ``lam`` multiplies the cross-entropy as in the paper (the authors' code: the Tversky part). MONAI's
    AsymmetricUnifiedFocalLoss halves the cross-entropy, knows two classes and applies no activation. With gamma 0 it is
    lam * weighted cross-entropy + (1 - lam) * Tversky. The formula was not verified against the paper, but against the
    authors' code. A perfect class costs sqrt(1e-6) in the Tversky part at gamma .5, see `FocalTverskyLoss`.

    Args:
        kind: ``"asymmetric"`` or ``"symmetric"``.
        lam: share of the cross-entropy, in [0, 1].
        delta: weight of the foreground and of false negatives, in [0, 1]; 1 - delta that of the background and of false
            positives.
        gamma: exponent, in [0, 1).
        common: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Example:
        >>> import torch
        >>> from monai_segloss import UnifiedFocalLoss
        >>> loss = UnifiedFocalLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.4548

    Reference:
        Yeung et al., Unified focal loss: generalising Dice and cross entropy-based losses to handle class imbalanced
        medical image segmentation, CMIG 2022, arXiv:2102.04525.
    """

    formula_arguments = ("batch", "smooth_nr", "smooth_dr")
    scalar_only = True

    def __init__(
        self,
        *,
        kind: str = "asymmetric",
        lam: float = 0.5,
        delta: float = 0.6,
        gamma: float = 0.5,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        if kind not in KINDS:
            raise ValueError(f"kind must be 'asymmetric' or 'symmetric', got {kind!r}.")
        self.kind = kind
        self.lam, self.delta = check.within(0, 1, lam=lam, delta=delta)
        if not 0 <= gamma < 1:
            raise ValueError(f"gamma must lie in [0, 1), got {gamma!r}.")
        self.gamma = float(gamma)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return (*AREA, *unified_focal_statistics(batch.multilabel, self.kind == "asymmetric", self.gamma))

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        view, shape = batch.class_view(over_batch=self.batch), (self.kind == "asymmetric", self.delta, self.gamma)
        ce = unified_focal_ce(view, *shape)
        table = unified_focal_tversky(view, *shape, self.smooth_nr, self.smooth_dr)
        return {
            "focal": Term(self.lam, ce),
            "focal_tversky": Term(1 - self.lam, Unreduced.table(table, view.voxel_count)),
        }
