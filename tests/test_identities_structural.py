"""Losses of windows: closed forms, limits and edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from references import REFERENCES

import monai_segloss
from monai_segloss.kernels import slabs
from monai_segloss.testing import cases
from monai_segloss.testing.harness import make, refused, value


def test_without_structure_cross_entropy_is_left() -> None:
    case = cases.get("five_classes")
    expected = value(make(monai_segloss.find("cross_entropy"), case), case)
    loss = make(monai_segloss.find("structural_similarity"), case, lambda_ce=1.0, lambda_structural=0.0)
    torch.testing.assert_close(value(loss, case), expected)
    n = case.target.numel()
    loss = make(monai_segloss.find("region_mutual_information"), case, lambda_ce=1.0, lambda_rmi=0.0)
    torch.testing.assert_close(value(loss, case), expected * n / (n + 1))


def test_equal_structure_costs_nothing() -> None:
    """A window of one voxel, and constant maps, have the same structure: 1 everywhere."""
    case = cases.get("labels_3d")
    loss = make(monai_segloss.find("structural_similarity"), case, window=1, lambda_ce=0.0)
    assert value(loss, case) == 0
    flat = monai_segloss.create("structural_similarity", softmax=True, to_onehot_y=True, lambda_ce=0.0)
    found = flat(
        0.3 * torch.ones(1, 2, 6, 6) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 6, 6).long()
    )
    assert found == 0


def test_the_threshold_keeps_the_voxels_of_largest_difference() -> None:
    """With the threshold at 1 no voxel is left, at 0 those with any difference; the mean over the kept ones grows."""
    case = cases.get("labels_2d")
    info = monai_segloss.find("structural_similarity")
    parts = [float(value(make(info, case, threshold=t, lambda_ce=0.0), case)) for t in (0.0, 0.5, 0.9, 1.0)]
    assert parts[0] < parts[1] < parts[2]
    assert parts[3] == 0


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("case", ["labels_3d", "ignored"])
def test_windows_of_slabs_are_those_of_the_whole(case: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of slabs thinner than the reach of a window, and of a last one that is thinner still."""
    volumes = cases.get(case)
    loss = make(monai_segloss.find("structural_similarity"), volumes, window=5)
    whole = value(loss, volumes)
    monkeypatch.setattr(slabs, "SLAB", rows * volumes.target.shape[3:].numel())
    assert torch.equal(value(loss, volumes), whole)


@pytest.mark.parametrize("bad", [0, 2, 4.5])
def test_the_window_has_a_center(bad: float) -> None:
    with pytest.raises(ValueError, match="window must be an odd number"):
        monai_segloss.create("structural_similarity", window=bad)


@pytest.mark.parametrize("classes", [2, 5])
def test_nothing_to_know_gives_the_log_of_the_ridge(classes: int) -> None:
    """Constant target and prediction: C / 2 log e, weighted; negative, so no criterion for early stopping."""
    z = torch.zeros(2, classes, 12, 13, 14, dtype=torch.float64)
    z[:, 0] = 200
    label = torch.zeros(2, 1, 12, 13, 14, dtype=torch.long)
    found = monai_segloss.create("region_mutual_information", softmax=True, to_onehot_y=True)(z, label)
    assert found.item() == pytest.approx(0.5 * classes * 0.5 * math.log(5e-4))


def test_a_prediction_that_says_all_lies_between_one_and_two_ridges() -> None:
    label = torch.zeros(1, 1, 24, 24, dtype=torch.long)
    label[0, 0, 5:15, 8:20] = 1
    label[0, 0, ::5, ::7] = 1
    z = 200 * torch.cat((1.0 - label, label), 1).double()
    found = monai_segloss.create("region_mutual_information", softmax=True, to_onehot_y=True, lambda_ce=0.0)(z, label)
    bounds = [2 * 0.5 * 0.5 * math.log(e) for e in (5e-4, 1e-3)]
    assert bounds[0] < found.item() < bounds[1]


def test_a_linear_prediction_says_as_much_as_a_perfect_one() -> None:
    """Mutual information does not mind which is which: an inverted prediction costs cross-entropy only."""
    label = torch.zeros(1, 1, 24, 24, dtype=torch.long)
    label[0, 0, 5:15, 8:20] = 1
    z = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = monai_segloss.create("region_mutual_information", softmax=True, to_onehot_y=True, lambda_ce=0.0, pool=1)
    torch.testing.assert_close(loss(z, label), loss(z.flip(1), label))


@pytest.mark.parametrize("shape", [(4, 4, 4), (1, 1), (2, 30), (3, 12, 12)])
def test_images_smaller_than_a_neighborhood(shape: tuple[int, ...]) -> None:
    """Deep supervision has such images: their short axes are one window, and cross-entropy still trains."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 1, *shape), generator=generator)
    z = torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = monai_segloss.create("region_mutual_information", softmax=True, to_onehot_y=True)
    found = loss(z, label)
    expected = REFERENCES["region_mutual_information"](z.detach().numpy(), label.numpy(), "softmax", labels=True)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9)
    (slope,) = torch.autograd.grad(found, z)
    assert slope.abs().sum() > 0


def test_float32_keeps_the_digits_of_the_determinant() -> None:
    """The covariances are sums of products of many points: in float32 the determinant would be lost."""
    generator = torch.Generator().manual_seed(0)
    label = (torch.rand(1, 1, 64, 64, 32, generator=generator) < 0.3).long()
    z = torch.randn(1, 2, 64, 64, 32, generator=generator) + 4 * torch.cat((1.0 - label, label), 1)
    loss = monai_segloss.create("region_mutual_information", softmax=True, to_onehot_y=True)
    torch.testing.assert_close(loss(z, label).double(), loss(z.double(), label), rtol=1e-5, atol=0)


@pytest.mark.parametrize("key", ["structural_similarity", "region_mutual_information", "border_weighted_ce"])
def test_voxels_without_a_place_have_no_neighbors(key: str) -> None:
    loss = monai_segloss.create(key, softmax=True, to_onehot_y=True)
    refused((ValueError, r"input has shape \(4, 3\).*spatial axes"), loss, torch.zeros(4, 3), torch.zeros(4, 1).long())


def test_refusals() -> None:
    space = (5, 4, 4, 4)
    four = torch.zeros(2, 3, *space), torch.zeros(2, 1, *space).long()
    loss = monai_segloss.create("region_mutual_information", softmax=True, to_onehot_y=True)
    refused((ValueError, "pool=3 pools 3 axes at most"), loss, *four)
    assert monai_segloss.create("region_mutual_information", softmax=True, to_onehot_y=True, pool=1)(*four).isfinite()
    for name in ("radius", "pool"):
        for bad in (0, 1.5):
            with pytest.raises(ValueError, match=f"{name} must be a whole number"):
                monai_segloss.create("region_mutual_information", **{name: bad})
    with pytest.raises(ValueError, match="ridge must be above 0"):
        monai_segloss.create("region_mutual_information", ridge=0.0)
