from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import non_negative, one_of, smoothing
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.opponent import Opponent
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.core.taps import NetworkShape
from monai_segloss.losses.learned.guided import Base, Guided
from monai_segloss.losses.learned.patches import LabelDiscriminator, after, counted, image_of, valid
from monai_segloss.schedules import TermWeight
from monai_segloss.schedules.base import whole


@register(
    "adversarial",
    aliases=("gan", "patch_gan"),
    tags=("discriminator",),
    exempt={
        "perfect_prediction_is_zero": "the discriminator may find fault with every prediction",
        "class_order": "the kernels of the discriminator know each class by its number",
        "flips": "the kernels of the discriminator have a direction",
    },
)
class AdversarialLoss(Guided):
    r"""A segmentation loss plus how well a discriminator, trained with it, tells the prediction from a label.

    Formula: L_{\text{base}} + \lambda\, \overline{\ell_1(D(p, x))},\qquad L_D = \tfrac12\, \overline{\ell_1(D(\tilde g,
    x))} + \tfrac12\, \overline{\ell_0(D(p, x))}

    When: For the look of a segmentation as a whole: plausible shapes, few islands. Gains over the base loss are small in
    most reports; try it last, look at the discriminator's loss in the log, and compare with the same seed without
    it.

    D is a PatchGAN: each of its logits judges 31 voxels per axis. It sees the probabilities of all channels and, by the side
    of them, the image x; for the labels it sees their one-hot, smoothed. Of ignored voxels it sees 0 everywhere. On raw
    logits z, with l_1 for real and l_0 for made:

    - ``"bce"``: softplus(-z) and softplus(z), the network softplus(-z), which does not vanish where D is sure;
    - ``"least_squares"``: (z - 1)^2 and z^2;
    - ``"hinge"``: max(0, 1 - z) and max(0, 1 + z), the network -z.

    After the step of the network, ``loss.update()`` gives D one step of Adam (betas 0.5 and 0.999) on the same predictions,
    detached, and returns its loss; trainers of this project call it. Validation does not train D. In epochs in which the
    term has no weight D rests too, as in common practice: predictions that are still blurred are too easy to tell.

    Args:
        base: the segmentation loss, see `Guided`.
        adversarial_weight: lambda.
        criterion: ``"bce"``, ``"least_squares"`` or ``"hinge"``.
        image: whether D sees the image too.
        label_smoothing: e in [0, 1) of the one-hot that D sees: (1 - e) g + e / C, for regions (1 - e) g + e / 2. Without,
            their being 0 or 1 tells them from any prediction.
        spectral_norm: spectral normalization in D, else instance normalization, where one voxel of features becomes 0.
        features: of the first of its three levels.
        discriminator_lr: learning rate of D.
        warmup: first epochs of the base loss alone.
        common: of the base loss.

    Raises:
        ValueError: an unknown criterion; ``warmup`` alongside a weight that is a schedule.

    Example:
        >>> import torch
        >>> from monai_segloss import AdversarialLoss, NetworkShape
        >>> loss = AdversarialLoss(image=False, softmax=True, to_onehot_y=True)
        >>> loss.prepare(NetworkShape(classes=2, size=(16, 16)))
        >>> logits = torch.zeros(1, 2, 16, 16, requires_grad=True)
        >>> loss(logits, torch.zeros(1, 1, 16, 16)).backward()
        >>> sorted(loss.last), sorted(loss.update())
        (['adversarial', 'dice_ce/cross_entropy', 'dice_ce/dice'], ['discriminator'])

    Reference: Luc, Couprie, Chintala & Verbeek, Semantic segmentation using adversarial networks, NIPS workshop 2016,
    arXiv:1611.08408; Isola et al., Image-to-image translation with conditional adversarial networks, CVPR 2017,
    arXiv:1611.07004 (PatchGAN); Mao et al., ICCV 2017, arXiv:1611.04076 (least squares); Miyato et al., ICLR 2018,
    arXiv:1802.05957 (spectral normalization, hinge).

        The networks of the papers are larger; weight and smoothing are ours.
    """

    def __init__(
        self,
        *,
        base: Base = "dice_ce",
        adversarial_weight: TermWeight = 0.01,
        criterion: str = "bce",
        image: bool = True,
        label_smoothing: float = 0.1,
        spectral_norm: bool = True,
        features: int = 32,
        discriminator_lr: float = 2e-4,
        warmup: int = 0,
        **common: Unpack[FormulaArgs],
    ) -> None:
        weight = after(warmup, "adversarial_weight", adversarial_weight)
        super().__init__(base, {"adversarial": ("adversarial_weight", weight)}, common)
        one_of(tuple(CRITERIA), criterion=criterion)
        whole(1, features=features)
        (self.lr,) = non_negative(discriminator_lr=discriminator_lr)
        self.label_smoothing = smoothing(label_smoothing, multilabel=False)
        self.criterion, self.image, self.spectral_norm, self.features = criterion, image, spectral_norm, features
        self.own_taps = ("image",) if image else ()

    def build(self, shape: NetworkShape) -> None:
        channels = shape.classes + (shape.image_channels if self.image else 0)
        network = LabelDiscriminator(shape.axes, channels, self.features, self.spectral_norm)
        self.opponents["discriminator"] = Opponent(network, lr=self.lr)

    def own_terms(self, batch: SegBatch) -> Mapping[str, Callable[[], Unreduced]]:
        return {"adversarial": lambda: self.fooled(batch)}

    def fooled(self, batch: SegBatch) -> Unreduced:
        """What the discriminator says of the prediction, per sample."""
        assert self.shape is not None
        kept, discriminator = valid(batch), self.opponents["discriminator"]
        p = counted(batch.prob, kept)
        image = counted(image_of(batch, self.shape), kept) if self.image else None
        discriminator.remember(p, batch.one_hot, image, kept, batch.multilabel)
        logits = discriminator.judge(p if image is None else torch.cat((p, image), 1)).to(p.dtype)
        return Unreduced.table(CRITERIA[self.criterion].fooled(logits).flatten(1).mean(1, keepdim=True), batch.voxels)

    def against(self, opponent: str) -> Callable[..., Tensor]:
        return self.discriminator_loss

    def discriminator_loss(
        self,
        network: nn.Module,
        p: Tensor,
        one_hot: Tensor,
        image: Tensor | None,
        kept: Tensor | None,
        independent: bool,
    ) -> Tensor:
        """The mean over labels and predictions, in one pass."""
        y = counted(smoothed(one_hot.to(p.dtype), self.label_smoothing, independent), kept)
        shown = torch.cat((y, p))
        real, fake = network(
            shown if image is None else torch.cat((shown, image.repeat(2, *[1] * (p.ndim - 1))), 1)
        ).chunk(2)
        criterion = CRITERIA[self.criterion]
        return (criterion.real(real).mean() + criterion.fake(fake).mean()) / 2


class Criterion(NamedTuple):
    """Functions of a raw logit: of the discriminator on labels and on predictions, and of the network on predictions."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    fooled: Callable[[Tensor], Tensor]


CRITERIA = {
    "bce": Criterion(lambda z: softplus(-z), softplus, lambda z: softplus(-z)),
    "least_squares": Criterion(lambda z: (z - 1) ** 2, lambda z: z**2, lambda z: (z - 1) ** 2),
    "hinge": Criterion(lambda z: relu(1 - z), lambda z: relu(1 + z), lambda z: -z),
}


def smoothed(one_hot: Tensor, smoothing: float, independent: bool) -> Tensor:
    """(1 - e) y + e / C, of independent channels (1 - e) y + e / 2: further from what no prediction can be."""
    return (1 - smoothing) * one_hot + smoothing / (2 if independent else one_hot.shape[1])
