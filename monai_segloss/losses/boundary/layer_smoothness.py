"""Cross-entropy with smooth layers.  Gerl et al., MICCAI 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.boundary_f1 import half_window
from monai_segloss.losses.boundary.neighborhood import class_view, scored_maps, valid
from monai_segloss.losses.voxel.cross_entropy import cross_entropy


def roughness(u: Tensor, counted: Tensor | None, axis: int, radius: int) -> Tensor:
    """Sum of |(mean(u) + 1) / (u + 1) - 1| per (sample, class), (B, K), over the windows along one axis.

    Windows that reach beyond the image or hold an ignored voxel do not count.
    """
    windows = max(u.shape[axis] - 2 * radius, 0)
    starts = range(2 * radius + 1) if windows else ()
    middle = u.narrow(axis, radius if windows else 0, windows)
    mean = sum((u.narrow(axis, k, windows) for k in starts), torch.zeros_like(middle)) / (2 * radius + 1)
    value = ((mean - middle) / (middle + 1)).abs()
    if counted is not None:
        for k in starts:
            value = value * counted.narrow(axis, k, windows)
    return value.flatten(2).sum(2)


@register(
    "layer_smoothness",
    tags=("likelihood", "smoothness", "layers"),
    recommended=Recommended(batch=None),
    exempt={
        "perfect_prediction_is_zero": Exempt(
            "boundaries of the target across the axis are not smooth either",
            cases=("labels_3d", "labels_2d", "two_classes", "five_classes", "one_class", "regions", "empty_class"),
        ),
        "perfect_prediction_is_the_minimum": Exempt(
            "a smoother prediction may be worth some cross-entropy",
            cases=("labels_3d", "labels_2d", "two_classes", "five_classes", "one_class", "regions"),
        ),
    },
)
class LayerSmoothnessLoss(SegLoss):
    r"""Cross-entropy plus how far a prediction differs from its moving average along one axis.

    Formula:
        \lambda_{CE}\,\mathrm{CE} + \frac{\lambda_s}{N} \sum_i \left|\frac{\bar p_i + 1}{p_i + 1} - 1\right|

    When:
        Layers that run along a known axis, as skin or retina in B-scans. It supposes that they do: elsewhere it
        punishes every boundary across that axis, and its published weight of 100 then wins over the cross-entropy.

    CE is `CrossEntropyLoss`. The average is that of a window of voxels along one ``axis``. Windows that are not whole,
    at the edges of the image and next to ignored voxels, do not count. In spite of the title of the paper no distance
    enters, and ``spacing`` has no influence. Scores of several classes are averaged. The authors' code sums over
    voxels, which a mean divides by their number, and weighs the cross-entropy by a map that can be sent as
    ``weight_map``.

    Args:
        window: voxels of the moving average, an odd number.
        axis: spatial axis along which layers run, 0 the first one, -1 the last.
        lambda_ce, lambda_smooth: factors of the two terms, at least 0.
        include_background: whether the smoothness of channel 0 is scored; None: where channels are independent.
        common: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Raises:
        ValueError: ``window`` that is no odd number; ``axis`` that the image does not have.

    Example:
        >>> import torch
        >>> from monai_segloss import LayerSmoothnessLoss
        >>> label = torch.tensor([1, 1, 0, 0]).view(1, 1, 4, 1).expand(1, 1, 4, 6)
        >>> logits = 50.0 * torch.cat((1 - 2 * label, 2 * label - 1), 1)
        >>> [round(LayerSmoothnessLoss(softmax=True, to_onehot_y=True, window=3, axis=a)(logits, label).item(), 2)
        ...  for a in (1, 0)]  # along and across the layers
        [0.0, 12.5]

    Reference:
        Gerl, Paetzold et al., A distance-based loss for smooth and continuous skin layer segmentation in optoacoustic
        images, MICCAI 2020, arXiv:2007.05324.
    """

    formula_arguments = ("include_background",)
    accepts = ("weight_map",)
    scalar_only = True

    def __init__(
        self,
        *,
        window: int = 5,
        axis: int = -1,
        lambda_ce: float = 1.0,
        lambda_smooth: float = 100.0,
        include_background: bool | None = None,
        **common: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, **common)
        self.background = include_background
        self.radius = half_window("window", window)
        if axis not in range(-3, 3):
            raise ValueError(f"axis must be a spatial axis, -3 to 2, got {axis!r}.")
        self.axis = int(axis)
        self.lambda_ce, self.lambda_smooth = non_negative(lambda_ce=lambda_ce, lambda_smooth=lambda_smooth)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        batch, space = batch.full_precision, batch.ndim - 2
        if not -space <= self.axis < space:
            raise ValueError(f"axis is {self.axis}, but input has {space} spatial axes.")
        p, _ = scored_maps(batch, class_view(batch, self.background))
        rough = roughness(p, valid(batch), 2 + self.axis % space, self.radius)
        return {
            "cross_entropy": Term(self.lambda_ce, cross_entropy(batch, weight_map=batch.map("weight_map")).summed()),
            "smoothness": Term(self.lambda_smooth, Unreduced(rough, batch.voxels)),
        }
