from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from monai_segloss.core.arguments import shown
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.tasks import BY_CLASS, SHARDS, UNTRAINED, WithTasks, task

USUAL: dict[str, Any] = {"contour": 1.0, "distance": 1.0}


@register("multi_task", tags=("multi-task", "heads", "distance", "boundary"), exempt=BY_CLASS | UNTRAINED | SHARDS)
class MultiTaskLoss(WithTasks):
    r"""A segmentation loss plus the losses of further tasks, each with a head of its own alongside the network.

    Formula: L_{seg} + \sum_t w_t\, \frac{1}{|K_t|} \sum_{(b, c) \in K_t} \frac1N \sum_i \ell_t(h_t(f)_{bci},\, y_{bci})

    When: Where shape is known to be smooth or thin and labels are few: features that also tell contour, distance or the
    image regularize the segmentation. Costs nothing at prediction, where the heads are gone.

    h_t is the head of task t, f the features it takes from the network, y its target, N the number of voxels that
    count, K_t the samples and foreground classes that have a target: distances of an absent class have none.

    | target | y | loss | activation | settings |
    | --- | --- | --- | --- | --- |
    | contour | 1 on the contour of the class | cross_entropy | sigmoid | width, both_sides |
    | skeleton | 1 on its centerline, made on the CPU | cross_entropy | sigmoid | |
    | distance | distance to the boundary, in [0, 1] | square | sigmoid | side, d_max, normalize |
    | signed_distance | negative inside, in [-1, 1] | square | tanh | d_max, normalize |
    | reconstruction | the image | square | linear | |

    Heads and losses are evaluated at the full resolution only; ``base`` at every scale of deep supervision. ``last``
    holds the terms.

    Args:
        base: the segmentation loss: a registry key, or terms as `WeightedSum` has them.
        tasks: name -> weight, or name -> {"weight": weight, setting: value, ...}.  The name is that of the target; for two
            tasks with the same target use any names and give ``"target"``.  ``"head"`` is ``"linear"``, a 1x1 convolution
            of the decoder's features, ``"decoder"``, ``"late_decoder"`` or ``"free_decoder"``, decoders of their own from
            the bottleneck, from the middle of the network's decoder, and from the bottleneck without skips; ``"loss"`` is
            ``"cross_entropy"``, ``"square"`` or ``"absolute"``.  A weight may be a schedule.
        balance: how base and tasks are weighed alongside their weights, see `WeightedSum`.

    Raises:
        ValueError: an unknown target or setting.
        RuntimeError: the loss is not prepared for a network.

    Example:
        >>> import torch
        >>> from monai_segloss import MultiTaskLoss, Taps, network_shape
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
        >>> image, label = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.int64)
        >>> loss = MultiTaskLoss(tasks={"contour": 0.5, "reconstruction": 0.1}, softmax=True, to_onehot_y=True)
        >>> shape = network_shape(network, image, loss.taps)
        >>> loss.prepare(shape)  # then the optimizer takes the parameters of network and loss
        >>> taps = Taps(network, shape)
        >>> value = loss(network(image), label, **taps.take())
        >>> list(loss.last)
        ['dice_ce/dice', 'dice_ce/cross_entropy', 'contour', 'reconstruction']

    Reference: Murugesan et al., Conv-MCD: a plug-and-play multi-task module for medical image segmentation, MLMI 2019,
    arXiv:1908.05311, for the form; the targets are those of the losses named after their papers.
    """

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        tasks: Mapping[str, Any] = USUAL,
        balance: BalanceConfig | None = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        if not isinstance(tasks, Mapping) or not all(isinstance(name, str) and name for name in tasks):
            raise TypeError(f"tasks must be a mapping from the names of tasks, got {shown(tasks)}.")
        if not tasks:
            raise ValueError("tasks is empty; give at least one, for example {'contour': 1}.")
        found = {name: task(name, value) for name, value in tasks.items()}
        super().__init__(
            base, {n: (f"tasks: {n}", weight, each) for n, (weight, each) in found.items()}, common, balance
        )
