"""Overlap losses whose class has MONAI's name: its arguments, and its values where it is right."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import cases
import pytest
import torch
from cases import Case
from harness import gradient
from properties.arguments import distances

import monai_segloss

monai = pytest.importorskip("monai.losses")
LABELS = ("labels_2d", "labels_3d", "five_classes", "one_voxel")


def check_monai(name: str, case: Case, ours: dict[str, Any], *args: Any, **theirs: Any) -> None:
    peer = getattr(monai, name)(*args, **theirs)
    found, slope = gradient(getattr(monai_segloss, name)(*args, **theirs, **ours), case, case.input.float())
    leaf = case.input.float().requires_grad_()
    expected = peer(leaf, case.target)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), leaf)[0], rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["GeneralizedDiceLoss", "GeneralizedWassersteinDiceLoss", "MCCLoss"])
def test_arguments_are_those_of_monai(name: str) -> None:
    """Names, order and defaults; the distances of ours have a default."""
    peer = list(inspect.signature(getattr(monai, name)).parameters.values())
    ours = list(inspect.signature(getattr(monai_segloss, name)).parameters.values())
    assert [p.name for p in ours[: len(peer)]] == [p.name for p in peer]
    wanted = [None if p.name == "dist_matrix" else getattr(p.default, "value", p.default) for p in peer]
    assert [p.default for p in ours[: len(peer)]] == wanted
    assert all(p.kind == p.POSITIONAL_OR_KEYWORD for p in ours[: len(peer)])
    assert all(p.kind == p.KEYWORD_ONLY for p in ours[len(peer) :])


@pytest.mark.parametrize("name", [*LABELS, "empty_class", "regions"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"w_type": "simple", "batch": True},
        {"w_type": "uniform", "include_background": False},
        {"batch": True, "soft_label": True},
        {"smooth_nr": 0.0, "smooth_dr": 1.0, "reduction": "sum"},
        {"reduction": "none"},
    ],
    ids=str,
)
def test_generalized_dice_of_monai(name: str, arguments: dict[str, Any]) -> None:
    case = cases.get(name)
    case = case if case.labels else replace(case, target=case.target.float())
    check_monai("GeneralizedDiceLoss", case, {"scale_free": False}, **case.reading, **arguments)


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("mode", ["default", "GDL"])
def test_wasserstein_dice_of_monai(name: str, mode: str) -> None:
    case = cases.get(name)
    matrix = torch.tensor(distances(case.classes))
    check_monai("GeneralizedWassersteinDiceLoss", case, {"to_onehot_y": True}, matrix, mode)
    check_monai("GeneralizedWassersteinDiceLoss", case, {"to_onehot_y": True}, matrix, mode, "sum", 0.5, 1.0)


@pytest.mark.parametrize("name", ["labels_2d", "labels_3d", "five_classes", "regions"])
@pytest.mark.parametrize(
    "arguments", [{}, {"batch": True}, {"smooth_nr": 1.0, "smooth_dr": 2.0}, {"reduction": "sum"}], ids=str
)
def test_mcc_of_monai(name: str, arguments: dict[str, Any]) -> None:
    case = cases.get(name)
    case = case if case.labels else replace(case, target=case.target.float())
    check_monai("MCCLoss", case, {}, **case.reading, **arguments)
