from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative, one_of, within
from monai_segloss.core.derivatives import no_second_derivative
from monai_segloss.core.exempt import Exempt
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.learned.guided import Base
from monai_segloss.losses.learned.tasks import DECODED, NO_TASK, Task, WithTasks
from monai_segloss.schedules import TermWeight


@register(
    "besnet",
    tags=("multi-task", "heads", "boundary"),
    exempt=DECODED
    | {
        "perfect_prediction_is_the_minimum": Exempt(NO_TASK, cases=("labels_3d", "five_classes")),
        "gradcheck": "the weight b carries no gradient, so the gradient is not the derivative of the value",
        "second_derivatives": "the weight b carries no gradient, so that there is none of the gradient either",
    },
)
class BESNetLoss(WithTasks):
    r"""A segmentation loss plus the boundary, told by a decoder of its own, and a cross-entropy that weighs what it misses.

    Formula: L_{seg} + \lambda_b\, \mathrm{BCE}(D, \partial G) - \lambda_e\, \overline{(1 + b)\, G \log p + (1 - G)
    \log(1 - p)},\quad b = \alpha \max(\beta - \sigma(D), 0)

    When: Where boundaries are faint in places: voxels on a boundary that the boundary decoder does not see weigh more.
    Published for cells in histopathological images; a comparison with a plain weight of boundaries is not known.

    alpha is ``enhancement`` and beta ``threshold``; p and G are those of each foreground class. By default b is 0 off the
    boundary of the target and has no gradient. A third party's code, ``where="foreground"``, raises the weight of every
    voxel of the class that the boundary decoder calls no boundary, its inside most of all, and lets the gradient of the
    segmentation through b. Another one computes b and never uses it: ``enhancement=0``.

    Of the paper, which was not read: a boundary decoder, whose features join those of the main decoder, cross-entropy of
    the boundary, and the enhanced cross-entropy. Ours: the main decoder is the network's own, which does not get the
    features of the boundary decoder, so that a prediction needs the network alone; ``base`` (the paper's loss is
    ``base={}``, which leaves the coarser outputs of deep supervision without a loss); one convolution at each grid; one
    channel per foreground class. alpha .5 and beta .1 or 1 are those of third parties' code.

    Args:
        base: the segmentation loss: a registry key, or terms as `WeightedSum` has them.
        lambda_boundary, lambda_enhanced: weights: a number, a schedule, its name or its mapping form.
        enhancement: alpha, at least 0.
        threshold: beta, from 0 to 1.
        where: ``"boundary"`` or ``"foreground"``, see above.
        balance: see `WeightedSum`.

    Raises:
        RuntimeError: the loss is not prepared for a network.

    Example:
        >>> from torch import nn, rand, zeros
        >>> from monai_segloss import BESNetLoss, Taps, network_shape
        >>> down = [nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.MaxPool2d(2)]
        >>> up = [nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3, padding=1), nn.Upsample(scale_factor=2)]
        >>> network = nn.Sequential(*down, nn.Conv2d(8, 8, 1), *up, nn.Conv2d(4, 2, 1))
        >>> image, label = rand(2, 1, 16, 16), zeros(2, 1, 16, 16).long()
        >>> loss = BESNetLoss(softmax=True, to_onehot_y=True)
        >>> shape = network_shape(network, image[:1], loss.taps)
        >>> loss.prepare(shape)  # then the optimizer takes the parameters of network and loss
        >>> taps = Taps(network, shape)
        >>> value = loss(network(image), label, **taps.take())
        >>> list(loss.last)
        ['dice_ce/dice', 'dice_ce/cross_entropy', 'boundary', 'enhanced']

    Reference: Oda, Roth, Chiba et al., BESNet: boundary-enhanced segmentation of cells in histopathological images,
    MICCAI 2018, doi:10.1007/978-3-030-00934-2_26.
    """

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        lambda_boundary: TermWeight = 1.0,
        lambda_enhanced: TermWeight = 1.0,
        enhancement: float = 0.5,
        threshold: float = 1.0,
        where: str = "boundary",
        balance: BalanceConfig | None = None,
        **common: Unpack[FormulaArgs],
    ) -> None:
        (self.enhancement,), (self.threshold,) = (
            non_negative(enhancement=enhancement),
            within(0, 1, threshold=threshold),
        )
        one_of(WHERE, where=where)
        self.on_boundary = where == "boundary"
        tasks = {"boundary": ("lambda_boundary", lambda_boundary, Task("contour", head="decoder", both_sides=True))}
        super().__init__(base, tasks, common, balance, {"enhanced": ("lambda_enhanced", lambda_enhanced)})

    def own_terms(self, batch: SegBatch) -> Mapping[str, Callable[[], Unreduced]]:
        z = self.output("boundary", batch) if {*self.own} & {*self.evaluated} else batch.masked_logits
        return {
            "boundary": lambda: self.score("boundary", batch, z),
            "enhanced": lambda: self.enhanced_score(batch, z),
        }

    def enhanced_score(self, batch: SegBatch, z: Tensor) -> Unreduced:
        """The enhanced cross-entropy: mean over voxels, then over samples and foreground classes."""
        view = self.foreground(batch)
        extra = self.enhancement * (self.threshold - torch.sigmoid(z)).clamp_min(0)
        voxels = view.voxels
        lp = voxels.lp
        if self.on_boundary:
            extra = extra.detach() * self.tasks["boundary"].wanted(view)[0]
            lp = no_second_derivative(lp, "BESNetLoss")
        values = batch.total(enhanced(lp, voxels.lq, voxels.g, extra))
        return Unreduced.table(values / batch.voxels.clamp_min(1), batch.voxels)


WHERE = ("boundary", "foreground")


def enhanced(lp: Tensor, lq: Tensor, g: Tensor, extra: Tensor) -> Tensor:
    """-((1 + b) g log p + (1 - g) log(1 - p)) at each voxel, b = ``extra``."""
    return -((1 + extra) * g * lp + (1 - g) * lq)
