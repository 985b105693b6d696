from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.opponent import Opponent
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.core.taps import NetworkShape
from monai_segloss.losses.learned.guided import Base, Guided
from monai_segloss.losses.learned.patches import PatchCritic, after, counted, image_of, valid
from monai_segloss.schedules import TermWeight
from monai_segloss.schedules.base import whole


@register(
    "multi_scale_l1",
    aliases=("segan",),
    tags=("critic",),
    size=9,
    exempt={
        "class_order": "the kernels of the critic know each class by its number",
        "flips": "the kernels of the critic have a direction",
    },
)
class MultiScaleL1Loss(Guided):
    r"""A segmentation loss plus the distance of a critic's features of the image under prediction and under label.

    Formula: L_{\text{base}} + \lambda\, \frac1L \sum_{i=0}^{L-1} \overline{|f_i(x \odot p) - f_i(x \odot g)|}

    When: For lesions that differ from their surroundings in the image: errors cost by what they cover. Published alone
    and from scratch; few have reproduced it, so compare with the same seed without it.

    f_0 is what the critic is shown, f_1 to f_3 are its features at 1/2, 1/4 and 1/8 of the resolution. It is shown one image
    per class, multiplied with that class's probability or label, all of them side by side, the image x shifted so that its
    least value is 0: else 0 would be the mean intensity. Ignored voxels are 0 in both. A right prediction costs 0 whatever
    the critic is.

    After the step of the network, ``loss.update()`` gives the critic one step of Adam (betas 0.5 and 0.999) that enlarges
    the same distance, on the same predictions, detached, and returns minus the distance; trainers of this project call it.
    Validation does not train the critic. In epochs in which the term has no weight it rests too.

    The authors' code differs: one mean over all layers together, with factors 1, 1, 2, 2, 2, 2, 4; a Dice term.

    Args:
        base: the segmentation loss, see `Guided`; ``{}``: the term alone, as published.
        critic_weight: lambda.
        bound: largest absolute value of the weights of the critic, which has instance normalization then; 0: spectral
            normalization instead.
        features: of the first of its three levels.
        critic_lr: learning rate of the critic.
        warmup: first epochs of the base loss alone.
        common: of the base loss.

    Raises:
        ValueError: ``warmup`` alongside a weight that is a schedule.

    Example:
        >>> import torch
        >>> from monai_segloss import MultiScaleL1Loss, NetworkShape
        >>> loss = MultiScaleL1Loss(base={}, softmax=True, to_onehot_y=True)
        >>> loss.prepare(NetworkShape(classes=2, size=(16, 16)))
        >>> label = torch.zeros(1, 1, 16, 16)
        >>> right = torch.cat((99 - label, label), 1)
        >>> round(loss(right, label, image=torch.rand(1, 1, 16, 16)).item(), 6)
        0.0

    Reference: Xue, Xu, Zhang, Long & Huang, SegAN: Adversarial network with multi-scale L1 loss for medical image
    segmentation, Neuroinformatics 16, 2018, arXiv:1706.01805.

        Our critic is smaller than the paper's; the weight alongside a base loss is ours.
    """

    own_taps = ("image",)

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        critic_weight: TermWeight = 1.0,
        bound: float = 0.05,
        features: int = 32,
        critic_lr: float = 2e-4,
        warmup: int = 0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        weight = after(warmup, "critic_weight", critic_weight)
        super().__init__(base, {"multi_scale_l1": ("critic_weight", weight)}, common)
        whole(1, features=features)
        self.lr, self.bound = non_negative(critic_lr=critic_lr, bound=bound)
        self.features = features

    def build(self, shape: NetworkShape) -> None:
        network = PatchCritic(shape.axes, shape.classes * shape.image_channels, self.features, spectral=not self.bound)
        self.opponents["critic"] = Opponent(network, lr=self.lr, bound=self.bound or None)

    def own_terms(self, batch: SegBatch) -> Mapping[str, Callable[[], Unreduced]]:
        return {"multi_scale_l1": lambda: self.distance(batch)}

    def distance(self, batch: SegBatch) -> Unreduced:
        """Of the prediction to the label, per sample."""
        assert self.shape is not None
        kept, critic = valid(batch), self.opponents["critic"]
        p, image = counted(batch.prob, kept), from_zero(image_of(batch, self.shape), kept)
        critic.remember(p, batch.one_hot, image)
        shown = (masked_images(image, each) for each in (p, batch.one_hot.to(p.dtype)))
        return Unreduced.table(mean_distance(*map(critic.judge, shown)).to(p.dtype), batch.voxels)

    def against(self, opponent: str) -> Callable[..., Tensor]:
        return closeness


def from_zero(image: Tensor, kept: Tensor | None) -> Tensor:
    """The image less the least value of each sample and channel: masked voxels are then no darker than any other."""
    seen = image if kept is None else image.masked_fill(~kept, torch.inf)
    return counted(image - seen.amin(tuple(range(2, image.ndim)), keepdim=True), kept)


def masked_images(image: Tensor, classes: Tensor) -> Tensor:
    """One image per class, (B, C * channels, *S)."""
    return (classes[:, :, None] * image[:, None]).flatten(1, 2)


def mean_distance(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """Mean absolute difference of each layer, then the mean over layers, (B, 1)."""
    return torch.stack([(a - b).abs().flatten(1).mean(1) for a, b in zip(one, other, strict=True)]).mean(0)[:, None]


def closeness(network: nn.Module, p: Tensor, one_hot: Tensor, image: Tensor) -> Tensor:
    """Minus the mean distance, which the critic makes smaller."""
    return -mean_distance(*(network(masked_images(image, each)) for each in (p, one_hot.to(p.dtype)))).mean()
