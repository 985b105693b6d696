"""Energies of a prediction: closed forms, limits, and faults of other code that ours do not have."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from boundary_shapes import READING, box, half_space, hard, label
from boundary_shapes import of_masks as of
from references import REFERENCES

import monai_segloss
from monai_segloss.testing import cases
from monai_segloss.testing.harness import make, value


@pytest.mark.parametrize("spacing", [None, (2.0, 0.5)])
@pytest.mark.parametrize("axis", [0, 1])
def test_length_of_a_half_space(axis: int, spacing: tuple[float, ...] | None) -> None:
    """T6: one step in a row of W - 1 differences, per unit of the spacing."""
    shape = (7, 9)
    mask = half_space(shape, axis, 3)
    found = of("active_contour", mask, mask, spacing, w_region=0.0)
    w, s = shape[axis], 1.0 if spacing is None else spacing[axis]
    assert found == pytest.approx((math.sqrt(1 / s**2 + 1e-8) + (w - 2) * 1e-4) / (w - 1))


def test_differences_of_one_voxel_belong_together() -> None:
    """One voxel has both neighbors ahead outside: sqrt(2). Differences of two voxels, as in the authors' code, give 2."""
    corner = torch.ones(8, 8).bool()
    corner[-1, :], corner[:, -1] = False, False
    corner[:6, -1], corner[-1, :6] = True, True  # one voxel whose two neighbors ahead are outside
    found = of("active_contour", corner, corner, w_region=0.0) * 49 - 49e-4
    assert found == pytest.approx(math.sqrt(2), abs=3e-4)


def test_region_is_what_is_misplaced() -> None:
    """Without length the mean of p off the target and of 1 - p on it; zero for a perfect prediction."""
    truth, predicted = box((9, 9), (2, 7), (2, 7)), box((9, 9), (3, 8), (2, 7))
    assert of("active_contour", truth, truth, w_length=0.0) == pytest.approx(0, abs=1e-12)
    assert of("active_contour", predicted, truth, w_length=0.0) == pytest.approx(10 / 81)
    assert of("active_contour", predicted, truth, w_length=0.0, mu=3.0) == pytest.approx(20 / 81)


def test_a_flat_prediction_has_a_finite_slope() -> None:
    for key in ("active_contour", "mumford_shah"):
        z = torch.zeros(1, 2, 5, 5, requires_grad=True)
        loss = monai_segloss.create(key, **READING)(z, label(box((5, 5), (1, 3), (1, 3))))
        assert torch.autograd.grad(loss, z)[0].isfinite().all()


@pytest.mark.parametrize("m", [1, 3, 5])
@pytest.mark.parametrize("periodic", [True, False])
def test_energy_of_one_cosine(m: int, periodic: bool) -> None:
    """T6: |m| A^2 / 2, with spacing per unit of length; beyond the edges the difference may also be 0."""
    n, amplitude, spacing = 16, 0.4, 2.5
    wave = amplitude * torch.cos(2 * math.pi * m * torch.arange(n, dtype=torch.float64) / n)
    p = (0.5 + wave).expand(1, 1, 6, n)
    half = torch.full_like(p, 0.5)
    loss = monai_segloss.create("elastic_interaction", periodic=periodic)
    found = loss(p, half).item()
    if not periodic:
        padded = np.abs(np.fft.fft2(np.asarray(p - half)[0, 0], (12, 2 * n))) ** 2 / (6 * n * 4 * 6 * n)
        k = np.hypot(np.fft.fftfreq(12, 1 / 6)[:, None], np.fft.fftfreq(2 * n, 1 / n))
        assert found == pytest.approx((k * padded).sum())
        return
    assert found == pytest.approx(m * amplitude**2 / 2)
    assert loss(p, half, spacing=(1.0, spacing)).item() == pytest.approx(m / (n * spacing) * amplitude**2 / 2)


def test_energy_does_not_depend_on_the_size_of_the_image_in_physical_units() -> None:
    truth, predicted = box((32, 32), (12, 20), (12, 20)), box((32, 32), (12, 20), (14, 22))
    wide = (torch.nn.functional.pad(x, (48, 48, 48, 48)) for x in (predicted, truth))
    small, large = (
        of("elastic_interaction", *pair, (0.7, 0.7), periodic=False) * pair[0].numel()
        for pair in ((predicted, truth), tuple(wide))
    )
    assert small == pytest.approx(large, rel=0.01)


def test_the_minimum_of_the_energy_is_the_target() -> None:
    """(1 - a)^2 of the target's energy there, (1 + a)^2 at its complement; the authors' sign has it the other way round."""
    truth = box((16, 16), (4, 12), (3, 9))
    alone = of("elastic_interaction", ~truth & truth, truth)
    for a in (0.35, 1.0):
        assert of("elastic_interaction", truth, truth, alpha=a) == pytest.approx((1 - a) ** 2 * alone, abs=1e-9)
        assert of("elastic_interaction", ~truth, truth, alpha=a) == pytest.approx((1 + a) ** 2 * alone)


