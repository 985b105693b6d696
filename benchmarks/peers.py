"""The same losses in other libraries, called as their users call them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def monai_peers() -> dict[str, Loss]:
    """MONAI's losses by our key, foreground scored, softmax, labels."""
    from monai import losses

    common = {"to_onehot_y": True, "softmax": True, "include_background": False}
    return {
        "dice": losses.DiceLoss(**common),
        "tversky": losses.TverskyLoss(**common, alpha=0.3, beta=0.7),
        "focal": losses.FocalLoss(to_onehot_y=True, use_softmax=True),
        "dice_ce": losses.DiceCELoss(**common),
        "dice_focal": losses.DiceFocalLoss(**common),
    }


def nnunet_peers() -> dict[str, Loss]:
    """nnU-Net's losses by our key, as its trainers build them (without DDP)."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss, DC_and_topk_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss
    from nnunetv2.utilities.helpers import softmax_helper_dim1

    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return {
        "dice": MemoryEfficientSoftDiceLoss(apply_nonlin=softmax_helper_dim1, **dice),
        "cross_entropy": RobustCrossEntropyLoss(),
        "topk_cross_entropy": TopKLoss(k=10),
        "dice_ce": DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss),
        "dice_topk": DC_and_topk_loss(dice, {"k": 10}),
    }


def ours(key: str) -> Loss:
    """Our loss, foreground scored where it scores classes."""
    import monai_segloss

    info = monai_segloss.find(key)
    arguments = {**info.reading, **info.example}
    if "include_background" in info.parameters and key != "focal":
        arguments["include_background"] = False
    return monai_segloss.create(key, **arguments)


def case(classes: int, edge: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits (B, C, edge, edge, edge) and labels in blobs of one class, int64 as loaders send them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, edge, edge, edge, generator=generator)
    coarse = torch.randint(0, classes, (batch, 1, *3 * (edge // 8,)), generator=generator)
    label = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)
    return logits.requires_grad_(), label
