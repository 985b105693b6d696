"""Soft Jaccard (IoU) loss.  Rahman & Wang, ISVC 2016."""

from __future__ import annotations

from torch import Tensor

from monai_segloss.core.batch import ClassView
from monai_segloss.core.counts import Counts
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.tversky import tversky


def jaccard(n: Counts, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Tensor:
    """1 - (TP + nr) / (TP + FP + FN + dr) as its complement, (B | 1, C)."""
    return tversky(n, 1.0, 1.0, smooth_nr, smooth_dr)


@register(
    "jaccard",
    aliases=("iou", "soft_jaccard"),
    tags=("overlap", "imbalance"),
)
class JaccardLoss(RegionLoss):
    r"""One minus the soft Jaccard index (IoU) of each class.

    Formula:
        1 - \frac{TP + s_n}{TP + FP + FN + s_d}

    When:
        Where IoU is what is reported. It orders predictions of one class like Dice and differs in the mean over classes
        and samples, in which bad ones weigh more; as alone and as unstable for small structures as Dice.

    The mean runs over samples and classes. ``DiceLoss(jaccard=True)``, as MONAI has it, is the same loss with half of
    the smoothing. For soft labels see `JaccardMetricLoss`.

    Args:
        common: see `SegLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import JaccardLoss
        >>> loss = JaccardLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.6667

    Reference:
        Rahman & Wang, Optimizing intersection-over-union in deep neural networks for image segmentation, ISVC 2016,
        doi:10.1007/978-3-319-50835-1_22.
    """

    def table(self, view: ClassView) -> Tensor:
        return jaccard(view.counts(), self.smooth_nr, self.smooth_dr)