def test_energy_grows_with_the_distance_of_a_thin_error() -> None:
    truth = box((48, 48), (20, 28), (20, 28))
    values = [of("elastic_interaction", truth.roll(k, 1), truth, periodic=False) for k in (0, 1, 2, 4, 8)]
    assert all(a < b for a, b in pairwise(values))


def test_mumford_shah_of_an_image() -> None:
    """An image of several channels, its offset without influence on the digits, and NaN where ignored."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    image = torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64)
    truth = torch.zeros(2, 1, 6, 7).long()
    mask = torch.rand(2, 1, 6, 7, generator=generator) < 0.8
    loss = monai_segloss.create("mumford_shah", **READING)
    spoilt = torch.where(mask, image, torch.nan)
    found = loss(z, truth, image=spoilt, mask=mask, spacing=(2.0, 0.5))
    expected = REFERENCES["mumford_shah"](
        z.detach().numpy(), truth.numpy(), "softmax", mask.numpy(), labels=True, image=image.numpy(), spacing=(2.0, 0.5)
    )
    assert found.item() == pytest.approx(float(expected), rel=1e-9)
    assert torch.autograd.grad(found, z)[0].isfinite().all()
    wide, low = loss(z, truth, image=image + 1000), loss(z.float(), truth, image=image.float() + 1000)
    assert low.item() == pytest.approx(wide.item(), rel=1e-4)
    torch.testing.assert_close(loss(z, {"label": truth, "image": image[:, 0]}), loss(z, truth, image=image[:, :1]))
    with pytest.raises(ValueError, match=r"image has shape \(2, 4, 6, 6\); expected \(2, channels, 6, 7\)"):
        loss(z, truth, image=image[..., :6])


def test_mumford_shah_does_not_know_the_names_of_classes() -> None:
    truth = box((9, 9), (2, 7), (2, 7))
    values = [of("mumford_shah", x, truth) for x in (truth, ~truth)]
    assert values[0] == pytest.approx(values[1])
    # classes of mass 0 are no NaN
    z = torch.full((1, 3, 4, 4), -1e4)
    z[:, 0] = 0
    assert monai_segloss.create("mumford_shah", **READING)(z, torch.zeros(1, 1, 4, 4)).item() == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("key", ["active_contour", "elastic_interaction"])
def test_two_classes_need_no_background(key: str) -> None:
    """T9: the background says the same again."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 2, 6, 7, generator=generator, dtype=torch.float64)
    truth = torch.randint(0, 2, (2, 1, 6, 7), generator=generator)
    both = [monai_segloss.create(key, **READING, include_background=b)(z, truth) for b in (True, False)]
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("key", ["active_contour", "elastic_interaction", "mumford_shah"])
def test_an_ignored_region_makes_no_contour(key: str) -> None:
    """Predictions that differ only next to an ignored region that cuts an object: nothing is paid for the cut."""
    truth = label(half_space((10, 10), 1, 10))
    truth[..., 5:] = 255
    sure = hard(torch.ones(10, 10))
    loss = monai_segloss.create(key, **READING, ignore_index=255)
    assert loss(sure, truth).item() == pytest.approx(1e-4 if key == "active_contour" else 0, abs=1e-6)


def test_without_more_weight_cross_entropy_is_left() -> None:
    case = cases.get("five_classes")
    expected = value(make(monai_segloss.find("cross_entropy"), case), case)
    for key, more in (("contour_aware", {"k": 0.0}), ("layer_smoothness", {"window": 1})):
        torch.testing.assert_close(value(make(monai_segloss.find(key), case, **more), case), expected)
    found = value(make(monai_segloss.find("contour_aware"), case, size=1), case)  # a window of one voxel has no contour
    torch.testing.assert_close(found, expected)


def test_weights_near_a_contour_follow_the_spacing() -> None:
    """The ring is as wide in millimeters along each axis, and the weight 1 far from it; the border is no contour."""
    truth = torch.cat((half_space((30, 30), 0, 15)[None], half_space((30, 30), 1, 15)[None]))[:, None].long()
    loss = monai_segloss.create("contour_aware", **READING, reduction="none")
    z = torch.zeros(2, 2, 30, 30, dtype=torch.float64)
    weights = loss(z, truth, spacing=(1.0, 2.0))[:, 0] / math.log(2)
    rows, columns = weights[0, :, 5], weights[1, 5]
    assert (rows > 1).sum() == 8
    assert (columns > 1).sum() == 4
    assert weights[0, 0].max() == weights[1, :, 0].max() == 1
    torch.testing.assert_close(loss(z, truth)[0, 0].T, loss(z, truth)[1, 0])


def test_an_ignored_region_has_no_ring() -> None:
    truth = label(half_space((12, 12), 1, 6))
    truth[..., 6:] = 255  # ignored up to the contour: a half space without one
    loss = monai_segloss.create("contour_aware", **READING, ignore_index=255)
    assert loss(torch.zeros(1, 2, 12, 12, dtype=torch.float64), truth).item() == pytest.approx(math.log(2))


