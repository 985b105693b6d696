from __future__ import annotations

from collections.abc import Mapping

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, check, non_negative, register
from monai_segloss.core.formula import SegBatch, Term, Unreduced
from monai_segloss.losses.voxel.cross_entropy import cross_entropy


@register(
    "margin_cross_entropy",
    aliases=("mbls", "margin_based_label_smoothing"),
    tags=("calibration", "likelihood", "margin"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    exempt={
        "perfect_prediction_is_the_minimum": "beyond the margin the loss grows with certainty",
        "perfect_prediction_is_zero": "beyond the margin the loss grows with certainty",
    },
)
class MarginCrossEntropyLoss(SegLoss):
    r"""Cross-entropy, and a penalty of logits that lie further than a margin below the largest one.

    Formula: \mathrm{CE} + \alpha\, \frac{1}{N C} \sum_{i,c} \max\left(0, \max_k z_{ik} - z_{ic} - m\right)

    When: Overconfident networks: confidence is bounded but not, as by label smoothing, drawn to uniform everywhere.
    With C classes and all differences at m the largest probability is 1 / (1 + (C - 1) exp(-m)).

    Differences of logits are those of log p, so that probabilities do as well. The authors take m = 10, and 5 in some
    of their runs on segmentation. A penalty of all differences, m = 0, is a form of label smoothing.

    Args:
        alpha: factor of the penalty, at least 0.
        margin: m, at least 0.

    Raises:
        ValueError: ``sigmoid=True`` or a single channel: defined for one class per voxel.

    Example:
        >>> import torch
        >>> from monai_segloss import MarginCrossEntropyLoss
        >>> loss = MarginCrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> value = loss(torch.tensor([[[16.0], [0.0], [4.0]]]), torch.zeros(1, 1, 1, dtype=torch.long))
        >>> round(value.item(), 4), {k: round(v.item(), 4) for k, v in loss.last.items()}  # (6 + 2) / 3
        (0.2667, {'cross_entropy': 0.0, 'margin': 2.6667})

    Reference: Liu et al., The devil is in the margin: margin-based label smoothing for network calibration, CVPR 2022,
    arXiv:2111.15430; Murugesan et al., Calibrating segmentation networks with margin-based label smoothing, 2022,
    arXiv:2209.09641.
    """

    scalar_only = True
    in_float32 = True

    def __init__(self, *, alpha: float = 0.1, margin: float = 10.0, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        check.one_class_per_voxel("MarginCrossEntropyLoss", self.reader.sigmoid)
        self.alpha, self.margin = non_negative(alpha=alpha, margin=margin)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        check.one_class_per_voxel("MarginCrossEntropyLoss", batch.multilabel)
        batch = batch.full_precision
        z = batch.masked_logits if batch.activation == "softmax" else batch.log_prob
        excess = batch.total((z.amax(1, keepdim=True) - z - self.margin).clamp_min(0))
        return {
            "cross_entropy": Term(1.0, cross_entropy(batch).summed()),
            "margin": Term(self.alpha, Unreduced(excess, batch.voxels)),
        }
