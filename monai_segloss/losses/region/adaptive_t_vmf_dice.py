from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.card import FormulaArgs, RegionLoss, Unpack, non_negative, register
from monai_segloss.core.formula import TP, ClassView, Stat
from monai_segloss.losses.region.epoch_dice import EpochDice
from monai_segloss.schedules.base import whole

G_SQ = Stat("g_sq")
NOTHING = 1e-20
"""Least sum of squares, that of a prediction of nothing."""


@register(
    "adaptive_t_vmf_dice",
    aliases=("t_vmf_dice",),
    tags=("overlap", "similarity"),
    exempt={
        "calls_leave_no_trace": "each call adds to the counts that the Dice of its epoch is made of",
        "every_argument_matters": "scale acts from the second epoch on, when there is a Dice to follow",
    },
)
class AdaptiveTvMFDiceLoss(RegionLoss):
    r"""Cosine of prediction and target, sharpened class by class as training succeeds.

    Formula: (1 - S)^2,\quad S = \frac{1 + \cos}{1 + \kappa\,(1 - \cos)} - 1,\quad \cos = \frac{\sum p g}{|p|_2\,|g|_2}

    When: A Dice whose slope near a perfect prediction stays steep for classes that are learned already. Evidence is of
    few data sets; compare with dice and dice_ce.

    kappa_c = ``scale`` times the Dice coefficient of class c in the last epoch, 0 in the first. The coefficient is that
    of hard predictions in calls without gradients, which nnU-Net's validation makes, as published; where there were
    none, as with MONAI's trainer, of the calls in training. The trainers tell the epoch (``set_epoch``); in a loop of
    your own do so. The mean runs over samples and classes; a class that a sample has not leaves it, since its cosine is
    0 whatever is predicted. Coarser scales of deep supervision take kappa and add nothing to it.

    The counts and the coefficient are part of ``state_dict``.

    Args:
        scale: kappa at a Dice coefficient of 1, at least 0.

    Example:
        >>> import torch
        >>> from monai_segloss import AdaptiveTvMFDiceLoss
        >>> loss, p = AdaptiveTvMFDiceLoss(), torch.tensor([[[0.6, 0.8]]], requires_grad=True)
        >>> values = [round(loss(p, torch.tensor([[[0.0, 1.0]]])).item(), 4)]  # the cosine is 0.8
        >>> loss.set_epoch(1)
        >>> values + [loss.kappa.round().tolist(), round(loss(p, torch.tensor([[[0.0, 1.0]]])).item(), 4)]
        [0.04, [21.0], 2.7497]

    Reference: Kato & Hotta, Adaptive t-vMF Dice loss: an effective expansion of Dice loss for medical image
    segmentation, Comput. Biol. Med. 2024, arXiv:2207.07842.
    """

    formula_arguments = ("include_background", "batch", "weight")
    sums = (TP, Stat("p_sq"), G_SQ, Stat("se"))
    tells_scales_apart = True

    def __init__(self, *, scale: float = 32.0, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.scale,) = non_negative(scale=scale)
        self.epoch_dice = EpochDice()

    @property
    def kappa(self) -> Tensor:
        """kappa of each class in the present epoch, (C,)."""
        return self.scale * self.epoch_dice.dice

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0: kappa follows what the one before has counted."""
        whole(0, epoch=epoch)
        self.epoch_dice.start(int(epoch))

    def table(self, view: ClassView) -> Tensor:
        kappa = self.scale * self.epoch_dice(view.batch)[view.first :]
        tp, p_sq, g_sq, se = view.sums(*self.sums)
        return t_vmf_dice(tp, p_sq, g_sq, se, kappa)

    def voxel_count(self, view: ClassView) -> Tensor:
        return view.sums(G_SQ)[0]


def t_vmf_dice(tp: Tensor, p_sq: Tensor, g_sq: Tensor, se: Tensor, kappa: Tensor) -> Tensor:
    """(1 - S)^2 with 1 - S = d (1 + 2 kappa) / (1 + kappa d), d = 1 - cos, (B | 1, C).

    Near 1 the cosine comes from the squared error, so that small losses keep their digits.
    """
    p, g = (x.clamp_min(NOTHING).sqrt() for x in (p_sq, g_sq))
    cos, near = tp / (p * g), (se - (p - g) ** 2) / (2 * p * g)
    d = torch.where(cos > 0.5, near.clamp_min(0), 1 - cos)
    return (d * (1 + 2 * kappa) / (1 + kappa * d)) ** 2
