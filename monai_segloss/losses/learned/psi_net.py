from __future__ import annotations

from typing import Unpack

from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.tasks import DECODED, NO_TASK, SHARDS, Task, WithTasks
from monai_segloss.schedules import TermWeight


@register(
    "psi_net",
    tags=("multi-task", "heads", "distance", "boundary"),
    exempt=DECODED
    | SHARDS
    | {"perfect_prediction_is_the_minimum": Exempt(NO_TASK, cases=("two_classes", "five_classes"))},
)
class PsiNetLoss(WithTasks):
    r"""A segmentation loss plus contour and distance of each class, each told by a decoder of its own.

    Formula: L_{seg} + \lambda_c\, \mathrm{BCE}(D_c, \partial G) + \lambda_d\, \overline{(\sigma(D_d) - d_G)^2}

    When: As `ConvMCDLoss`, where memory allows two more decoders: contour and distance shape the encoder and not the
    decoder of the mask. A training step takes about twice as long.

    Of the paper: one encoder, three parallel decoders with skips for mask, contour and distance, cross-entropy for the
    contour, mean squared error of a sigmoid for the distance, weights 1. Ours: encoder and mask decoder are the network's
    own, with ``base`` (the paper's loss is ``base="cross_entropy"``); the two other decoders go from its bottleneck and
    skips, with one convolution at each grid; one channel per foreground class; the distance is cut at ``d_max``. The
    published code shares all weights among its decoders, so that it computes `ConvMCDLoss`.

    Args:
        base: the segmentation loss: a registry key, or terms as `WeightedSum` has them.
        lambda_contour, lambda_distance: weights: a number, a schedule, its name or its mapping form.
        side: where the distance to the boundary is told: ``"inside"`` of the class, ``"outside"`` or ``"both"``.
        d_max: in mm, above 0.
        normalize: divide by the largest distance of the sample and class instead of cutting at ``d_max``, as published.
        balance: see `WeightedSum`.

    Raises:
        RuntimeError: the loss is not prepared for a network.

    Example:
        >>> from torch import nn, rand, zeros
        >>> from monai_segloss import PsiNetLoss, Taps, network_shape
        >>> down = [nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2)]
        >>> up = [nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1), nn.Upsample(scale_factor=2)]
        >>> network = nn.Sequential(*down, nn.Conv2d(8, 8, 1), *up, nn.Conv2d(4, 2, 1))
        >>> image, label = rand(2, 1, 16, 16), zeros(2, 1, 16, 16).long()
        >>> loss = PsiNetLoss(softmax=True, to_onehot_y=True)
        >>> shape = network_shape(network, image[:1], loss.taps)
        >>> loss.prepare(shape)  # then the optimizer takes the parameters of network and loss
        >>> taps = Taps(network, shape)
        >>> value = loss(network(image), label, **taps.take())
        >>> list(loss.last)
        ['dice_ce/dice', 'dice_ce/cross_entropy', 'contour', 'distance']

    Reference: Murugesan, Sarveswaran, Shankaranarayana, Ram, Joseph & Sivaprakasam, Psi-Net: shape and boundary aware
    joint multi-task deep network for medical image segmentation, EMBC 2019, arXiv:1902.04099.
    """

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        lambda_contour: TermWeight = 1.0,
        lambda_distance: TermWeight = 1.0,
        side: str = "inside",
        d_max: float = 10.0,
        normalize: bool = False,
        balance: BalanceConfig | None = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        distance = Task("distance", head="decoder", side=side, d_max=d_max, normalize=normalize)
        tasks = {
            "contour": ("lambda_contour", lambda_contour, Task("contour", head="decoder")),
            "distance": ("lambda_distance", lambda_distance, distance),
        }
        super().__init__(base, tasks, common, balance)
