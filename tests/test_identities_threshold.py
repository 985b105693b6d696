"""Losses of a map of thresholds: the map, its gradient, its limits and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from references import REFERENCES

import monai_segloss
from monai_segloss.testing import cases
from monai_segloss.testing.harness import make, value

KEYS = ("threshold_map_dice", "focal_positive")


def thresholds(case: cases.Case) -> torch.Tensor:
    return torch.randn(case.valid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["labels_3d", "five_classes", "regions_masked", "ignored_sample", "soft_labels"])
def test_a_map_of_thresholds(key: str, name: str) -> None:
    case = cases.get(name)
    sent = thresholds(case)
    loss = make(monai_segloss.find(key), case)
    mask = None if case.mask is None else case.mask.numpy()
    expected = REFERENCES[key](
        case.input.numpy(),
        case.target.numpy(),
        case.activation,
        mask,
        labels=case.labels,
        ignore_index=case.ignore_index,
        threshold=sent.numpy(),
    )
    for each in (sent, sent[:, 0]):
        found = loss(case.input, case.target, threshold=each, **case.call)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("key", KEYS)
def test_the_map_gets_a_gradient_and_none_where_ignored(key: str) -> None:
    case = cases.get("ignored")
    sent = torch.where(case.valid, thresholds(case), torch.nan).requires_grad_()
    loss = make(monai_segloss.find(key), case)
    found = loss(case.input, case.target, threshold=sent)
    (slope,) = torch.autograd.grad(found, sent)
    assert found.isfinite()
    assert slope[case.valid].any()
    assert slope.isfinite().all()
    assert not slope[~case.valid].any()


@pytest.mark.parametrize("key", KEYS)
def test_without_a_map_the_threshold_is_one_half(key: str) -> None:
    case = cases.get("labels_3d")
    loss = make(monai_segloss.find(key), case)
    torch.testing.assert_close(
        loss(case.input, case.target, threshold=torch.zeros_like(case.target, dtype=torch.float64)), value(loss, case)
    )


def test_a_sharp_comparison_is_the_dice_of_the_hard_prediction() -> None:
    case = cases.get("regions")
    hard = (case.input > 0).double()
    expected = monai_segloss.create("dice")(hard, case.target)
    sharp = make(monai_segloss.find("threshold_map_dice"), case, sharpness=1e6)
    torch.testing.assert_close(value(sharp, case), expected, rtol=1e-4, atol=1e-6)


def test_focal_positive_knows_no_false_positive() -> None:
    target = torch.zeros(1, 1, 5, 5)
    target[0, 0, 1:3, 1:3] = 1
    everything = torch.full((1, 1, 5, 5), 50.0)
    assert monai_segloss.create("focal_positive", sigmoid=True)(everything, target) < 1e-6
    assert monai_segloss.create("threshold_map_dice", sigmoid=True)(everything, target) > 0.7


@pytest.mark.parametrize("key", KEYS)
def test_refusals(key: str) -> None:
    case = cases.get("labels_3d")
    loss = make(monai_segloss.find(key), case)
    with pytest.raises(ValueError, match=r"sharpness must be above 0"):
        monai_segloss.create(key, sharpness=0.0)
    with pytest.raises(ValueError, match=r"threshold has shape"):
        loss(case.input, case.target, threshold=case.input)
    with pytest.raises(TypeError, match=r"threshold must be floating point"):
        loss(case.input, case.target, threshold=case.target)
