from __future__ import annotations

from typing import Unpack

from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.tasks import DECODED, SHARDS, Task, WithTasks
from monai_segloss.schedules import TermWeight


@register(
    "dmtn",
    tags=("multi-task", "heads", "distance"),
    exempt=DECODED | SHARDS,
)
class DMTNLoss(WithTasks):
    r"""A segmentation loss plus the distance to the boundary, told by a decoder that leaves the network's half-way up.

    Formula: L_{seg} + \lambda_d\, \overline{(\sigma(D(f)) - d_G)^2}

    When: Between `ConvMCDLoss`, whose heads share the whole decoder, and `PsiNetLoss`, whose decoders share none of it.

    f are the features in the middle of the network's decoder, and the skips that are finer.

    Of the paper: a Y-shaped network, whose decoders for region and distance share their first half, with cross-entropy and
    mean squared error. Ours: the region's decoder is the network's own, with ``base`` (the paper's loss is
    ``base="cross_entropy"``); the second half for the distance has one convolution at each grid; one channel per
    foreground class; distances are cut at ``d_max`` and divided by it. The weights 1 are those of a third party's code;
    the paper's were not read. The paper fuses both outputs by an energy; here the prediction is the network's alone.

    Args:
        base: the segmentation loss: a registry key, or terms as `WeightedSum` has them.
        lambda_distance: weight: a number, a schedule, its name or its mapping form.
        side: where the distance to the boundary is told: on ``"both"`` sides, ``"inside"`` of the class or ``"outside"``.
        d_max: in mm, above 0.
        normalize: divide by the largest distance of the sample and class instead of cutting at ``d_max``.
        balance: see `WeightedSum`.

    Raises:
        RuntimeError: the loss is not prepared for a network.

    Example:
        >>> from torch import nn, rand, zeros
        >>> from monai_segloss import DMTNLoss, Taps, network_shape
        >>> down = [nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2)]
        >>> up = [nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1), nn.Upsample(scale_factor=2)]
        >>> network = nn.Sequential(*down, nn.Conv2d(8, 8, 1), *up, nn.Conv2d(4, 2, 1))
        >>> image, label = rand(2, 1, 16, 16), zeros(2, 1, 16, 16).long()
        >>> loss = DMTNLoss(softmax=True, to_onehot_y=True)
        >>> shape = network_shape(network, image[:1], loss.taps)
        >>> loss.prepare(shape)  # then the optimizer takes the parameters of network and loss
        >>> taps = Taps(network, shape)
        >>> value = loss(network(image), label, **taps.take())
        >>> list(loss.last)
        ['dice_ce/dice', 'dice_ce/cross_entropy', 'distance']

    Reference: Tan, Zhao, Yan, Li, Metaxas & Zhan, Deep multi-task and task-specific feature learning network for robust
    shape preserved organ segmentation, ISBI 2018, doi:10.1109/ISBI.2018.8363791.
    """

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        lambda_distance: TermWeight = 1.0,
        side: str = "both",
        d_max: float = 10.0,
        normalize: bool = False,
        balance: BalanceConfig | None = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        distance = Task("distance", head="late_decoder", side=side, d_max=d_max, normalize=normalize)
        super().__init__(base, {"distance": ("lambda_distance", lambda_distance, distance)}, common, balance)
