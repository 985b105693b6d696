"""Losses of calibration: closed forms of the catalog, identities, and what code elsewhere gets wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss.testing import cases
from monai_segloss.testing.harness import assert_close, gradient, refused, value

E1, E2 = math.exp(-0.5), math.exp(-1)
"""Weights of face and corner neighbors in a plane, next to that of the center."""


def ace(p: Tensor, g: Tensor, **arguments: Any) -> Tensor:
    found: Tensor = monai_segloss.create("l1_ace", **arguments)(p, g)
    return found


def one_channel(*rows: list[float]) -> Tensor:
    """(B, 1, n)."""
    return torch.tensor(rows, dtype=torch.float64)[:, None]


# -- average calibration error ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_a_constant_prediction_is_as_wrong_as_it_is_far_from_the_frequency(soft: bool) -> None:
    g = one_channel([1.0, 0, 0, 0, 0, 0, 0, 1])
    for p in (0.05, 0.25, 0.7, 1.0):
        found = ace(torch.full_like(g, p), g, soft_bins=soft)
        assert float(found) == pytest.approx(abs(p - 0.25), abs=1e-12)


def test_hard_bins_are_those_of_the_metric_of_monai() -> None:
    """MONAI has the metric, not yet the losses."""
    binning = pytest.importorskip("monai.metrics.calibration").calibration_binning
    for name in ("labels_3d", "five_classes", "regions"):
        case = cases.get(name)
        p = torch.softmax(case.input, 1) if case.activation == "softmax" else torch.sigmoid(case.input)
        mean_p, mean_g, _ = binning(p, case.onehot(), num_bins=15)
        expected = (mean_p - mean_g).abs().nanmean(2) * case.onehot().flatten(2).any(2)
        found = value(monai_segloss.create("l1_ace", bins=15, **case.reading), case, case.input.float())
        assert_close(found, expected.mean(), name, rtol=1e-4)


def test_the_gradient_of_hard_bins_flows_through_the_mean_of_p() -> None:
    p = one_channel([0.92, 0.96, 0.12, 0.14]).requires_grad_()
    (slope,) = torch.autograd.grad(ace(p, one_channel([1.0, 0, 0, 0]), bins=10), p)
    assert_close(slope, torch.full_like(slope, 1 / 4), "1 / (two bins, two voxels in each)")


def test_soft_bins_share_a_probability_between_two_centers() -> None:
    """Bins of 0.5: centers 0.25 and 0.75; beyond the outermost all of it is in one."""
    p, g = one_channel([0.25, 0.5, 1.0]), one_channel([0.0, 0, 1])
    low, high = (0.25 + 0.25) / 1.5, (0.25 + 1.0) / 1.5
    expected = (abs(low - 0) + abs(high - 1 / 1.5)) / 2
    assert float(ace(p, g, bins=2, soft_bins=True)) == pytest.approx(expected)


@pytest.mark.parametrize(("soft", "jump"), [(False, True), (True, False)])
def test_only_hard_bins_jump_at_an_edge(soft: bool, jump: bool) -> None:
    g = one_channel([1.0, 0, 0, 1])
    below, above = (
        float(ace(one_channel([0.12, 0.14, x, 0.8]), g, bins=10, soft_bins=soft)) for x in (0.2 - 1e-9, 0.2 + 1e-9)
    )
    assert (abs(above - below) > 1e-3) is jump


def test_bins_of_the_batch_are_not_the_mean_of_those_of_the_samples() -> None:
    p, g = one_channel([0.5, 0.5], [0.5, 0.5]), one_channel([1.0, 1], [0.0, 0])
    assert float(ace(p, g)) == 0.25, "the first sample is wrong by 1/2, the class is absent from the second"
    assert float(ace(p, g, batch=True)) == 0


def test_an_absent_class_counts_nothing_but_stays_in_the_mean() -> None:
    p = torch.tensor([[[0.4, 0.4], [0.3, 0.3]]])
    g = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert float(ace(p, g)) == pytest.approx(0.6 / 2)


def test_bins_must_be_whole_and_some() -> None:
    for bad in (0, 1.5, 5000):
        with pytest.raises(ValueError, match="bins must"):
            monai_segloss.create("l1_ace", bins=bad)


@pytest.mark.parametrize("soft", [False, True])
def test_dice_ce_ace_is_the_sum_of_its_terms(soft: bool) -> None:
    case = cases.get("five_classes")
    reading = {**case.reading, "include_background": False}
    found = value(monai_segloss.create("dice_ce_ace", lambda_ace=0.3, soft_bins=soft, **reading), case)
    error = value(monai_segloss.create("l1_ace", soft_bins=soft, **case.reading), case)
    assert_close(found, value(monai_segloss.create("dice_ce", **reading), case) + 0.3 * error, "with the background")


# -- spatially varying label smoothing -------------------------------------------------------------------------------


def half_plane() -> Tensor:
    """(1, 1, 6, 6): class 1 on the right."""
    return (torch.arange(6) >= 3).long().expand(1, 1, 6, 6)


def costs(label: Tensor, mask: Tensor | None = None, **arguments: Any) -> Tensor:
    """Cost of each voxel at p = (0.8, 0.2), (6, 6)."""
    logits = torch.tensor([0.8, 0.2], dtype=torch.float64).log().view(1, 2, 1, 1).expand(1, 2, *label.shape[2:])
    loss = monai_segloss.create(
        "label_smoothing_cross_entropy", kind="spatial", softmax=True, to_onehot_y=True, reduction="none", **arguments
    )
    found: Tensor = loss(logits, label, mask=mask)
    return found[0, 0]


@pytest.mark.parametrize(("arguments", "e"), [({}, 0.5), ({"label_smoothing": 0.2}, 0.2)])
def test_only_borders_are_smoothed(arguments: dict[str, float], e: float) -> None:
    """At a straight border 3 of 8 neighbors are of the other class; published is half of the weight to them all."""
    found = costs(half_plane(), **arguments)
    other = e * (2 * E2 + E1) / (4 * E2 + 4 * E1)
    zero, one = -math.log(0.8), -math.log(0.2)
    row = [zero, zero, (1 - other) * zero + other * one, other * zero + (1 - other) * one, one, one]
    for y in (1, 2, 3, 4):
        assert found[y].tolist() == pytest.approx(row)


def test_beyond_the_image_and_ignored_there_are_no_neighbors() -> None:
    label = half_plane()
    other = 0.5 * (E2 + E1) / (2 * E2 + 3 * E1)
    zero, one = -math.log(0.8), -math.log(0.2)
    assert float(costs(label)[0, 2]) == pytest.approx((1 - other) * zero + other * one)
    kept = (torch.arange(6) >= 2).view(1, 1, 6, 1).expand(1, 1, 6, 6)
    assert_close(costs(label, kept)[2:], costs(label[:, :, 2:]), "as if the ignored rows were not there")
    alone = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    alone[..., 3, 3] = True
    assert float(costs(label, alone)[3, 3]) == pytest.approx(one), "without neighbors the label itself"


def test_smoothed_labels_are_no_more_than_the_voxels_where_classes_have_weights() -> None:
    """One voxel of weight, shared: cost 1 at p with -log p = 1 for all classes, whatever the weights."""
    label = half_plane()
    logits = torch.zeros(1, 2, 6, 6, dtype=torch.float64)
    loss = monai_segloss.create(
        "label_smoothing_cross_entropy", kind="spatial", softmax=True, to_onehot_y=True, weight=[1.0, 7.0]
    )
    assert float(loss(logits, label)) == pytest.approx(math.log(2))


def test_smoothing_refuses_regions_of_each_kind() -> None:
    for kind in ("uniform", "spatial"):
        with pytest.raises(ValueError, match="label_smoothing"):
            monai_segloss.create("label_smoothing_cross_entropy", kind=kind, sigmoid=True)
    with pytest.raises(ValueError, match="kind must be one of 'uniform', 'spatial'"):
        monai_segloss.create("label_smoothing_cross_entropy", kind="svls")


# -- penalties of logits ---------------------------------------------------------------------------------------------

PENALIZED = {"nacl": {"alpha": 0.0}, "margin_cross_entropy": {"alpha": 0.0}}


@pytest.mark.parametrize("name", ["labels_3d", "ignored_2d", "soft_labels"])
@pytest.mark.parametrize("key", PENALIZED)
def test_without_its_penalty_it_is_the_cross_entropy(key: str, name: str) -> None:
    case = cases.get(name)
    for found, expected in zip(
        gradient(monai_segloss.create(key, **PENALIZED[key], **case.reading), case),
        gradient(monai_segloss.create("cross_entropy", **case.reading), case),
        strict=True,
    ):
        assert_close(found, expected, key)


def test_within_the_margin_there_is_no_penalty() -> None:
    case = cases.get("labels_3d")
    widest = float((case.input.amax(1) - case.input.amin(1)).max())
    loss = monai_segloss.create("margin_cross_entropy", margin=widest, **case.reading)
    value(loss, case)
    assert loss.last["margin"] == 0
    tight = monai_segloss.create("margin_cross_entropy", margin=0.0, **case.reading)
    value(tight, case)
    assert_close(tight.last["margin"], (case.input.amax(1, keepdim=True) - case.input).mean(), "all differences")


def test_the_margin_stops_certainty() -> None:
    """The gradient of cross-entropy always widens the gap, that of the penalty narrows it beyond the margin."""
    label = torch.zeros(1, 1, 1, dtype=torch.long)
    loss = monai_segloss.create("margin_cross_entropy", softmax=True, to_onehot_y=True)
    slopes = {}
    for gap in (9.0, 12.0):
        z = torch.tensor([[[gap], [0.0]]], dtype=torch.float64, requires_grad=True)
        slopes[gap] = float(torch.autograd.grad(loss(z, label), z)[0][0, 0, 0])
    assert slopes[9.0] < 0 < slopes[12.0]


@pytest.mark.parametrize("window", [{}, {"kernel_ops": "gaussian", "kernel_size": 5, "sigma": 2.0}])
def test_shares_of_classes_sum_to_1_at_the_edge_and_next_to_ignored_voxels(window: dict[str, Any]) -> None:
    """Logits that are constants: with one class the penalty is the distance from 1 and 0, wherever a voxel lies."""
    label = torch.zeros(1, 1, 3, 4, 3, dtype=torch.long)
    z = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1, 1).expand(1, 2, 3, 4, 3)
    mask = torch.rand(label.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    loss = monai_segloss.create("nacl", **window)
    for given in (None, mask):
        loss(z, label, mask=given)
        assert float(loss.last["penalty"]) == pytest.approx(0, abs=1e-12)


def test_ignored_voxels_are_in_no_window() -> None:
    case = cases.get("labels_2d")
    kept = torch.arange(case.input.shape[2]) >= 4
    loss = monai_segloss.create("nacl")
    found = loss(case.input, case.target, mask=kept.view(1, 1, -1, 1).expand(case.valid.shape))
    assert_close(found, loss(case.input[:, :, 4:], case.target[:, :, 4:]), "as if the ignored rows were not there")


def test_what_monai_must_be_told_is_checked() -> None:
    case = cases.get("labels_3d")
    assert_close(
        value(monai_segloss.create("nacl", classes=3, dim=3), case), value(monai_segloss.create("nacl"), case), "told"
    )
    for wrong in ({"classes": 4}, {"dim": 2}):
        refused((ValueError, f"{next(iter(wrong))} is"), value, monai_segloss.create("nacl", **wrong), case)
    with pytest.raises(ValueError, match="kernel_size must be an odd number"):
        monai_segloss.create("nacl", kernel_size=4)


# -- sure mistakes ---------------------------------------------------------------------------------------------------


def test_dice_plus_plus_forgives_doubt_and_not_certainty() -> None:
    """At p = 1/2 an error counts 1/4, not 1/2; a sure error counts 1 in both."""
    g = one_channel([1.0, 1, 0, 0])
    half, wrong = torch.full_like(g, 0.5), one_channel([1.0, 0, 1, 0])
    loss, dice = (monai_segloss.create(key, smooth_nr=0.0, smooth_dr=0.0) for key in ("dice_plus_plus", "dice"))
    assert float(loss(half, g)) == pytest.approx(1 / 3)
    assert float(dice(half, g)) == pytest.approx(1 / 2)
    assert float(loss(wrong, g)) == float(dice(wrong, g)) == pytest.approx(1 / 2)
    for name in ("labels_3d", "regions", "ignored", "soft_labels"):
        case = cases.get(name)
        plain = gradient(monai_segloss.create("dice", **case.reading), case)
        for found, expected in zip(
            gradient(monai_segloss.create("dice_plus_plus", gamma=1.0, **case.reading), case), plain, strict=True
        ):
            assert_close(found, expected, name)
