"""Where MONAI 1.6 and nnU-Net 2.8 give other values: both sides of every entry of the list that the docs print."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import monai_segloss
from monai_segloss import (
    BoundaryLoss,
    DiceCELoss,
    DiceFocalLoss,
    DiceLoss,
    DiceTopKLoss,
    FocalLoss,
    GeneralizedDiceLoss,
    GeneralizedWassersteinDiceLoss,
    HausdorffDTLoss,
    MCCLoss,
    NACLLoss,
    TopKCrossEntropyLoss,
    TverskyLoss,
    UnifiedFocalLoss,
)
from monai_segloss.differences import DIFFERENCES
from monai_segloss.testing import cases
from monai_segloss.testing.cases import IGNORE, Case
from monai_segloss.testing.harness import refused

monai = pytest.importorskip("monai.losses")
data = pytest.importorskip("monai.data")
MetaTensor = data.MetaTensor
compound = pytest.importorskip("nnunetv2.training.loss.compound_losses")
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss  # noqa: E402

DICE = {"batch_dice": False, "do_bg": False, "smooth": 1e-5, "ddp": False}


def case_of(name: str) -> tuple[Case, Tensor, Tensor]:
    case = cases.get(name)
    return case, case.input.float(), case.target


def same(a: Tensor, b: Tensor | float) -> bool:
    return torch.allclose(a, torch.as_tensor(b, dtype=a.dtype), rtol=1e-4, atol=1e-6)


def focal_softmax_mean() -> None:
    _case, x, y = case_of("five_classes")
    ce = F.cross_entropy(x, y[:, 0])
    assert same(monai.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=0)(x, y), ce / 5)
    assert same(FocalLoss(use_softmax=True, to_onehot_y=True, gamma=0)(x, y), ce)


def focal_ignore_index_scale() -> None:
    _case, x, y = case_of("five_classes")
    plain, ignoring = ({"to_onehot_y": True}, {"to_onehot_y": True, "ignore_index": IGNORE})
    assert same(monai.FocalLoss(**ignoring)(x, y), 5 * monai.FocalLoss(**plain)(x, y))
    assert same(FocalLoss(**ignoring)(x, y), FocalLoss(**plain)(x, y))


def focal_background_before_softmax() -> None:
    _case, x, y = case_of("two_classes")
    arguments = {"use_softmax": True, "to_onehot_y": True, "include_background": False}
    assert monai.FocalLoss(**arguments)(x, y) == 0
    p = torch.softmax(x, 1)[:, 1][y[:, 0] == 1]
    assert same(FocalLoss(**arguments)(x, y), (-((1 - p) ** 2) * p.log()).sum() / y.numel())


def focal_alpha_without_background() -> None:
    _case, x, y = case_of("five_classes")
    arguments = {"use_softmax": True, "to_onehot_y": True, "include_background": False}
    with pytest.warns(UserWarning, match="scalar `alpha` ignored"):
        assert same(monai.FocalLoss(alpha=0.25, **arguments)(x, y), monai.FocalLoss(**arguments)(x, y))
    assert same(FocalLoss(alpha=0.25, **arguments)(x, y), 0.25 * FocalLoss(**arguments)(x, y))


def focal_sum() -> None:
    _case, x, y = case_of("labels_3d")
    parts = FocalLoss(to_onehot_y=True, reduction="none")(x, y)
    assert same(monai.FocalLoss(to_onehot_y=True, reduction="sum")(x, y), parts.sum() / y[0].numel())
    assert same(FocalLoss(to_onehot_y=True, reduction="sum")(x, y), parts.sum())


def focal_soft_targets() -> None:
    x, half = torch.full((1, 1, 4), 3.0), torch.full((1, 1, 4), 0.5)
    bce = F.binary_cross_entropy_with_logits(x, half)
    assert same(monai.FocalLoss()(x, half), 0.25 * bce)
    p = torch.sigmoid(x)
    assert same(FocalLoss()(x, half), (-0.5 * (1 - p) ** 2 * p.log() - 0.5 * p**2 * (1 - p).log()).mean())


def dice_focal_activations() -> None:
    case, x, y = case_of("labels_3d")
    dice = DiceLoss(**case.reading)(x, y)
    assert same(monai.DiceFocalLoss(**case.reading)(x, y), dice + monai.FocalLoss(to_onehot_y=True)(x, y))
    assert same(DiceFocalLoss(**case.reading)(x, y), dice + FocalLoss(**case.reading)(x, y))
    p = torch.softmax(x, 1)
    theirs = monai.DiceFocalLoss(to_onehot_y=True)(p, y)
    assert same(theirs, dice + monai.FocalLoss(to_onehot_y=True)(p, y))
    assert same(DiceFocalLoss(to_onehot_y=True)(p, y), DiceFocalLoss(**case.reading)(x, y))


def dice_ce_activations() -> None:
    _case, x, y = case_of("regions")
    y = y.float()
    dice = DiceLoss(sigmoid=True)(x, y)
    assert same(monai.DiceCELoss(sigmoid=True)(x, y), dice + F.cross_entropy(x, y))
    assert same(DiceCELoss(sigmoid=True)(x, y), dice + F.binary_cross_entropy_with_logits(x, y))
    case, x, y = case_of("labels_3d")
    p = torch.softmax(x, 1)
    dice = DiceLoss(to_onehot_y=True)(p, y)
    assert same(monai.DiceCELoss(to_onehot_y=True)(p, y), dice + F.cross_entropy(p, y[:, 0]))
    assert same(DiceCELoss(to_onehot_y=True)(p, y), DiceCELoss(**case.reading)(x, y))


def dice_ce_weights_of_onehot() -> None:
    case, x, y = case_of("labels_3d")
    weight, onehot = torch.tensor([1.0, 2.0, 4.0]), case.onehot().float()
    theirs, ours = (kind(softmax=True, weight=weight) for kind in (monai.DiceCELoss, DiceCELoss))
    labels = {"softmax": True, "to_onehot_y": True, "weight": weight}
    assert not same(theirs(x, onehot), monai.DiceCELoss(**labels)(x, y))
    assert same(ours(x, onehot), DiceCELoss(**labels)(x, y))


def one_scored_class_weight() -> None:
    case, x, y = case_of("two_classes")
    arguments = {**case.reading, "include_background": False}
    assert same(monai.DiceLoss(weight=[3.0], **arguments)(x, y), monai.DiceLoss(**arguments)(x, y))
    assert same(DiceLoss(weight=[3.0], **arguments)(x, y), 3 * DiceLoss(**arguments)(x, y))
    _case, x, y = case_of("one_class")
    weight = torch.tensor([3.0])
    dice, bce = DiceLoss(sigmoid=True)(x, y), F.binary_cross_entropy_with_logits(x, y, pos_weight=weight)
    assert same(monai.DiceCELoss(sigmoid=True, weight=weight)(x, y), dice + bce)
    assert same(DiceCELoss(sigmoid=True, weight=weight)(x, y), 3 * dice + bce)


def generalized_dice_scale() -> None:
    volume = 1_000_000
    target = torch.zeros(1, 2, 2 * volume)
    target[:, 0, :volume], target[:, 1, volume:] = 1, 1
    wrong = 1 - target
    assert same(monai.GeneralizedDiceLoss()(wrong, target), 1 - 1e-5 / (4 / volume + 1e-5))
    assert same(GeneralizedDiceLoss(scale_free=False)(wrong, target), 1 - 1e-5 / (4 / volume + 1e-5))
    assert same(GeneralizedDiceLoss()(wrong, target), 1.0)


def wasserstein_float64() -> None:
    _case, x, y = case_of("labels_3d")
    matrix = 1 - np.eye(3)
    theirs, ours = (
        kind(matrix)(x, y) for kind in (monai.GeneralizedWassersteinDiceLoss, GeneralizedWassersteinDiceLoss)
    )
    assert (theirs.dtype, ours.dtype) == (torch.float64, torch.float32)
    assert same(ours, theirs.float())


def mcc_of_absent_classes() -> None:
    case, x, y = case_of("empty_class")
    arguments = {**case.reading, "include_background": False, "reduction": "none"}
    absent = case.onehot()[:, 1:].flatten(2).sum(2) == 0
    assert absent.any()
    for scale in (0.5, 1.0, 5.0):
        assert same(monai.MCCLoss(**arguments)(scale * x, y)[absent], torch.ones(()).expand(int(absent.sum())))
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(monai.MCCLoss(**arguments)(leaf, y)[absent].sum(), leaf)
    assert slope.abs().max() < 1e-6
    arguments["reduction"] = "mean"
    there = monai.MCCLoss(**{**arguments, "reduction": "none"})(x, y)[~absent]
    assert same(monai.MCCLoss(**arguments)(x, y), (there.sum() + absent.sum()) / absent.numel())
    assert same(MCCLoss(**arguments)(x, y), there.mean())


def nacl_edge() -> None:
    """Logits that are the shares: in the middle both penalties are 0, at the edge only ours."""
    y = torch.zeros(1, 1, 3, 3, 3, dtype=torch.long)
    x = torch.cat((torch.ones(1, 1, 3, 3, 3), torch.zeros(1, 1, 3, 3, 3)), 1)
    ce = F.cross_entropy(x, y[:, 0])
    sides = torch.tensor([2 / 3, 1.0, 2 / 3])
    shares = sides[:, None, None] * sides[:, None] * sides
    assert same(monai.NACLLoss(2, 3)(x, y[:, 0]), ce + 0.1 * (1 - shares).mean() / 2)
    assert same(NACLLoss()(x, y), ce)


def nacl_gaussian() -> None:
    _case, x, y = case_of("labels_2d")
    small, large = ({"classes": 3, "dim": 2, "kernel_size": k, "kernel_ops": "gaussian"} for k in (3, 5))
    assert same(monai.NACLLoss(**small)(x, y[:, 0]), monai.NACLLoss(**large)(x, y[:, 0]))
    assert not same(NACLLoss(**small)(x, y), NACLLoss(**large)(x, y))


def nacl_ignored() -> None:
    _case, x, y = case_of("labels_2d")
    y = torch.where(torch.arange(y.shape[2]).view(-1, 1) < 3, -100, y)
    refused((RuntimeError, "Class values must be non-negative"), monai.NACLLoss(3, 2), x, y[:, 0])
    assert same(NACLLoss(ignore_index=-100)(x, y), NACLLoss()(x[:, :, 3:], y[:, :, 3:]))


def unified_focal_half() -> None:
    case, x, y = case_of("two_classes")
    p, shape = torch.softmax(x, 1), {"delta": 0.7, "gamma": 0.5}
    for lam, factor in ((1.0, 0.5), (0.0, 1.0)):
        theirs = monai.AsymmetricUnifiedFocalLoss(to_onehot_y=True, weight=lam, **shape)(p, y)
        assert same(theirs, factor * UnifiedFocalLoss(lam=lam, **shape, **case.reading)(x, y))


def none_shape() -> None:
    case, x, y = case_of("labels_3d")
    arguments = {**case.reading, "reduction": "none"}
    assert monai.DiceLoss(**arguments, batch=True)(x, y).shape == (3, 1, 1, 1)
    assert monai.TverskyLoss(**arguments)(x, y).shape == (2, 3)
    for kind in (DiceLoss, TverskyLoss):
        assert kind(**arguments)(x, y).shape == (2, 3, 1, 1, 1)
        assert kind(**arguments, batch=True)(x, y).shape == (1, 3, 1, 1, 1)


def ignored_sample() -> None:
    case, x, y = case_of("ignored_sample")
    kept = [0, 2]
    for ours, theirs in ((DiceLoss, monai.DiceLoss), (TverskyLoss, monai.TverskyLoss)):
        assert same(theirs(**case.reading)(x, y), 2 / 3 * theirs(**case.reading)(x[kept], y[kept]))
        assert same(ours(**case.reading)(x, y), theirs(**case.reading)(x[kept], y[kept]))
    peer = compound.DC_and_CE_loss(DICE, {}, ignore_label=IGNORE)
    loss = DiceCELoss(include_background=False, **case.reading)
    assert same(loss(x[kept], y[kept]), peer(x[kept], y[kept]) + 1)
    assert same(loss(x, y), loss(x[kept], y[kept]))
    assert not same(peer(x, y), peer(x[kept], y[kept]))


def ignored_nan() -> None:
    case, x, y = case_of("ignored")
    spoilt = torch.where(case.valid, x, torch.nan)
    for kind in ("DiceLoss", "TverskyLoss"):
        assert getattr(monai, kind)(**case.reading)(spoilt, y).isnan()
        ours = getattr(monai_segloss, kind)(**case.reading)
        assert ours(spoilt, y) == ours(x, y)


def ignore_index_of_channels() -> None:
    _case, x, y = case_of("regions")
    y = y.float()
    outside = y.sum(1, keepdim=True) > 0
    arguments = {"sigmoid": True, "ignore_index": IGNORE}
    assert same(monai.DiceLoss(**arguments)(x, y), DiceLoss(sigmoid=True)(x, y, mask=outside))
    assert same(DiceLoss(**arguments)(x, y), DiceLoss(sigmoid=True)(x, y))


def half_precision() -> None:
    x, y = torch.randn(1, 2, 64, 64, 64), torch.randint(0, 2, (1, 1, 64, 64, 64))
    arguments = {"softmax": True, "to_onehot_y": True}
    theirs = monai.DiceLoss(**arguments)(x.half(), y).float()
    assert theirs.isnan() or abs(theirs - monai.DiceLoss(**arguments)(x, y)) > 0.1
    assert same(DiceLoss(**arguments)(x.half(), y), DiceLoss(**arguments)(x.half().float(), y))


def label_out_of_range() -> None:
    case, x, y = case_of("labels_3d")
    seven = torch.where(y == 2, 7, y)
    refused((RuntimeError, "index 7 is out of bounds"), monai.DiceLoss(**case.reading), x, seven)
    refused((ValueError, "label 7.*labels 0 to 2"), DiceLoss(**case.reading), x, seven)
    double = 2 * case.onehot().float()
    assert monai.DiceLoss(softmax=True)(x, double).isfinite()
    refused((ValueError, "value 2"), DiceLoss(softmax=True), x, double)


def arguments_out_of_range() -> None:
    _case, x, y = case_of("labels_3d")
    matrix = torch.ones(3, 3)
    for name, arguments in (
        ("FocalLoss", {"gamma": -1.0}),
        ("FocalLoss", {"alpha": 7.0}),
        ("TverskyLoss", {"alpha": -1.0}),
        ("DiceLoss", {"smooth_dr": -1.0}),
        ("GeneralizedWassersteinDiceLoss", {"dist_matrix": matrix}),
    ):
        more = {} if "dist_matrix" in arguments else {"to_onehot_y": True}
        assert getattr(monai, name)(**arguments, **more)(x, y).isfinite()
        refused((ValueError, next(iter(arguments))), getattr(monai_segloss, name), **arguments, **more)


def small_losses() -> None:
    y = torch.arange(2).repeat(32)[None, None]
    x = torch.where(y == torch.arange(2)[:, None], 10.0, -10.0)
    arguments = {"softmax": True, "to_onehot_y": True}
    truth = 1 / (1 + torch.tensor(20.0).exp())
    assert monai.DiceLoss(**arguments)(x, y) == 0
    assert torch.allclose(DiceLoss(**arguments)(x, y), truth, rtol=1e-4, atol=0)


def all_ignored() -> None:
    case, x, y = case_of("ignored")
    nothing = torch.full_like(y, IGNORE)
    assert RobustCrossEntropyLoss(ignore_index=IGNORE)(x, nothing).isnan()
    assert monai_segloss.CrossEntropyLoss(**case.reading)(x, nothing) == 0


def minus_dice() -> None:
    case, _x, y = case_of("labels_3d")
    sure = cases.perfect(case).input.float()
    assert same(compound.DC_and_CE_loss(DICE, {})(sure, y), -1)
    assert same(DiceCELoss(include_background=False, **case.reading)(sure, y), 0)


def regions_with_ignored() -> None:
    case, x, y = case_of("regions_masked")
    channels = torch.cat([y, ~case.mask], dim=1)
    dice = {**DICE, "do_bg": True}
    whole = {"use_ignore_label": True, "dice_class": compound.MemoryEfficientSoftDiceLoss}
    theirs = compound.DC_and_BCE_loss({}, dice, weight_dice=0, **whole)(x, channels)
    ours = monai_segloss.CrossEntropyLoss(sigmoid=True)(x, y, mask=case.mask)
    assert same(theirs, 3 * ours)
    overlap = compound.DC_and_BCE_loss({}, dice, weight_ce=0, **whole)(x, channels)
    assert same(DiceLoss(sigmoid=True)(x, y, mask=case.mask), overlap + 1)


def topk_of_ignored() -> None:
    case, x, y = case_of("labels_2d")
    y = torch.where(torch.arange(y.numel()).view(y.shape) % 20 == 0, y, IGNORE)
    counted = F.cross_entropy(x, y[:, 0], ignore_index=IGNORE, reduction="none")[y[:, 0] != IGNORE]
    voxels = int(y.numel() * 10 / 100)
    assert voxels > counted.numel()
    assert same(TopKLoss(ignore_index=IGNORE)(x, y), counted.sum() / voxels)
    assert same(TopKCrossEntropyLoss(ignore_index=IGNORE, **case.reading)(x, y), counted.max())

    x, y = torch.randn(1, 2, 3, 3), torch.randint(0, 2, (1, 1, 3, 3))
    assert TopKLoss()(x, y).isnan()
    hardest = F.cross_entropy(x, y[:, 0], reduction="none").max()
    assert same(TopKCrossEntropyLoss(softmax=True, to_onehot_y=True)(x, y), hardest)
    dice = DiceLoss(softmax=True, to_onehot_y=True)(x, y)
    assert same(DiceTopKLoss(softmax=True, to_onehot_y=True)(x, y), dice + hardest)


def logits_without_activation() -> None:
    _case, x, y = case_of("labels_2d")
    theirs, ours = monai.DiceLoss(to_onehot_y=True), DiceLoss(to_onehot_y=True)
    expected = theirs(5 * x, y)
    with pytest.warns(
        UserWarning, match="no activation is given, so that it is read as probabilities: pass softmax=True"
    ):
        assert same(ours(5 * x, y), expected)


def hausdorff_of_integers() -> None:
    _case, x, y = case_of("labels_2d")
    onehot = F.one_hot(y[:, 0], 3).movedim(-1, 1)
    whole = monai.HausdorffDTLoss(softmax=True)(x, onehot)
    exact = monai.HausdorffDTLoss(softmax=True)(x, onehot.float())
    assert whole < 0.999 * exact
    assert same(HausdorffDTLoss(softmax=True)(x, onehot), exact)


def distances_in_millimeters(theirs: Callable[..., Tensor], ours: Callable[..., Tensor]) -> None:
    _case, x, y = case_of("five_classes")
    affine = torch.diag(torch.tensor([3.0, 1.0, 0.5, 1.0]))
    given = theirs(x, MetaTensor(y, affine=affine))
    assert same(given.as_tensor() if isinstance(given, MetaTensor) else given, ours(x, y, spacing=(1.0, 1.0, 1.0)))
    assert same(ours(x, MetaTensor(y, affine=affine)), ours(x, y, spacing=(3.0, 1.0, 0.5)))
    assert not same(ours(x, y, spacing=(3.0, 1.0, 0.5)), ours(x, y, spacing=(1.0, 1.0, 1.0)))


def boundary_in_millimeters() -> None:
    reading = {"softmax": True, "to_onehot_y": True}
    distances_in_millimeters(monai.BoundaryLoss(**reading), BoundaryLoss(**reading))


def hausdorff_in_millimeters() -> None:
    reading = {"softmax": True, "to_onehot_y": True}
    distances_in_millimeters(monai.HausdorffDTLoss(**reading), HausdorffDTLoss(**reading))


def cldice_of_classes() -> None:
    """A long line that is found and a short one that is not."""
    y = torch.zeros(1, 1, 9, 40).long()
    y[..., 2, :], y[..., 6, 18:22] = 1, 2
    found = torch.where(y == 2, 0, y)
    x = 50.0 * F.one_hot(found[:, 0], 3).movedim(-1, 1)
    arguments = {
        "softmax": True,
        "to_onehot_y": True,
        "include_background": False,
        "smooth_nr": 1e-5,
        "smooth_dr": 1e-5,
    }
    theirs = monai.SoftclDiceLoss(**arguments)(x, y)
    assert theirs < 0.06
    assert same(monai_segloss.SoftclDiceLoss(**arguments)(x, y), 0.5)
    assert same(monai_segloss.SoftclDiceLoss(**arguments, per_class=False)(x, y), theirs)


def cldice_of_wide_structures() -> None:
    y = torch.zeros(1, 1, 20, 20).long()
    y[..., 4:16, :] = 1
    arguments = {"softmax": True, "to_onehot_y": True, "include_background": False, "smooth": 1e-4}
    theirs, ours = monai.SoftclDiceLoss(**arguments), monai_segloss.SoftclDiceLoss(**arguments)
    nothing = 50.0 * F.one_hot(0 * y[:, 0], 2).movedim(-1, 1)
    assert same(theirs(nothing, y), 0.5e-4)
    with pytest.warns(UserWarning, match=r"skeleton of a class .* is empty: .* too wide for iter_=3"):
        assert same(ours(nothing, y), 0.5e-4)


SHOWN: dict[str, Callable[[], None]] = {
    "cldice-pooled": cldice_of_classes,
    "cldice-wide": cldice_of_wide_structures,
    "focal-softmax-mean": focal_softmax_mean,
    "focal-ignore-index": focal_ignore_index_scale,
    "focal-background": focal_background_before_softmax,
    "focal-sum": focal_sum,
    "focal-soft-targets": focal_soft_targets,
    "dice-focal-activation": dice_focal_activations,
    "dice-ce-activation": dice_ce_activations,
    "dice-ce-onehot-weight": dice_ce_weights_of_onehot,
    "dice-one-class-weight": one_scored_class_weight,
    "generalized-dice-scale": generalized_dice_scale,
    "wasserstein-float64": wasserstein_float64,
    "mcc-absent": mcc_of_absent_classes,
    "unified-focal-half": unified_focal_half,
    "hausdorff-integer-target": hausdorff_of_integers,
    "boundary-spacing": boundary_in_millimeters,
    "hausdorff-spacing": hausdorff_in_millimeters,
    "none-shape": none_shape,
    "half-precision": half_precision,
    "all-ignored-sample": ignored_sample,
    "ignored-nan": ignored_nan,
    "ignore-index-of-channels": ignore_index_of_channels,
    "value-check": label_out_of_range,
    "logits-as-probabilities": logits_without_activation,
    "argument-check": arguments_out_of_range,
    "nacl-edge": nacl_edge,
    "nacl-gaussian": nacl_gaussian,
    "nacl-ignored": nacl_ignored,
    "small-losses": small_losses,
    "dice-sign": minus_dice,
    "topk-ignored": topk_of_ignored,
    "regions-ignore": regions_with_ignored,
    "all-ignored": all_ignored,
}


def test_every_listed_difference_is_shown() -> None:
    assert {difference.name for difference in DIFFERENCES} <= set(SHOWN)
    assert {difference.key for difference in DIFFERENCES} <= {"*", *(info.key for info in monai_segloss.list_losses())}


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated:UserWarning")
@pytest.mark.parametrize("name", SHOWN)
def test_difference(name: str) -> None:
    SHOWN[name]()
