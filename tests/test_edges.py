"""Edges of voxel and region losses: no smoothing, weights of 0, certain predictions, classes absent or everywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import monai_segloss
from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import cases
from monai_segloss.testing.cases import Case
from monai_segloss.testing.harness import assert_close, gradient, make, refused, supported, value

SMOOTH = ("smooth_nr", "smooth_dr")
UNSMOOTHED = [
    info.key
    for family in ("region", "compound", "boundary")
    for info in monai_segloss.list_losses(family)
    if set(SMOOTH) <= set(info.parameters) and not info.needs
]


@pytest.mark.parametrize("key", UNSMOOTHED)
def test_without_smoothing_nothing_is_divided_by_zero(key: str) -> None:
    """Classes neither there nor predicted (p underflows), and samples of which everything is ignored."""
    info = monai_segloss.find(key)
    arguments: dict[str, Any] = dict.fromkeys(SMOOTH, 0.0)
    scored = {"include_background": False} if "include_background" in info.parameters else {}
    for case in supported(info, "empty_class", "empty_region", "ignored_sample", "regions_masked"):
        for made in (case, cases.perfect(case, margin=400.0), cases.everything_ignored(case)):
            found, slope = gradient(make(info, made, **arguments, **scored), made, made.input.float())
            assert found.isfinite(), f"{case.name}: {found}"
            assert slope.isfinite().all(), f"{case.name}: the gradient is not finite"
    case = cases.enlarged(cases.get("ignored_sample", info.size), info.min_error_width)
    kept = replace(case, input=case.input[[0, 2]], target=case.target[[0, 2]])
    found, expected = (value(make(info, c, **arguments), c) for c in (case, kept))
    assert_close(found, expected, "the ignored sample")


@pytest.mark.parametrize("squared", [True, False])
def test_a_class_that_is_everywhere_does_not_swamp_the_gradient_of_the_others(squared: bool) -> None:
    """1 / dr, the slope of errors that it cannot make, took the digits of all others in float32."""
    case = cases.get("empty_class")
    for target in (case.target, torch.zeros_like(case.target)):
        made = replace(case, target=target)
        loss = make(monai_segloss.find("sensitivity_specificity"), made, squared=squared)
        _, slope = gradient(loss, made, made.input.float())
        _, wide = gradient(loss, made)
        torch.testing.assert_close(slope.double(), wide, rtol=1e-4, atol=1e-7 * float(wide.abs().max()))


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("cross_entropy", {"label_smoothing": 0.1}),
        ("label_smoothing_cross_entropy", {}),
        ("weighted_cross_entropy", {}),
        ("poly1_cross_entropy", {}),
        ("topk_cross_entropy", {}),
    ],
)
def test_weight_zero_of_all_present_classes_gives_zero(key: str, arguments: dict[str, Any]) -> None:
    """Where nothing is counted the mean is 0, not the sum of what smoothing leaves (torch: NaN)."""
    case = cases.get("two_classes")
    empty = replace(case, target=torch.zeros_like(case.target))
    found, slope = gradient(make(monai_segloss.find(key), empty, weight=[0.0, 1.0], **arguments), empty)
    assert found == 0
    assert not slope.any()
    assert torch.isnan(value(make(monai_segloss.find(key), empty, weight=[0.0, 1.0]), empty, empty.input * torch.nan))


def test_a_threshold_of_one_is_the_cross_entropy_of_certain_voxels_too() -> None:
    """In float32 p_t of most voxels of a trained network is 1."""
    logits = torch.zeros(1, 2, 1000)
    logits[:, 0], logits[:, 0, :150] = 30.0, -1.0
    case = Case("certain", logits, torch.zeros(1, 1, 1000, dtype=torch.long))
    found, expected = (
        value(make(monai_segloss.find(key), case, **arguments), case)
        for key, arguments in (("bootstrapped_cross_entropy", {"threshold": 1.0}), ("cross_entropy", {}))
    )
    assert_close(found, expected, "threshold 1")


@pytest.mark.parametrize(
    "info", [*monai_segloss.list_losses("voxel"), *monai_segloss.list_losses("region")], ids=lambda info: info.key
)
def test_samples_without_axes_in_space_are_volumes_of_one_voxel(info: LossInfo) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (6, 1), generator=generator)
    flat = Case("flat", logits, label, "softmax" if "labels" in info.support else "sigmoid")
    line = replace(flat, input=logits[..., None], target=label[..., None])
    found, slope = gradient(make(info, flat), flat)
    expected, other = gradient(make(info, line), line)
    assert_close(found, expected, "value")
    assert_close(slope, other[..., 0], "gradient")


@pytest.mark.parametrize(
    "key", ["cross_entropy", "weighted_cross_entropy", "binary_cross_entropy", "border_weighted_ce"]
)
@pytest.mark.parametrize("how", ["mean", "none"])
def test_a_weight_map_is_not_read_where_voxels_are_ignored(key: str, how: str) -> None:
    """Where they count, NaN and infinity are refused; infinity times a mask of 0 was NaN."""
    info = monai_segloss.find(key)
    for case in supported(info, "ignored", "regions_masked"):
        weights = torch.rand(case.valid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        loss = make(info, case, reduction=how)
        expected = loss(case.input, case.target, **case.call, weight_map=weights)
        for bad in (torch.nan, torch.inf, -1.0):
            hidden = torch.where(case.valid, weights, bad)
            found = loss(case.input, case.target, **case.call, weight_map=hidden)
            assert_close(found, expected, f"{case.name}: {bad} at ignored voxels", rtol=0)
            counted = torch.where(case.valid, bad, weights)
            refused(
                (ValueError, "weight_map holds NaN or negative or infinite"),
                loss,
                case.input,
                case.target,
                **case.call,
                weight_map=counted,
            )
