from __future__ import annotations

from typing import Unpack

from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import Exempt, register
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.tasks import AROUND, DECODED, NO_TASK, SEVERAL, SHARDS, Task, WithTasks
from monai_segloss.schedules import TermWeight


@register(
    "distance_regularized",
    tags=("multi-task", "heads", "distance", "learned weights"),
    exempt=DECODED
    | SHARDS
    | {
        "everything_ignored_gives_zero": Exempt(AROUND, cases=(*SEVERAL, "tiny")),
        "perfect_prediction_is_the_minimum": Exempt(NO_TASK, cases=("two_classes",)),
    },
)
class DistanceRegularizedLoss(WithTasks):
    r"""A segmentation loss plus the distance map of each class, told from the bottleneck alone; the weights are learned.

    Formula: e^{-s_1} L_{seg} + \frac{s_1}{2} + \lambda_d \left(e^{-s_2}\, \overline{|D(f) - d_G|} + s_2\right)

    When: For compact organs: the coarsest features learn where the shapes are. Reported for the heart (cine MR)
    alongside cross-entropy, also for data of another scanner. Does nothing for structures that the bottleneck cannot
    see.

    f are the features of the bottleneck and D a decoder without skips, dropped after training; s_1 and s_2 are learned.
    At the least value e^{s_1} is twice the segmentation loss, e^{s_2} the mean error of the distance: the value of this
    loss falls below 0 as both get better, so watch its terms in ``last``.

    Of the paper: cross-entropy and the mean absolute difference of the distances, weighted by learned uncertainties, and a
    decoder from the bottleneck without skips (the abstract). Ours: ``base`` (the paper's loss is
    ``base="cross_entropy"``); the forms of the uncertainties, those of a classification and of a Laplace distribution;
    the decoder's one convolution at each grid, up to half of the resolution; distances are cut at ``d_max`` and divided by
    it. The weight of the distance is about one over its mean error, so it leads early on: after 1,000 iterations on MR of
    the hippocampus the Dice was 0.60, with ``balance=None`` 0.80 and with ``dice_ce`` alone 0.80.

    Args:
        base: the segmentation loss: a registry key, or terms as `WeightedSum` has them; of several each is weighed.
        lambda_distance: factor of the regularizer, times its learned weight: a number, a schedule, its name or its mapping
            form.
        signed: distances are negative inside of the class; else those to the boundary on both sides.
        d_max: in mm, above 0.
        normalize: divide by the largest distance of the sample, class and side instead of cutting at ``d_max``.
        balance: None: the weights are 1 and ``lambda_distance``; other methods see `WeightedSum`.

    Raises:
        RuntimeError: the loss is not prepared for a network.

    Example:
        >>> from torch import nn, rand, zeros
        >>> from monai_segloss import DistanceRegularizedLoss, Taps, network_shape
        >>> down = [nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2)]
        >>> up = [nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1), nn.Upsample(scale_factor=2)]
        >>> network = nn.Sequential(*down, nn.Conv2d(8, 8, 1), *up, nn.Conv2d(4, 2, 1))
        >>> image, label = rand(2, 1, 16, 16), zeros(2, 1, 16, 16).long()
        >>> loss = DistanceRegularizedLoss(softmax=True, to_onehot_y=True)
        >>> shape = network_shape(network, image[:1], loss.taps)
        >>> loss.prepare(shape)  # then the optimizer takes the parameters of network and loss
        >>> taps = Taps(network, shape)
        >>> value = loss(network(image), label, **taps.take())
        >>> loss.term_weights
        {'dice_ce': 1.0, 'distance': 1.0}

    Reference: Dangi, Linte & Yaniv, A distance map regularized CNN for cardiac cine MR image segmentation, Medical
    Physics 46(12), 2019, arXiv:1901.01238.
    """

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        lambda_distance: TermWeight = 1.0,
        signed: bool = True,
        d_max: float = 10.0,
        normalize: bool = False,
        balance: BalanceConfig | None = "uncertainty_weighting",
        **common: Unpack[FormulaArgs],
    ) -> None:
        distance = Task(
            "signed_distance" if signed else "distance",
            head="free_decoder",
            loss="absolute",
            activation="linear",
            side="both",
            d_max=d_max,
            normalize=normalize,
        )
        super().__init__(base, {"distance": ("lambda_distance", lambda_distance, distance)}, common, balance)
