from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_segloss.core.arguments import shown
from monai_segloss.core.card import ReadingArgs, Recommended, Unpack, VoxelLoss, Weight, check, class_weight, register
from monai_segloss.core.formula import SegBatch, Stat, VoxelSum

Alpha = float | Sequence[float] | Tensor


@register(
    "focal",
    positional="include_background to_onehot_y gamma alpha weight reduction use_softmax ignore_index",
    tags=("likelihood", "imbalance"),
    recommended=Recommended(include_background=True),
    exempt={"probabilities_need_no_activation": "without an activation it takes the sigmoid, as MONAI's class does"},
)
class FocalLoss(VoxelLoss):
    r"""Cross-entropy in which easy voxels count less, by (1 - p)^gamma.

    Formula: -\alpha_{y}\,(1 - p_{y})^{\gamma} \log p_{y}

    When: Many easy background voxels. Probabilities come out less confident; usually combined with Dice.

    Sigmoid unless ``softmax=True`` (or ``use_softmax=True``), as MONAI's class of this name. Softmax: the mean over
    voxels; gamma 0 is exactly the cross-entropy (MONAI divides by the number of classes too). Sigmoid: the mean over
    channels and voxels of -alpha g (1 - p)^gamma log p - (1 - alpha)(1 - g) p^gamma log(1 - p). The background drops
    after the softmax, never before.

    Args:
        gamma: exponent, at least 0.
        alpha: one number: sigmoid, the weight of the positive part, 1 - alpha that of the negative; softmax, the weight
            of every foreground class, 1 - alpha that of the background.  A sequence, one of at least 0 per scored
            class: the weight of the class; sigmoid, of its positive part.
        use_softmax: MONAI's name of ``softmax``.

    Example:
        >>> import torch
        >>> from monai_segloss import FocalLoss
        >>> loss = FocalLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 8), torch.zeros(1, 1, 8, dtype=torch.long)).item(), 4)
        0.1733

    Reference: Lin et al., Focal loss for dense object detection, ICCV 2017, arXiv:1708.02002.
    """

    def __init__(
        self,
        *,
        include_background: bool = True,
        gamma: float = 2.0,
        alpha: Alpha | None = None,
        weight: Weight | None = None,
        use_softmax: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        reading["softmax"] = use_softmax or reading.get("softmax", False)
        if not reading["softmax"] and reading.get("other_act") is None:
            reading["sigmoid"] = True
        super().__init__(include_background=include_background, weight=weight, **reading)
        (self.gamma,) = check.non_negative(gamma=gamma)
        self.register_buffer("alpha", focal_alpha(alpha))
        self.alpha: Tensor | None

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        classes = batch.class_view(self.include_background).classes
        return focal(batch, self.gamma, self.alpha, self.weights(classes), self.include_background)


def focal(
    batch: SegBatch, gamma: float, alpha: Tensor | None, weight: Tensor | None, include_background: bool = True
) -> VoxelSum:
    """-alpha (1 - p)^gamma log p of the true class; of regions also of the negative part."""
    view = batch.class_view(include_background)
    positive, negative = focal_factors(view.classes, view.first, alpha, weight, batch.multilabel, batch.masked_logits)
    parts = {Stat("focal", gamma): positive, **({Stat("focal_neg", gamma): negative} if batch.multilabel else {})}
    return VoxelSum(batch, parts, first=view.first)


def focal_factors(
    classes: int, first: int, alpha: Tensor | None, weight: Tensor | None, multilabel: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Factors of the positive and the negative part per scored class."""
    one = like.new_ones(())
    w = one if weight is None else weight.to(like)
    if alpha is None:
        return w, w
    check.per_class("alpha", alpha, classes)
    a = alpha.to(like)
    if multilabel:  # one number balances the two parts, one per class weighs the positive part only
        return w * a, w * (1 - a) if a.ndim == 0 else w
    if a.ndim == 0:  # the background weighs 1 - alpha
        a = a.expand(classes) if first else torch.cat(((1 - a)[None], a.expand(classes - 1)))
    return w * a, one


def focal_alpha(alpha: Alpha | None) -> Tensor | None:
    """``alpha`` as a tensor, checked."""
    if alpha is None:
        return None
    x = class_weight(alpha, "alpha")
    if x.ndim == 0 and x > 1:
        raise ValueError(f"alpha must be one number in [0, 1], or one of at least 0 per class, got {shown(alpha)}.")
    return x
