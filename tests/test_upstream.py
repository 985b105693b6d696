"""Where MONAI 1.6 and nnU-Net 2.8 are right we give their values and gradients (the rest: test_differences)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cases
import pytest
import torch
from cases import Case
from harness import gradient
from torch import Tensor

import monai_segloss

monai = pytest.importorskip("monai.losses")
compound = pytest.importorskip("nnunetv2.training.loss.compound_losses")
from monai.data.meta_tensor import MetaTensor  # noqa: E402
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss  # noqa: E402
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss  # noqa: E402

SHARED = ("DiceLoss", "TverskyLoss", "FocalLoss", "DiceCELoss", "DiceFocalLoss")
LABELS = ("labels_2d", "labels_3d", "five_classes", "empty_class", "one_voxel", "many_classes")
WEIGHT = [1.0, 2.0, 0.5, 4.0, 0.25]


def assert_equal(
    ours: Callable[..., Tensor], peer: Callable[[Tensor, Tensor], Tensor], case: Case, plus: float = 0
) -> None:
    """Value (plus a constant of the peer's convention) and gradient in float32."""
    found, slope = gradient(ours, case, case.input.float())
    leaf = case.input.float().requires_grad_()
    expected = peer(leaf, case.target)
    (other,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(found, expected.detach().float() + plus, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, other, rtol=1e-4, atol=1e-6)


def check_monai(name: str, case: Case, **arguments: Any) -> None:
    ours = getattr(monai_segloss, name)(**case.reading, **arguments)
    peer = getattr(monai, name)(**case.reading, **arguments)
    assert_equal(ours, peer, case)


@pytest.mark.parametrize("name", SHARED)
def test_arguments_are_those_of_monai(name: str) -> None:
    """The same names and defaults in the same positional order; ours may have more."""
    ours = list(inspect.signature(getattr(monai_segloss, name)).parameters.values())
    peer = list(inspect.signature(getattr(monai, name)).parameters.values())
    assert [p.name for p in ours[: len(peer)]] == [p.name for p in peer]
    assert [p.default for p in ours[: len(peer)]] == [p.default for p in peer]
    assert all(p.kind == p.POSITIONAL_OR_KEYWORD for p in ours[: len(peer)])
    assert all(p.kind == p.KEYWORD_ONLY for p in ours[len(peer) :])


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"include_background": False},
        {"batch": True},
        {"squared_pred": True},
        {"squared_pred": True, "jaccard": True, "batch": True},
        {"jaccard": True, "include_background": False},
        {"soft_label": True},
        {"smooth_nr": 0.0, "smooth_dr": 1.0},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"weight": WEIGHT},
        {"weight": WEIGHT[1:], "include_background": False},
        {"weight": 3.0},
    ],
    ids=str,
)
def test_dice(name: str, arguments: dict[str, Any]) -> None:
    case = cases.get(name)
    if isinstance(arguments.get("weight"), list):
        first = 0 if arguments.get("include_background", True) else 1
        weight = (WEIGHT * 24)[first : case.classes]
        if len(weight) < 2:
            pytest.fail("a weight of one class is a named difference")
        arguments = {**arguments, "weight": weight}
    check_monai("DiceLoss", case, **arguments)


@pytest.mark.parametrize("name", ["one_class", "regions", "soft_labels", "soft_regions", "ignored"])
@pytest.mark.parametrize("arguments", [{}, {"batch": True}, {"squared_pred": True}, {"soft_label": True}], ids=str)
def test_dice_of_other_targets(name: str, arguments: dict[str, Any]) -> None:
    case = cases.get(name)
    if "soft" not in name or arguments.get("soft_label") or arguments.get("squared_pred"):
        check_monai("DiceLoss", replace(case, target=case.target.float()), **arguments)


@pytest.mark.parametrize("name", [*LABELS, "one_class", "regions", "soft_labels", "ignored"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"alpha": 0.3, "beta": 0.7},
        {"alpha": 0.3, "beta": 0.7, "batch": True},
        {"alpha": 1.0, "beta": 1.0, "smooth_nr": 1.0, "smooth_dr": 1.0},
        {"alpha": 0.3, "beta": 0.7, "soft_label": True},
        {"reduction": "sum"},
    ],
    ids=str,
)
def test_tversky(name: str, arguments: dict[str, Any]) -> None:
    case = cases.get(name)
    check_monai("TverskyLoss", replace(case, target=case.target.float()), **arguments)
    if case.classes > 1:
        check_monai("TverskyLoss", replace(case, target=case.target.float()), include_background=False, **arguments)


def plain(case: Case) -> Case:
    """The case for MONAI's focal loss, which has no `sigmoid` argument."""
    return replace(case, target=case.target.float())


