"""The weighted Hausdorff distance: closed forms, powers of small numbers, chunks, points."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_identities_boundary_weights import READING, blobs, hard, of
from torch import Tensor

import monai_segloss
from monai_segloss.kernels import points as points_module
from monai_segloss.kernels.points import generalized_mean_distance


def whd(predicted: Tensor, truth: Tensor, spacing: Any = None, **arguments: Any) -> float:
    return of("weighted_hausdorff", hard(predicted), truth.long()[None, None], spacing, **arguments)


def test_weighted_hausdorff_of_a_shifted_half_space() -> None:
    """Too many voxels: their mean distance; too few: the distance of the contour to what is found."""
    truth = torch.zeros(20, dtype=torch.bool)
    truth[10:] = True
    for step in (1.0, 0.4):
        longest = 19 * step
        for t in range(1, 5):
            more = torch.zeros_like(truth)
            more[10 - t :] = True
            expected = step * sum(range(1, t + 1)) / (10 + t)
            assert whd(more, truth, (step,)) == pytest.approx(expected, abs=1e-4)
            fewer = torch.zeros_like(truth)
            fewer[10 + t :] = True
            distances = [step * k for k in range(t, 10)] + [longest] * (10 + t)
            mean = (sum((x / longest) ** -9.0 for x in distances) / 20) ** (-1 / 9) * longest
            assert whd(fewer, truth, (step,)) == pytest.approx(mean, rel=1e-4)


def test_weighted_hausdorff_at_its_ends() -> None:
    truth = torch.zeros(9, 8, dtype=torch.bool)
    truth[2:5, 3:6] = True
    steps = (2.0, 0.5)
    longest = math.hypot(8 * 2.0, 7 * 0.5)
    assert whd(truth, truth, steps) < 1e-4
    assert whd(truth & False, truth, steps) == pytest.approx(longest, rel=1e-4)
    for absent in (truth & False, truth | True):  # no contour, no points
        assert whd(truth, absent, steps) == 0


def test_weighted_hausdorff_grows_with_distance_and_shift() -> None:
    truth = torch.zeros(5, 30, dtype=torch.bool)
    truth[1:4, 2:6] = True
    found = []
    for column in (8, 14, 20, 26):
        predicted = truth.clone()
        predicted[2, column] = True
        found.append(whd(predicted, truth, (1.0, 1.0)))
    assert found == pytest.approx([3 / 13, 9 / 13, 15 / 13, 21 / 13], abs=1e-4)
    shifted = [whd(truth.roll(t, 1), truth, (1.0, 1.0)) for t in range(6)]
    assert shifted == sorted(shifted)
    assert shifted[5] > shifted[1] + 1


@pytest.mark.parametrize("exponent", [-1.0, -9.0, -30.0])
def test_powers_of_ratios_are_those_of_the_formula(exponent: float) -> None:
    """In float32 numbers near 0 to the power of -9 are out of range; ratios to the least one are not."""
    generator = torch.Generator().manual_seed(0)
    counted = torch.ones(5, 6, dtype=torch.bool)
    counted[0, :3] = False
    p = torch.rand(5, 6, generator=generator, dtype=torch.float64) * counted
    index, steps = torch.tensor([[2, 2], [0, 5]]), torch.tensor([2.0, 0.5]).double()
    y, x = np.mgrid[:5, :6] * np.array([2.0, 0.5]).reshape(2, 1, 1)
    longest = math.hypot(8.0, 2.5)
    expected = []
    for a, b in index.tolist():
        away = np.hypot(y - 2.0 * a, x - 0.5 * b)
        cost = (p.numpy() * away + (1 - p.numpy()) * longest) / longest + 1e-6
        expected.append(longest * np.mean(cost[counted.numpy()] ** exponent) ** (1 / exponent))
    assert generalized_mean_distance(p, index, steps, counted, exponent).item() == pytest.approx(np.mean(expected))
    sure = torch.zeros(5, 6)
    sure[2, 2] = 1
    low = generalized_mean_distance(sure.requires_grad_(), index[:1], steps.float(), counted, -100.0)
    assert low.item() < 1e-3
    assert torch.autograd.grad(low, sure)[0].isfinite().all()


def test_chunks_change_nothing_and_nothing_is_kept_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = blobs(shape=(10, 12, 9), batch=1)
    loss = monai_segloss.create("weighted_hausdorff", **READING)
    found = []
    for chunk in (2**24, 4000, 1):
        monkeypatch.setitem(points_module.CHUNK, "cpu", chunk)
        leaf = logits.clone().requires_grad_()
        kept: dict[int, int] = {}

        def keep(x: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            value = loss(leaf, labels, spacing=(3.0, 1.0, 0.5))
        (slope,) = torch.autograd.grad(value, leaf)
        found.append((value.detach(), slope))
        assert sum(kept.values()) < 30 * logits[0, 0].numel(), "a table has more than 200 times as many"
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_some_of_many_points_stand_for_all() -> None:
    truth = torch.zeros(40, 40, dtype=torch.bool)
    truth[10:30, 8:33] = True
    predicted = truth.roll(3, 0)
    every = whd(predicted, truth, (1.0, 1.0))
    assert whd(predicted, truth, (1.0, 1.0), max_points=86) == every, "that is how many there are"
    some = whd(predicted, truth, (1.0, 1.0), max_points=30)
    assert some != every
    assert some == pytest.approx(every, rel=0.3)
    for wrong in (0, 2.5):
        with pytest.raises(ValueError, match="max_points must be a whole number"):
            monai_segloss.create("weighted_hausdorff", max_points=wrong)
    for outside in (0.0, 1.0, -101.0):
        with pytest.raises(ValueError, match="exponent"):
            monai_segloss.create("weighted_hausdorff", exponent=outside)


def test_centers_locate_objects() -> None:
    """Best where all mass lies on the centers, which a whole segmentation is not."""
    truth = torch.zeros(11, 15, dtype=torch.bool)
    truth[2:5, 2:5], truth[6:9, 9:14] = True, True
    centers = torch.zeros_like(truth)
    centers[3, 3], centers[7, 11] = True, True
    steps = (1.0, 2.0)
    assert torch.equal(points_module.centers(truth[None, None])[0, 0], centers)
    best = whd(centers, truth, steps, points="centers")
    assert best < 1e-4
    assert whd(truth, truth, steps, points="centers") > 0.5
    one = centers.clone()
    one[3, 3] = False
    assert whd(one, truth, steps, points="centers") > 5
    sent = torch.stack((0 * centers, centers)).float()[None]
    loss = monai_segloss.create("weighted_hausdorff", **READING)
    for given in (sent, sent[:, 1:], sent.bool(), sent.to(torch.uint8)):
        found = loss(hard(one), truth.long()[None, None], spacing=steps, points=given)
        assert found.item() == pytest.approx(whd(one, truth, steps, points="centers"))
    with pytest.raises(ValueError, match="points has shape"):
        loss(hard(one), truth.long()[None, None], spacing=steps, points=sent[:, :, 1:])
    three = torch.zeros(1, 3, 11, 15)
    with pytest.raises(ValueError, match=r"points has shape \(1, 1, 11, 15\)"):
        loss(three, truth.long()[None, None], spacing=steps, points=sent[:, :1])


def test_an_ignored_hole_is_no_contour() -> None:
    truth = torch.zeros(1, 1, 24, dtype=torch.int64)
    truth[..., 8:] = 1
    hole = truth.clone()
    hole[..., 18:21] = 255
    mask = torch.zeros(24, dtype=torch.bool)
    mask[5:] = True
    loss = monai_segloss.create("weighted_hausdorff", ignore_index=255, **READING)
    found = loss(hard(mask), hole, spacing=(1.0,)).item()
    assert found == pytest.approx((1 + 2 + 3) / (19 - 3), rel=1e-4)
