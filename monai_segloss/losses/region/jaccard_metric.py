"""Jaccard metric loss: the L1 form, right for soft labels too.  Wang et al., NeurIPS 2023."""

from __future__ import annotations

from torch import Tensor

from monai_segloss.core.batch import AREA_L1, ClassView
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.jaccard import jaccard


@register(
    "jaccard_metric",
    aliases=("jml",),
    tags=("overlap", "soft labels"),
)
class JaccardMetricLoss(RegionLoss):
    r"""Jaccard loss in its L1 form, whose minimum lies at the target also for soft labels.

    Formula:
        1 - \frac{TP + s_n}{TP + FP + FN + s_d},\quad TP = \tfrac12 \sum (p + g - |p - g|)

    When:
        Soft labels: several raters, distillation, smoothed or resampled labels. With hard labels it is the Jaccard
        loss.

    FP = sum max(p - g, 0) and FN = sum max(g - p, 0); the mean runs over samples and classes. Where the label is a
    fraction the usual product form is smallest at a prediction of 0 or 1. The authors' code scores only the classes
    that a batch holds; here every class counts, as in `JaccardLoss`.

    Args:
        common: see `SegLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import JaccardLoss, JaccardMetricLoss
        >>> g = torch.full((1, 1, 4), 0.5)
        >>> [round(kind()(p, g).item(), 4) for kind in (JaccardLoss, JaccardMetricLoss) for p in (g, 2 * g)]
        [0.6667, 0.5, 0.0, 0.5]

    Reference:
        Wang, Ning & Blaschko, Jaccard metric losses: optimizing the Jaccard index with soft labels, NeurIPS 2023,
        arXiv:2302.05666.
    """

    sums = AREA_L1

    def table(self, view: ClassView) -> Tensor:
        return jaccard(view.counts(soft_label=True), self.smooth_nr, self.smooth_dr)
