"""The same losses in other libraries, called as their users call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
SPACING = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Peer:
    """The same loss elsewhere: ours is theirs, times the number of classes where theirs divides by it, plus a constant."""

    loss: Loss
    over_classes: bool = False
    plus: float = 0.0

    def __call__(self, logits: Tensor, label: Tensor) -> Tensor:
        """Their value."""
        return self.loss(logits, label)

    def as_ours(self, logits: Tensor, label: Tensor) -> Tensor:
        """Their value in our convention."""
        value = self.loss(logits, label)
        return (value * logits.shape[1] if self.over_classes else value) + self.plus


def monai_peers() -> dict[str, Peer]:
    """MONAI's losses by our key, softmax, labels."""
    from monai import losses

    every: dict[str, Any] = {"to_onehot_y": True, "softmax": True}
    common = {**every, "include_background": False}
    dice, focal = losses.DiceLoss(**every), losses.FocalLoss(to_onehot_y=True, use_softmax=True)

    def wasserstein(logits: Tensor, label: Tensor) -> Tensor:
        return losses.GeneralizedWassersteinDiceLoss(equal_distances(logits.shape[1]))(logits, label)

    return {
        "dice": Peer(losses.DiceLoss(**common)),
        "jaccard": Peer(losses.DiceLoss(**common, jaccard=True)),
        "jaccard_metric": Peer(losses.DiceLoss(**common, jaccard=True, soft_label=True)),
        "tversky": Peer(losses.TverskyLoss(**every, alpha=0.3, beta=0.7)),
        # without smoothing, which rules there, see the named difference "generalized-dice-scale"
        "generalized_dice": Peer(losses.GeneralizedDiceLoss(**common, smooth_nr=0, smooth_dr=0)),
        "generalized_wasserstein_dice": Peer(wasserstein),
        "mcc": Peer(losses.MCCLoss(**common)),
        "focal": Peer(focal, over_classes=True),
        "dice_ce": Peer(losses.DiceCELoss(**common)),
        "boundary": Peer(losses.BoundaryLoss(**common)),
        "hausdorff_dt": Peer(losses.HausdorffDTLoss(**common)),
        "log_hausdorff_dt": Peer(losses.LogHausdorffDTLoss(**common)),
        # the focal term of its DiceFocalLoss is the sigmoid form
        "dice_focal": Peer(lambda x, y: dice(x, y) + x.shape[1] * focal(x, y)),
    }


def nnunet_peers() -> dict[str, Peer]:
    """nnU-Net's losses by our key, as its trainers build them (without DDP); its Dice is minus the coefficient."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss, DC_and_topk_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss
    from nnunetv2.utilities.helpers import softmax_helper_dim1

    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return {
        "dice": Peer(MemoryEfficientSoftDiceLoss(apply_nonlin=softmax_helper_dim1, **dice), plus=1),
        "cross_entropy": Peer(RobustCrossEntropyLoss()),
        "label_smoothing_cross_entropy": Peer(RobustCrossEntropyLoss(label_smoothing=0.1)),
        "topk_cross_entropy": Peer(TopKLoss(k=10)),
        "dice_ce": Peer(DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss), plus=1),
        "dice_topk": Peer(DC_and_topk_loss(dice, {"k": 10}), plus=1),
    }


def kornia_peers() -> dict[str, Peer]:
    """kornia's losses by our key, none where it is not installed; images of two dimensions, so two axes become one.

    Its Dice and Tversky means are over the classes that a sample holds: the same where it holds all.
    """
    try:
        from kornia import losses
    except ImportError:
        return {}

    def image(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        return logits.flatten(3), label[:, 0].flatten(2)

    def hinge(logits: Tensor, label: Tensor) -> Tensor:
        """Each foreground class against the rest, by its logit above that of the background."""
        z, y = image(logits, label)
        inside = torch.stack([y == c for c in range(1, z.shape[1])], 1)
        return losses.lovasz_hinge_loss((z[:, 1:] - z[:, :1]).flatten(0, 1)[:, None], inside.flatten(0, 1))

    def dice(logits: Tensor, label: Tensor) -> Tensor:
        return losses.dice_loss(*image(logits, label), average="macro", weight=foreground(logits.shape[1]))

    return {
        "dice": Peer(dice),
        "tversky": Peer(lambda x, y: losses.tversky_loss(*image(x, y), alpha=0.3, beta=0.7)),
        "focal": Peer(lambda x, y: losses.focal_loss(x, y[:, 0], None, 2.0, "mean"), over_classes=True),
        "lovasz_softmax": Peer(lambda x, y: losses.lovasz_softmax_loss(*image(x, y))),
        "lovasz_hinge": Peer(hinge),
        "hausdorff_er": Peer(lambda x, y: losses.HausdorffERLoss3D(alpha=2.0, k=10).to(x)(x.softmax(1), y)),
    }


PEERS: dict[str, Callable[[], dict[str, Peer]]] = {
    "monai": monai_peers,
    "nnunet": nnunet_peers,
    "kornia": kornia_peers,
}
"""Libraries by name."""


@cache
def equal_distances(classes: int) -> Tensor:
    """All classes at distance 1."""
    return 1 - torch.eye(classes)


@cache
def foreground(classes: int) -> Tensor:
    """Class weights that leave out the background."""
    weight = torch.ones(classes)
    weight[0] = 0
    return weight


# Where a peer cannot leave out the background, or has one form only.
OURS: dict[str, dict[str, Any]] = {
    "tversky": {"include_background": True},
    "focal": {"include_background": True},
    "dice_focal": {"include_background": True},
    "hausdorff_er": {"include_background": True, "norm": "minmax"},
    "lovasz_softmax": {"include_background": True, "classes": "all", "per_image": True},
}


def ours(key: str, axes: int = 3, classes: int = 3, like_peers: bool = True, **given: Tensor) -> partial[Tensor]:
    """Our loss at 1 mm, foreground scored where it scores classes and its peers can; ``given`` maps alongside the label.

    ``like_peers`` gives it the arguments at which they compute the same, else those of its default.

    One that brings networks along reads features that are made from the logits.
    """
    import monai_segloss
    from monai_segloss.testing.stand_in import prepared

    info = monai_segloss.find(key)
    background = {"include_background": False} if "include_background" in info.parameters else {}
    more = OURS.get(key, {}) if like_peers else {}
    loss = monai_segloss.create(key, **{**info.reading, **info.example, **background, **more})
    loss = prepared(loss, torch.zeros(1, classes, *(16,) * axes))
    return partial(loss, spacing=SPACING[:axes], **given)


def maps_of(key: str, label: Tensor, classes: int) -> dict[str, Tensor]:
    """The maps that our loss needs, of all classes."""
    from monai_segloss.maps import class_masks

    masks, spacing = class_masks(label, classes), torch.tensor(SPACING[: label.ndim - 2])
    return {spec.key: spec.make(masks, spacing, None) for spec in ours(key).func.needs}


def case(classes: int, edge: int, batch: int = 2, seed: int = 0, axes: int = 3) -> tuple[Tensor, Tensor]:
    """Random logits (B, C, edge, ...) and labels in blobs of one class, int64 as loaders send them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *axes * (edge,), generator=generator)
    label = torch.randint(0, classes, (batch, 1, *axes * (edge // 8,)), generator=generator)
    for axis in range(axes):
        label = label.repeat_interleave(8, 2 + axis)
    return logits.requires_grad_(), label
