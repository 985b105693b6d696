from __future__ import annotations

from typing import Unpack

from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.tasks import BY_CLASS, SHARDS, UNTRAINED, Task, WithTasks
from monai_segloss.schedules import TermWeight


@register(
    "conv_mcd",
    aliases=("mcd",),
    tags=("multi-task", "heads", "distance", "boundary"),
    exempt=BY_CLASS | UNTRAINED | SHARDS,
)
class ConvMCDLoss(WithTasks):
    r"""A segmentation loss plus contour and distance of each class, told by 1x1 convolutions of the decoder's features.

    Formula: L_{seg} + \lambda_c\, \mathrm{BCE}(h_c(f), \partial G) + \lambda_d\, \overline{(\sigma(h_d(f)) - d_G)^2}

    When: As a regularizer that costs next to nothing: two 1x1 convolutions, gone at prediction. Reported to give
    smoother boundaries of organs and vessels.

    Of the paper: mask, contour and distance from one decoder by 1x1 convolutions, cross-entropy for the contour, mean
    squared error of a sigmoid for the distance, weights 1. Ours: the mask is the network's own output with ``base`` (the
    paper's loss is ``base="cross_entropy"``); contour and distance are one channel per foreground class, and the paper's
    two channels with log-softmax are the sigmoid of one; the distance is cut at ``d_max`` and divided by it, where the
    paper divides by the largest in the image, which in a patch depends on where it is cut. The published code of Psi-Net
    computes this loss: its three decoders share all weights.

    Args:
        base: the segmentation loss: a registry key, or terms as `WeightedSum` has them.
        lambda_contour, lambda_distance: weights: a number, a schedule, its name or its mapping form.
        side: where the distance to the boundary is told: ``"inside"`` of the class, ``"outside"`` or ``"both"``; the paper's
            code offers the first and the last.
        d_max: in mm, above 0.
        normalize: divide by the largest distance of the sample and class instead of cutting at ``d_max``, as published.
        balance: see `WeightedSum`.

    Raises:
        RuntimeError: the loss is not prepared for a network.

    Example:
        >>> import torch
        >>> from monai_segloss import ConvMCDLoss, Taps, network_shape
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
        >>> image, label = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.int64)
        >>> loss = ConvMCDLoss(softmax=True, to_onehot_y=True)
        >>> shape = network_shape(network, image, loss.taps)
        >>> loss.prepare(shape)  # then the optimizer takes the parameters of network and loss
        >>> taps = Taps(network, shape)
        >>> value = loss(network(image), label, **taps.take())
        >>> list(loss.last)
        ['dice_ce/dice', 'dice_ce/cross_entropy', 'contour', 'distance']

    Reference: Murugesan, Sarveswaran, Shankaranarayana, Ram & Sivaprakasam, Conv-MCD: a plug-and-play multi-task module
    for medical image segmentation, MLMI 2019, arXiv:1908.05311.
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
        contour, distance = Task("contour"), Task("distance", side=side, d_max=d_max, normalize=normalize)
        tasks = {
            "contour": ("lambda_contour", lambda_contour, contour),
            "distance": ("lambda_distance", lambda_distance, distance),
        }
        super().__init__(base, tasks, common, balance)