def test_layers_may_have_a_slope_and_no_steps() -> None:
    """A linear ramp equals its moving average; of windows that reach beyond the image nothing is known."""
    p = torch.linspace(0.2, 0.8, 12, dtype=torch.float64).expand(1, 1, 5, 12)
    g = torch.zeros_like(p)
    ce = monai_segloss.create("cross_entropy")(p, g)
    loss = monai_segloss.create("layer_smoothness", window=5)
    torch.testing.assert_close(loss(p, g), ce)
    torch.testing.assert_close(
        loss(p[..., :3], g[..., :3]), monai_segloss.create("cross_entropy")(p[..., :3], g[..., :3])
    )
    weighted = loss(p, g, weight_map=torch.full((1, 5, 12), 2.0))
    torch.testing.assert_close(weighted, ce)
    flipped = (p > 0.5).double()
    assert monai_segloss.create("layer_smoothness", window=5, lambda_ce=0.0)(flipped, g) > 1


def margins(column: int, width: int = 24) -> torch.Tensor:
    """Logits (1, 2, width) of a boundary before a column, sure but not certain."""
    sign = torch.where(torch.arange(width) < column, 1.0, -1.0).double()
    return torch.stack((sign, -sign))[None]


def test_a_boundary_moves_towards_that_of_the_target() -> None:
    """At the predicted boundary the voxel on the target's side takes over the class of its neighbor."""
    truth = (torch.arange(24) >= 15).long()[None, None]
    loss = monai_segloss.create("active_boundary", **READING)
    for column, voxel, grows in ((8, 8, 0), (20, 19, 1)):
        z = margins(column).requires_grad_()
        (slope,) = torch.autograd.grad(loss(z, truth), z)
        assert slope[0, grows, voxel] < 0 < slope[0, 1 - grows, voxel]
    far, near, there = (loss(margins(column), truth).item() for column in (4, 10, 15))
    assert far > near > there


def test_distances_of_the_active_boundary_are_exact() -> None:
    """Popular code counts whole voxels, less one; here a boundary one voxel off weighs, and by millimeters."""
    truth = (torch.arange(24) >= 15).long()[None, None]
    loss = monai_segloss.create("active_boundary", **READING)
    values = [loss(margins(16), truth, spacing=(step,)).item() for step in (0.5, 1.0, 2.0)]
    assert values[0] > 0
    np.testing.assert_allclose(values, values[1] * np.array([0.5, 1, 2]))
    far = [loss(margins(3), truth, spacing=(step,)).item() for step in (4.0, 8.0)]
    assert far[0] == pytest.approx(far[1])  # all beyond max_dist


@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (4, 5, 6)])
def test_without_a_boundary_the_active_boundary_loss_is_zero(shape: tuple[int, ...]) -> None:
    """None in the target, or none in the prediction: 0 with a gradient of 0, where popular code returns None."""
    some, none = half_space(shape, 0, shape[0] // 2), torch.zeros(shape).bool()
    loss = monai_segloss.create("active_boundary", **READING)
    for predicted, truth in ((some, none), (none, some), (none, none)):
        z = (hard(predicted) / 20).requires_grad_()
        found = loss(z, label(truth))
        assert found == 0
        assert not torch.autograd.grad(found, z)[0].any()


def test_ignored_voxels_are_no_active_boundary() -> None:
    """A region to ignore cuts an object: neither its edge nor its far side attracts the prediction."""
    truth = label(half_space((8, 20), 1, 20))
    truth[..., 12:] = 255
    loss = monai_segloss.create("active_boundary", **READING, ignore_index=255)
    assert loss(margins(6, 20)[:, :, None].expand(1, 2, 8, 20), truth) == 0


def test_active_boundary_reads_no_regions() -> None:
    with pytest.raises(ValueError, match="sigmoid=True: the active boundary loss"):
        monai_segloss.create("active_boundary", sigmoid=True)
    with pytest.raises(ValueError, match="single channel"):
        monai_segloss.create("active_boundary")(torch.rand(1, 1, 6, 6), torch.ones(1, 1, 6, 6))
    for name, bad in (("max_ratio", 0.0), ("label_smoothing", 1.0), ("max_dist", 0.0)):
        with pytest.raises(ValueError, match=name):
            monai_segloss.create("active_boundary", **{name: bad})


def test_refusals() -> None:
    for bad in (3, 0.5):
        with pytest.raises(ValueError, match="axis must be a spatial axis"):
            monai_segloss.create("layer_smoothness", axis=bad)
    with pytest.raises(ValueError, match="axis is 2, but input has 2 spatial axes"):
        monai_segloss.create("layer_smoothness", **READING, axis=2)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    for key, name in (("layer_smoothness", "window"), ("contour_aware", "size")):
        with pytest.raises(ValueError, match=f"{name} must be an odd number"):
            monai_segloss.create(key, **{name: 4})
    with pytest.raises(ValueError, match="sigma must be above 0"):
        monai_segloss.create("contour_aware", sigma=0.0)
    for key in ("active_contour", "mumford_shah"):
        with pytest.raises(ValueError, match="eps must be above 0"):
            monai_segloss.create(key, eps=0.0)
