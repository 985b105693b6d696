from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import ReadingArgs, Unpack, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.shape.bounds import BoundedInUnits, Bounds, sizes


@register("size_penalty", tags=("size", "shape", "weak labels"))
class SizePenaltyLoss(BoundedInUnits):
    r"""Square of how far the size of each class lies outside of its bounds.

    Formula: \max(V - u, 0)^2 + \max(l - V, 0)^2,\quad V = \frac{1}{N} \sum_i p_i

    When: Alongside cross-entropy or Dice, where the size of an organ is known and its labels are few or partial. It says
    nothing about where the class is. Bounds of whole cases need images of whole cases.

    One value per (sample, class). V and the bounds are shares of the N voxels that count, whatever the unit of the bounds:
    the authors' code has once voxels, once shares, once means and once sums over the image, and its weight of 0.01 belongs
    to one of them. A class with bounds [0, 0] is pushed out of the image. Without ``bounds`` those of the label hold, so
    that the loss compares volumes; then it goes with patches. Ignored voxels are in no size: a lower bound asks too much
    of an object that they hide.

    Args:
        bounds: of the size, in mm^3 (mm^2 in 2-D) or as a share, see ``unit``: [lower, upper] of all scored classes or one
            such pair per class, where None is no bound; or the file of ``segloss prior bounds``. None: those of the label
            of each image, widened by ``margin``.
        include_background: whether channel 0 is scored; None: where channels are independent.

    Example:
        >>> import torch
        >>> from monai_segloss import SizePenaltyLoss
        >>> loss = SizePenaltyLoss(softmax=True, to_onehot_y=True, bounds=[0.1, 0.3], unit="share")
        >>> round(loss(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)).item(), 4)  # half of the image, 0.2 too much
        0.04

    Reference: Kervadec et al., Constrained-CNN losses for weakly supervised segmentation, MedIA 2019, arXiv:1805.04628.
    """

    def __init__(
        self,
        *,
        bounds: Bounds = None,
        unit: str = "mm",
        margin: float = 0.1,
        on_patches: bool = False,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(bounds, unit, margin, on_patches, include_background, common)

    def loss(self, batch: SegBatch) -> Unreduced:
        return Unreduced.table(outside(*sizes(self, batch)), batch.voxels)


def outside(x: Tensor, limits: Tensor) -> Tensor:
    """relu(x - u)^2 + relu(l - x)^2 of x (...) and bounds (..., 2)."""
    lower, upper = limits.unbind(-1)
    return (x - upper).clamp_min(0) ** 2 + (lower - x).clamp_min(0) ** 2
