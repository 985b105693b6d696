"""Regression of signed distance maps.  Xue et al., AAAI 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative, one_of
from monai_segloss.core.maps import MapSpec, scored_map
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Term, Unreduced, quotient
from monai_segloss.core.registry import register
from monai_segloss.losses.boundary.distances import signed_distance
from monai_segloss.maps.distance import FILLS, MODES, Fill, Mode

HEADS = ("probability", "tanh")


def product(yp: Tensor, yy: Tensor, pp: Tensor) -> Tensor:
    """1/3 - sum(y p) / sum(y p + y^2 + p^2), (B | 1, K), from the three sums; 0 where y = p, 4/3 where y = -p."""
    total = yp + yy + pp
    return 1 / 3 - quotient(yp, total)


@register(
    "signed_distance_regression",
    aliases=("sdm_regression",),
    tags=("distance", "regression"),
    recommended=Recommended(include_background=True, batch=False),
    exempt={
        "perfect_prediction_is_zero": "the best output is a distance, which near the boundary is far from certain",
        "perfect_prediction_is_the_minimum": "the best output is a distance, which near the boundary is far from certain",
    },
)
class SignedDistanceRegressionLoss(SegLoss):
    r"""The prediction as a signed distance in [-1, 1], regressed onto that of the target.

    Formula:
        w_1\, \overline{|y - p|} + w_2\, \overline{(y - p)^2} + w_p \left(\frac13 - \frac{\sum y p}{\sum y p + y^2 +
        p^2}\right),\quad p = 1 - 2 s

    When:
        For smooth shapes of compact organs, one channel per organ: sigmoid, or a tanh head of its own. Published alongside
        Dice, with ten times its weight. With softmax the channels of several classes cannot all be right at once, and
        the largest one is the right class only if the background is scored; the best output is a distance, no
        probability.

    w_1, w_2 and w_p are ``w_absolute``, ``w_square`` and ``w_product``. y is the signed distance to the boundary of the
    target divided per side by its largest, in [-1, 1], negative inside. One value per sample and class, then the mean.
    As published the product term lacks the 1/3 and lies in [-1/3, 1]. s is the probability: p = 1 - 2 s makes a sigmoid
    the published tanh of minus half of its logit.

    A class without a boundary in the sample has no y and leaves the mean; the authors' code regresses it onto 0, the
    value of a boundary. Published is the sum of ten times this and the Dice loss of H(p) = sigmoid(-1500 p), whose
    gradient is 0 but for |p| below 0.005: for a head of distances `DiceLoss` takes it as ``other_act``. Soft targets
    are cut at 1/2. ``last`` holds the terms.

    A keyword ``sdm_swdm_normalize`` of the call, or with other settings what ``needs`` says, takes precomputed maps
    (`monai_segloss.transforms.SignedDistanceMapd`), of floating point, (B, C, *S) or of the scored classes only. Else
    they are made in the call, with its ``spacing``, that of a MetaTensor, or 1 and a warning.

    Args:
        w_absolute, w_product, w_square: factors of the terms.  Published: 1, 1, 0; Ma et al. compare L1, L2 and their sum.
        head: ``"probability"``, or ``"tanh"``: ``input`` is what a head of distances gives before its tanh, p = tanh(input).
        mode: how a distance is measured, see `monai_segloss.maps.signed_distance_map`; ``"swdm"`` is the published one.
        empty: y of an absent class: none with ``"zero"``, or 1 everywhere with ``"diagonal"``, which punishes what is found.
        include_background: score channel 0 too.  Without it the largest of several probabilities is a wrong class around
            each object; leave it out only where each channel is read by itself, at 1/2 or at p = 0, as published.
        batch: sums over all samples at a time.

    Raises:
        TypeError: ``sdm_swdm_normalize`` of integers, or maps of other settings.
        ValueError: an unknown word; no factor above 0; ``head="tanh"`` with an activation.

    Example:
        >>> import torch
        >>> from monai_segloss import SignedDistanceRegressionLoss
        >>> label = torch.tensor([[[0, 0, 1, 1, 1]]])  # y of class 1 is 1, 1/2, 0, -2/3, -1
        >>> loss = SignedDistanceRegressionLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 5), label, spacing=(2.0,)).item(), 4)  # p = 0: 37/60 + 1/3
        0.95

    Reference:
        Xue, Tang, Qiao et al., Shape-aware organ segmentation by predicting signed distance maps, AAAI 2020,
        arXiv:1912.03849.

        That the fraction is one of sums, and not taken at each voxel, was not verified against the paper.
    """

    formula_arguments = ("include_background", "batch")

    def __init__(
        self,
        *,
        w_absolute: float = 1.0,
        w_product: float = 1.0,
        w_square: float = 0.0,
        head: str = "probability",
        mode: Mode = "swdm",
        empty: Fill = "zero",
        include_background: bool = True,
        batch: bool = False,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(include_background=include_background, batch=batch, **reading)
        one_of(HEADS, head=head)
        one_of(MODES, mode=mode)
        one_of(FILLS, empty=empty)
        if head == "tanh" and (self.reader.softmax or self.reader.sigmoid or self.reader.other_act):
            raise ValueError("head='tanh' is an activation: leave softmax, sigmoid and other_act out.")
        self.tanh = head == "tanh"
        self.reader.probabilities = not self.tanh
        self.factors = non_negative(w_absolute=w_absolute, w_product=w_product, w_square=w_square)
        if not sum(self.factors):
            raise ValueError("one of w_absolute, w_product and w_square must be above 0.")
        self.map = signed_distance(mode=mode, empty=empty, normalize=True)

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return (self.map,)

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        batch = batch.full_precision
        view = batch.class_view(self.include_background, self.batch)
        y = scored_map(self.map, view)
        p = batch.masked_logits[:, view.first :].tanh() if self.tanh else 1 - 2 * view.prob
        known = (batch.total(y.abs()) != 0).to(y.dtype)  # and so is a map of NaN
        voxels = view.reduce_batch(known * batch.voxels)

        def total(x: Tensor) -> Tensor:
            return view.reduce_batch(known * batch.total(x))

        terms = {
            "absolute": total((y - p).abs()) / voxels.clamp_min(1),
            "product": product(total(y * p), total(y * y), total(p * p)),
            "square": total((y - p) ** 2) / voxels.clamp_min(1),
        }
        weighted = zip(terms.items(), self.factors, strict=True)
        return {name: Term(weight, Unreduced.table(value, voxels)) for (name, value), weight in weighted if weight}