@pytest.mark.parametrize("name", [*LABELS, "regions", "one_class"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal(name: str, gamma: float, alpha: float | None) -> None:
    case = plain(cases.get(name))
    reading = {"to_onehot_y": True} if case.labels else {}
    for more in ({}, {"include_background": False}, {"weight": 2.0}) if case.classes > 1 else ({}, {"weight": 2.0}):
        ours = monai_segloss.FocalLoss(gamma=gamma, alpha=alpha, **reading, **more)
        assert_equal(ours, monai.FocalLoss(gamma=gamma, alpha=alpha, **reading, **more), case)


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("alpha", [None, 0.25, "per class"])
def test_softmax_focal_is_monai_times_classes(name: str, alpha: float | str | None) -> None:
    case = cases.get(name)
    given = [0.5 / (1 + c) for c in range(case.classes)] if alpha == "per class" else alpha
    ours = monai_segloss.FocalLoss(to_onehot_y=True, use_softmax=True, alpha=given)
    peer = monai.FocalLoss(to_onehot_y=True, use_softmax=True, alpha=given)
    assert_equal(ours, lambda x, y: peer(x, y) * case.classes, case)


@pytest.mark.parametrize("name", [*LABELS, "one_class"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"lambda_dice": 0.3, "lambda_ce": 2.0},
        {"label_smoothing": 0.1},
        {"include_background": False, "batch": True},
    ],
    ids=str,
)
def test_dice_ce(name: str, arguments: dict[str, Any]) -> None:
    case = cases.get(name)
    if case.classes == 1:
        arguments = {k: v for k, v in arguments.items() if k not in ("label_smoothing", "include_background")}
    check_monai("DiceCELoss", case, **arguments)
    if case.classes > 1:
        check_monai("DiceCELoss", case, weight=torch.tensor((WEIGHT * 24)[: case.classes]), **arguments)


@pytest.mark.parametrize("name", ["regions", "one_class"])
@pytest.mark.parametrize(
    "arguments", [{}, {"gamma": 3.0, "lambda_focal": 0.5}, {"alpha": 0.25, "batch": True}], ids=str
)
def test_dice_focal(name: str, arguments: dict[str, Any]) -> None:
    check_monai("DiceFocalLoss", plain(cases.get(name)), **arguments)


def soft_dice(batch: bool) -> dict[str, Any]:
    return {"batch_dice": batch, "do_bg": False, "smooth": 1e-5, "ddp": False}


@pytest.mark.parametrize("name", [*LABELS, "ignored"])
@pytest.mark.parametrize("batch", [False, True])
def test_default_loss_of_nnunet_plus_one(name: str, batch: bool) -> None:
    case = cases.get(name)
    peer = compound.DC_and_CE_loss(
        soft_dice(batch), {}, ignore_label=case.ignore_index, dice_class=MemoryEfficientSoftDiceLoss
    )
    ours = monai_segloss.DiceCELoss(include_background=False, batch=batch, **case.reading)
    assert_equal(ours, peer, case, plus=1)


def test_default_loss_of_nnunet_with_everything_ignored() -> None:
    case = cases.get("ignored")
    nothing = replace(case, target=torch.full_like(case.target, cases.IGNORE))
    peer = compound.DC_and_CE_loss(soft_dice(False), {}, ignore_label=cases.IGNORE)
    assert_equal(monai_segloss.DiceCELoss(include_background=False, **case.reading), peer, nothing, plus=1)


@pytest.mark.parametrize("batch", [False, True])
def test_region_loss_of_nnunet_plus_one(batch: bool) -> None:
    case = cases.get("regions")
    peer = compound.DC_and_BCE_loss({}, {**soft_dice(batch), "do_bg": True}, dice_class=MemoryEfficientSoftDiceLoss)
    assert_equal(monai_segloss.DiceCELoss(sigmoid=True, batch=batch), peer, case, plus=1)


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated:UserWarning")
@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("k", [5, 10, 100])
def test_topk_of_nnunet(name: str, k: int) -> None:
    case = cases.get(name)
    assert_equal(monai_segloss.TopKCrossEntropyLoss(k=k, **case.reading), TopKLoss(k=k), case)
    peer = compound.DC_and_topk_loss(soft_dice(True), {"k": k})
    assert_equal(monai_segloss.DiceTopKLoss(k=k, include_background=False, batch=True, **case.reading), peer, case, 1)


@pytest.mark.parametrize("name", [*LABELS, "ignored"])
def test_cross_entropy_of_torch(name: str) -> None:
    case = cases.get(name)
    weight = torch.tensor((WEIGHT * 24)[: case.classes])
    ignored = {"ignore_index": case.ignore_index} if case.ignore_index is not None else {}
    for more in ({}, {"weight": weight}, {"label_smoothing": 0.2}, {"weight": weight, "label_smoothing": 0.2}):
        ours = monai_segloss.CrossEntropyLoss(**case.reading, **more)
        assert_equal(ours, RobustCrossEntropyLoss(**ignored, **more), case)


def test_binary_cross_entropy_of_torch() -> None:
    case = plain(cases.get("regions"))
    weight = torch.tensor(WEIGHT[:3])
    assert_equal(monai_segloss.CrossEntropyLoss(sigmoid=True), torch.nn.BCEWithLogitsLoss(), case)
    peer = torch.nn.BCEWithLogitsLoss(pos_weight=weight.view(3, 1, 1, 1))
    assert_equal(monai_segloss.CrossEntropyLoss(sigmoid=True, weight=weight), peer, case)


@pytest.mark.parametrize("info", monai_segloss.list_losses(), ids=lambda info: info.key)
def test_metatensors_are_read_as_tensors(info: Any) -> None:
    case = cases.get("labels_3d")
    loss = info.cls(**info.example, **info.reading)
    found = loss(MetaTensor(case.input), MetaTensor(case.target))
    assert type(found) is Tensor
    assert torch.equal(found, loss(case.input, case.target))
