from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from monai_segloss.core.card import Exempt, FormulaArgs, LossShapeError, Unpack, non_negative, register
from monai_segloss.core.companions import float_features
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.learned.boundary_dice import CONTOUR, boundary_dice
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.latent_shape import LEARNED, code_distance
from monai_segloss.losses.learned.with_prior import WithPrior
from monai_segloss.prior.networks import LabelEncoder, LabelUNet
from monai_segloss.schedules import TermWeight

GIVEN = "the features are those of the network, whatever it predicts"


@register(
    "bottleneck_match",
    tags=("prior", "bottleneck", "shape"),
    exempt={
        "flips": f"{LEARNED} a shape from its mirror image",
        "class_order": f"{LEARNED} the classes apart",
        "perfect_prediction_is_the_minimum": Exempt(GIVEN, cases=("two_classes", "empty_class")),
        "perfect_prediction_is_zero": GIVEN,
        "ignored_voxels_change_nothing": "the bottleneck sees the whole image, ignored voxels too",
    },
)
class BottleneckMatchLoss(WithPrior):
    r"""A segmentation loss plus the distance of the network's bottleneck from that of a label U-Net.

    Formula: L_{base} + \lambda \frac{1}{K} \left\lVert \frac{u}{\mathrm{rms}(u)} - \frac{v}{\mathrm{rms}(v)}
    \right\rVert^2 + \beta \Big(1 - \frac{2 \sum_i A_i p_i g_i}{\sum_i A_i (p_i + g_i)}\Big)

    When: Organs of known shape; the coarsest features learn what a network of the labels alone has there.

    u are the features of the tap "bottleneck", v those of a U-Net without skip connections that was trained to give the
    labels back, by ``segloss prior train --kind label-unet`` or by the trainer, and then frozen; it has the channels
    and the grid of the network's bottleneck.  From us: both codes are divided by their root mean square, since magnitudes
    drift during a training, so that the term is 2 (1 - cosine).  The paper's weights of its terms were not at hand.

    The last term, off unless ``weight_boundary`` is given, is the paper's Dice with a boundary weight map: A = (w F + 1)
    exp(-D^2 / 2 sigma^2), scaled to lie between 0 and 1 in each sample and class, where D is the distance to the contour of
    the class and F is 1 inside of it (our reading of its region of interest).  Far from the contour A vanishes, and so does
    the cost of what is wrong there: as a loss by itself, ``base={}`` and ``weight_boundary=1``, it sees no distant islands.

    Args:
        base: segmentation loss: a registry key, or terms as `WeightedSum` has them.
        weight_bottleneck: lambda, a number or a schedule.
        weight_boundary: beta, a number or a schedule.
        roi_factor: w.
        sigma: in the unit of the ``spacing`` of the call; above 0.
        prior: file of the label U-Net; None: the trainer makes one.
        common: see `SegLoss`, for ``base``; ``reduction="none"`` is refused.

    Raises:
        PriorError: there is no such file, or its prior is for other classes, another patch, spacing or bottleneck.
        RuntimeError: a call before `prepare`, or without a prior.

    Example:
        >>> from monai_segloss import BottleneckMatchLoss
        >>> loss = BottleneckMatchLoss(softmax=True, to_onehot_y=True)
        >>> loss.prior_kind, loss.taps
        ('label-unet', ('bottleneck',))

    Reference: Li et al., Bottleneck supervised U-Net for pixel-wise liver and tumor segmentation, 2018,
    arXiv:1810.10331.
    """

    kind = "label-unet"
    own_taps = ("bottleneck",)

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        weight_bottleneck: TermWeight = 1.0,
        weight_boundary: TermWeight = 0.0,
        roi_factor: float = 1.0,
        sigma: float = 5.0,
        prior: str | None = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        weights: dict[str, tuple[str, TermWeight]] = {"bottleneck_match": ("weight_bottleneck", weight_bottleneck)}
        with_boundary = (
            not isinstance(weight_boundary, (int, float)) or weight_boundary != 0
        )  # a schedule, or checked below
        if with_boundary:
            weights["boundary_dice"] = ("weight_boundary", weight_boundary)
        super().__init__(base, weights, prior, common)
        self.roi_factor, self.sigma = non_negative(roi_factor=roi_factor, sigma=sigma)
        if not self.sigma:
            raise ValueError("sigma must be above 0.")
        self.own_needs = (CONTOUR,) if with_boundary else ()

    def part(self, network: LabelUNet) -> LabelEncoder:
        return network.encoder

    def own_terms(self, batch: SegBatch) -> Mapping[str, Callable[[], Unreduced]]:
        return {
            "bottleneck_match": lambda: Unreduced.table(self._distance(batch), batch.voxels),
            "boundary_dice": lambda: boundary_dice(batch, self.roi_factor, self.sigma),
        }

    def _distance(self, batch: SegBatch) -> Tensor:
        assert self.frozen is not None
        code = self.frozen(float_features(batch.one_hot.to(batch.masked_logits.dtype), self.frozen))
        features = batch.maps["bottleneck"].to(code.dtype)
        if features.shape != code.shape:
            raise LossShapeError(
                f"bottleneck has shape {tuple(features.shape)}, the label U-Net gives {tuple(code.shape)}: its prior is for "
                "a network of other channels or another grid."
            )
        counts = (batch.voxels > 0).reshape(-1, *[1] * (code.ndim - 1))
        return code_distance(normalized(torch.where(counts, features, 0)), normalized(code))


SMALLEST = 1e-6
"""Added to the mean square of a code, for one of zeros."""


def normalized(code: Tensor) -> Tensor:
    """A code (B, K, *S) divided by the root of its mean square."""
    size = (code**2).flatten(1).mean(1) + SMALLEST
    return code / size.sqrt().reshape(-1, *[1] * (code.ndim - 1))
