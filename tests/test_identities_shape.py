"""Losses of size and shape: closed forms, and faults of other code that ours do not have."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from boundary_shapes import READING, box, hard, label, of_masks
from torch import Tensor

import monai_segloss
from monai_segloss.losses.shape.barriers import barrier
from monai_segloss.losses.shape.moments import moments

SHARE = {"unit": "share"}
SIZES = ("size_penalty", "log_barrier")


def flat(a: float, shape: tuple[int, ...] = (6, 8)) -> Tensor:
    """One channel of the probability a."""
    return torch.full((1, 1, *shape), a, dtype=torch.float64)


def gradient(loss: Any, p: Tensor, y: Tensor, **call: Any) -> Tensor:
    leaf = p.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, y, **call).sum(), leaf)[0]


def of_map(key: str, p: Tensor, y: Tensor | None = None, spacing: Any = None, **arguments: Any) -> float:
    """A map (*S) of one channel."""
    loss = monai_segloss.create(key, **arguments)
    return loss(p.double()[None, None], (torch.zeros_like(p) if y is None else y)[None, None], spacing=spacing).item()


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "value"), [(0.1, 0.01), (0.2, 0), (0.3, 0), (0.5, 0.04)])
def test_the_penalty_of_a_flat_map(a: float, value: float) -> None:
    loss = monai_segloss.SizePenaltyLoss(bounds=[0.2, 0.3], **SHARE)
    assert loss(flat(a), 0 * flat(a)).item() == pytest.approx(value)
    if not value:
        assert gradient(loss, flat(a) + 1e-9 * (a == 0.2) - 1e-9 * (a == 0.3), 0 * flat(a)).abs().sum() == 0


@pytest.mark.parametrize("key", SIZES)
def test_sizes_do_not_depend_on_places(key: str) -> None:
    p, order = torch.rand(1, 1, 48, dtype=torch.float64), torch.randperm(48)
    loss = monai_segloss.create(key, bounds=[0.1, 0.3], **SHARE)
    torch.testing.assert_close(loss(p, 0 * p), loss(p[..., order], 0 * p))


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("copies", [2, 5])
def test_sizes_are_means_and_no_sums_of_voxels(key: str, copies: int) -> None:
    """Code of the authors sums in one place and averages in another, so that its weights belong to one size of image."""
    p = torch.rand(1, 1, 6, 8, dtype=torch.float64)
    loss = monai_segloss.create(key, bounds=[0.1, 0.2], **SHARE)
    tiled = p.repeat(1, 1, copies, 1)
    torch.testing.assert_close(loss(p, 0 * p), loss(tiled, 0 * tiled))
    torch.testing.assert_close(copies * gradient(loss, tiled, 0 * tiled)[:, :, :6], gradient(loss, p, 0 * p))


@pytest.mark.parametrize("key", SIZES)
def test_bounds_in_mm_are_those_of_the_object(key: str) -> None:
    """12 voxels of 3 x 2 mm are 72 mm^2, in whatever image."""
    mask = box((6, 8), (1, 4), (2, 6)).double()
    for shape in ((6, 8), (9, 20)):
        p = torch.zeros(shape, dtype=torch.float64)
        p[:6, :8] = mask
        voxels = p.numel()
        found = of_map(key, p, spacing=(3.0, 2.0), bounds=[36.0, 60.0])
        assert found == pytest.approx(of_map(key, p, bounds=[6 / voxels, 10 / voxels], **SHARE))
    with pytest.warns(UserWarning, match="no voxel spacing came"):
        of_map(key, p, bounds=[36.0, 60.0])


@pytest.mark.parametrize("key", SIZES)
def test_ignored_voxels_are_in_no_size(key: str) -> None:
    p, mask = torch.rand(1, 1, 6, 8, dtype=torch.float64), torch.ones(1, 6, 8, dtype=torch.bool)
    mask[:, 3:] = False
    loss = monai_segloss.create(key, bounds=[0.1, 0.2], **SHARE)
    torch.testing.assert_close(loss(p, 0 * p, mask=mask), loss(p[:, :, :3], 0 * p[:, :, :3]))


@pytest.mark.parametrize("key", SIZES)
def test_bounds_of_all_classes_of_each_class_and_of_each_sample(key: str) -> None:
    z, y = torch.randn(2, 3, 6, 8, dtype=torch.float64), torch.zeros(2, 1, 6, 8, dtype=torch.long)
    create = monai_segloss.create
    one = create(key, bounds=[0.1, 0.2], **READING, **SHARE)(z, y)
    torch.testing.assert_close(create(key, bounds=[[0.1, 0.2]] * 2, **READING, **SHARE)(z, y), one)
    each = torch.tensor([[[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.9], [0.0, 0.1]]], dtype=torch.float64)
    sent = create(key, **READING, **SHARE, reduction="none")(z, y, bounds=each)
    for b in range(2):
        alone = create(key, bounds=each[b].tolist(), **READING, **SHARE, reduction="none")
        torch.testing.assert_close(sent[b : b + 1], alone(z[b : b + 1], y[b : b + 1]))
    with pytest.raises(
        ValueError, match=r"bounds has shape \(3, 2\); with 2 scored classes expected \(2,\) or \(2, 2\)"
    ):
        create(key, bounds=[[0.1, 0.2]] * 3, **READING, **SHARE)(z, y)
    assert create(key, bounds=[0.1, 0.2]).whole_cases
    assert not create(key, bounds=[0.1, 0.2], on_patches=True).whole_cases
    assert not create(key).whole_cases


@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_without_bounds_volumes_are_compared(margin: float) -> None:
    """12 voxels instead of 24, in 48; and nothing within the margin."""
    few, many = box((6, 8), (1, 4), (2, 6)), box((6, 8), (1, 4), (0, 8))
    expected = (24 * (1 - margin) - 12) / 48
    assert of_masks("size_penalty", few, many, margin=margin) == pytest.approx(max(expected, 0) ** 2)
    elsewhere = box((6, 8), (0, 3), (0, 4))
    assert of_masks("size_penalty", few, elsewhere) == 0


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ([0.3, 0.2], ValueError, "no larger than its upper one"),
        ([0.1, 0.2, 0.3], ValueError, r"must be \[lower, upper\]"),
        ([0.1, "much"], TypeError, "bounds must be"),
        ([0.1, math.nan], ValueError, "bounds must be"),
        ({"lower": 1}, TypeError, "bounds must be"),
        ("no/such/file.json", ValueError, "there is no file 'no/such/file.json'"),
    ],
)
@pytest.mark.parametrize("key", [*SIZES, "moment_constraint"])
def test_wrong_bounds_are_named(key: str, bounds: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        monai_segloss.create(key, bounds=bounds)


# -- the barrier ------------------------------------------------------------------------------------------------------


def psi(z: float, t: float) -> tuple[float, float]:
    """Value and slope."""
    leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    value = barrier(leaf, torch.tensor(t, dtype=torch.float64))
    return value.item(), torch.autograd.grad(value, leaf)[0].item()


@pytest.mark.parametrize("t", [1.0, 5.0, 50.0])
def test_the_branches_of_the_barrier_join(t: float) -> None:
    joint = -1 / t**2
    for z in (joint, joint + 1e-12, joint - 1e-12):
        assert psi(z, t) == pytest.approx((2 * math.log(t) / t, t), rel=1e-6, abs=1e-9)
    assert psi(-1.0, t)[0] == pytest.approx(0, abs=1e-12)


def test_the_barrier_becomes_a_wall() -> None:
    assert psi(-0.3, 1e6)[0] == pytest.approx(0, abs=1e-5)
    assert psi(0.3, 1e6)[0] > 1e5


def test_a_barrier_is_finite_where_a_constraint_is_met_exactly() -> None:
    """z = 0: code of the authors gives NaN, since infinity times False is."""
    for t in (1.0, 5.0):
        assert psi(0.0, t) == pytest.approx(((2 * math.log(t) + 1) / t, t))
    nothing = flat(0.0)
    loss = monai_segloss.LogBarrierLoss(bounds=[0.0, 0.0], **SHARE)
    assert loss(nothing, nothing).isfinite()
    assert gradient(loss, nothing, nothing).isfinite().all()


def test_the_middle_of_the_bounds_is_best() -> None:
    loss = monai_segloss.LogBarrierLoss(bounds=[0.2, 0.4], **SHARE)
    values = [loss(flat(a), flat(0)).item() for a in (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)]
    assert min(values) == values[3]
    assert values[1] == pytest.approx(values[5])
    assert gradient(loss, flat(0.3), flat(0)).abs().max() < 1e-12


def test_bounds_whose_slopes_cancel_are_refused() -> None:
    """Both branches linear: between the bounds and around them there is no gradient."""
    for arguments in ({"bounds": [0.38, 0.4]}, {"bounds": [[0.1, 0.3], [0.38, 0.4]]}, {"margin": 0.03}, {"t": 1.0}):
        name = "bounds" if "bounds" in arguments else "margin"
        with pytest.raises(ValueError, match=rf"t is \d in the first epoch, .* {name} .* cancel"):
            monai_segloss.LogBarrierLoss(**SHARE, **arguments)
    for bounds in ([0.38, 0.4], [None, 1e-4], [0.0, 1e-4], [0.3, None]):
        monai_segloss.LogBarrierLoss(bounds=bounds, t=20.0, **SHARE)


def test_one_sided_bounds() -> None:
    only_upper, zero = (monai_segloss.LogBarrierLoss(bounds=b, **SHARE) for b in ([None, 0.3], [0.0, 0.3]))
    p = flat(0.2)
    assert only_upper(p, p).item() == zero(p, p).item() == pytest.approx(-math.log(1 / 3) / 5)
    only_lower = monai_segloss.LogBarrierLoss(bounds=[0.1, None], **SHARE)
    assert only_lower(p, p).item() == pytest.approx(-math.log(0.1) / 5)
    assert monai_segloss.SizePenaltyLoss(bounds=[0.1, None], **SHARE)(p, p).item() == 0


def test_the_steepness_follows_the_epoch_also_in_a_sum() -> None:
    """Of the epoch and not of the calls, which validation and scales make too."""
    p = flat(0.2)
    loss = monai_segloss.LogBarrierLoss(bounds=[None, 0.1], **SHARE)
    sum_of = monai_segloss.WeightedSum({"log_barrier": {"weight": 1, "bounds": [None, 0.1], **SHARE}})
    for epoch, t in ((0, 5.0), (1, 5.5), (10, 5 * 1.1**10), (500, 1000.0)):
        for each in (loss, sum_of):
            each.set_epoch(epoch)
            each(p, p)
            assert each(p, p).item() == pytest.approx(t * 1 + (2 * math.log(t) + 1) / t)


# -- moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "edges"), [((9, 12), ((2, 5), (3, 9))), ((5, 6, 9), ((1, 4), (0, 6), (4, 5)))])
def test_the_moments_of_a_box(shape: tuple[int, ...], edges: tuple[tuple[int, int], ...]) -> None:
    """Its center, and (n^2 - 1) / 12 voxels as the variance of n; a translation moves the centroid only."""
    mean, spread = moments(box(shape, *edges).double()[None, None])
    for axis, (n, (low, high)) in enumerate(zip(shape, edges, strict=True)):
        assert mean[0, 0, axis].item() == pytest.approx(((low + high) / 2 - n / 2) / n, abs=1e-6)
        assert spread[0, 0, axis].item() == pytest.approx(
            math.sqrt(((high - low) ** 2 - 1) / 12 / n**2 + 1e-8), rel=1e-5
        )
    moved = moments(box(shape, (edges[0][0] + 1, edges[0][1] + 1), *edges[1:]).double()[None, None])
    torch.testing.assert_close(moved[0][0, 0] - mean[0, 0], torch.eye(len(shape))[0].double() / shape[0])
    torch.testing.assert_close(moved[1], spread)


def test_the_penalty_of_a_displaced_box() -> None:
    """Three voxels of ten, less a tenth of the spread of its label."""
    one, other = box((10, 10), (1, 4), (2, 6)), box((10, 10), (4, 7), (2, 6))
    spread = math.sqrt((9 - 1) / 12) / 10
    found = of_masks("moment_constraint", one, other)
    assert found == pytest.approx((0.3 - 0.1 * spread) ** 2, rel=1e-4)
    assert of_masks("moment_constraint", one, other, order=2) == pytest.approx(0, abs=1e-9)
    wide = box((10, 10), (1, 4), (0, 8))
    expected = math.sqrt((64 - 1) / 12) / 10 - 1.1 * math.sqrt((16 - 1) / 12) / 10
    assert of_masks("moment_constraint", wide, one, order=2) == pytest.approx(expected**2, rel=1e-3)


def test_bounds_of_moments_in_mm_per_axis_and_class() -> None:
    p = box((10, 10), (1, 4), (2, 6)).double()  # centered at -2.5 and -1 voxels
    two = {"bounds": [[-1.0, 1.0], [None, 2.0]], "spacing": (2.0, 1.0)}
    assert of_map("moment_constraint", p, **two) == pytest.approx((4 / 20) ** 2, rel=1e-4)
    assert of_map("moment_constraint", p, bounds=[-1.0, 1.0], spacing=(2.0, 1.0)) == pytest.approx(
        (4 / 20) ** 2, rel=1e-4
    )
    for order, mirrored in ((1, False), (2, True)):
        loss = monai_segloss.MomentConstraintLoss(bounds=[0, 1], order=order)
        assert (loss.whole_cases, loss.mirrored) == (True, mirrored)
    with pytest.raises(ValueError, match="order must be 1"):
        monai_segloss.MomentConstraintLoss(order=3)


def test_a_map_of_one_voxel_has_a_slope() -> None:
    """The root of a variance of 0 has none."""
    p = box((7, 7), (3, 4), (3, 4)).double()[None, None]
    loss = monai_segloss.MomentConstraintLoss(order=2, bounds=[0.1, 0.2], **SHARE)
    assert gradient(loss, p, p).isfinite().all()
    assert gradient(loss, 0 * p, p).isfinite().all()


# -- compactness and perimeter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axes", "value"), [(2, 4 / math.pi), (3, 6 / math.pi)])
@pytest.mark.parametrize("side", [4, 6])
def test_the_compactness_of_a_cube(axes: int, side: int, value: float) -> None:
    """In whatever size, place and unit."""
    cube = box((12,) * axes, *((3, 3 + side),) * axes)
    assert of_map("compactness", cube, isotropic=False) == pytest.approx(value)
    assert of_map("compactness", cube, isotropic=False, spacing=(2.5,) * axes) == pytest.approx(value)
    assert of_map("compactness", cube, isotropic=False, upper=1.0) == pytest.approx(value - 1)
    assert of_map("compactness", cube, isotropic=False, upper=2.0) == 0


def test_a_slab_is_less_compact_in_mm() -> None:
    cube = box((12, 12), (4, 8), (4, 8))  # of 4 x 8 mm: 24^2 / (4 pi 32)
    assert of_map("compactness", cube, isotropic=False, spacing=(1.0, 2.0)) == pytest.approx(24**2 / (4 * math.pi * 32))


@pytest.mark.parametrize("side", [3, 5])
def test_the_perimeter_of_a_square(side: int) -> None:
    """4 s - 2 + sqrt 2: one corner has both differences in one voxel."""
    square = box((9, 9), (2, 2 + side), (2, 2 + side))
    exact = 4 * side - 2 + math.sqrt(2)
    assert of_map("perimeter", square) == pytest.approx(exact**2 / 81, rel=1e-3)
    assert of_map("perimeter", square, isotropic=False) == pytest.approx((4 * side) ** 2 / 81)


def test_a_flat_map_has_no_perimeter() -> None:
    """sqrt(eps) in each of 64^3 voxels would be a surface of 26."""
    p = torch.full((64, 64, 64), 0.4)
    assert of_map("perimeter", p, eps=1e-2) == 0
    assert of_map("compactness", p, eps=1e-2) == 0


def test_equal_perimeters_cost_nothing_wherever_they_are() -> None:
    one, other = box((12, 12), (1, 4), (1, 4)), box((12, 12), (7, 10), (6, 9))
    assert of_map("perimeter", one, other) == pytest.approx(0, abs=1e-12)
    assert of_map("perimeter", one, other, spacing=(3.0, 1.0)) == pytest.approx(0, abs=1e-12)
    assert of_map("perimeter", one | other, other) > 0


def test_a_tiny_class_is_not_made_smaller() -> None:
    """Of half a voxel the quotient is large, and its slope would take the rest away."""
    p = box((8, 8), (3, 4), (3, 4)).double()[None, None] * 0.5
    loss = monai_segloss.CompactnessLoss()
    assert loss(p, 0 * p).item() == 0
    assert gradient(loss, p, 0 * p).abs().sum() == 0
    assert monai_segloss.CompactnessLoss(min_size=0.1)(p, 0 * p).item() > 0


# -- stars, convexity, symmetry -----------------------------------------------------------------------------------------


def disc(edge: int, radius: float) -> Tensor:
    place = torch.arange(edge) - (edge - 1) / 2
    return place[:, None] ** 2 + place**2 <= radius**2


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0)])
def test_a_disc_is_a_star_and_one_with_a_hole_is_none(spacing: tuple[float, ...]) -> None:
    whole = disc(13, 5)
    holed = whole & ~box((13, 13), (6, 8), (8, 10))
    for hinge in (False, True):
        assert of_masks("star_shape", whole, whole, spacing, hinge=hinge) == pytest.approx(0, abs=1e-12)
        assert of_masks("star_shape", holed, whole, spacing, hinge=hinge) > 1e-3
    assert of_masks("star_shape", whole, ~whole & False, spacing) == 0, "no class, no center"


def test_differences_of_a_ray_do_not_cancel() -> None:
    """p = 1, 1/2, 0 towards the center, where published code has (1 - 1/2) + (1 - 0) - ... with signs."""
    y = torch.ones(1, 1, 5)
    p = torch.tensor([[[0.5, 1.0, 1.0, 0.0, 0.5]]])
    # voxel 0: |1/2| (|1/2 - 1| + |1/2 - 1|); voxel 3: 1 (|0 - 1|); voxel 4: 1/2 (|1/2 - 0| + |1/2 - 1|)
    assert monai_segloss.StarShapeLoss()(p, y).item() == pytest.approx((0.5 + 1.0 + 0.5) / 5)
    assert monai_segloss.StarShapeLoss(hinge=True)(p, y).item() == pytest.approx(0.5 / 5)
    assert monai_segloss.StarShapeLoss(steps=1)(p, y).item() == pytest.approx((0.25 + 1.0 + 0.25) / 5)


def test_a_class_around_its_centroid_is_no_star() -> None:
    ring = disc(13, 5) & ~disc(13, 3)
    assert of_masks("star_shape", disc(13, 5), ring) == 0


def test_what_is_convex_and_what_is_not() -> None:
    create = monai_segloss.ConvexityLoss
    for mask in (disc(13, 5), disc(13, 9), box((13, 13), (2, 9), (1, 5)), box((6, 7, 8), (1, 4), (2, 7), (0, 8))):
        p = mask.double()[None, None]
        assert create()(p, 0 * p).item() == 0, "also where the image cuts it"
        assert create()(0.7 * p + 0.1, 0 * p).item() == 0
    cup = (box((13, 13), (2, 11), (2, 11)) & ~box((13, 13), (2, 9), (4, 9))).double()[None, None]  # a gap of five
    bars = (box((13, 13), (0, 13), (2, 11)) & ~box((13, 13), (0, 13), (4, 9))).double()[None, None]
    assert create(offsets=[1, 2])(bars, bars).item() == 0, "a line of radius 3 spans the gap"
    assert create(offsets=[4])(bars, bars).item() > 0
    assert create()(cup, cup).item() > 0
    turned = cup.rot90(1, (2, 3))
    assert create()(cup, cup).item() == pytest.approx(create()(turned, turned).item())
    assert create(offsets=[40])(cup, cup).item() == 0, "no line fits into the image"


def test_the_lines_of_a_hole() -> None:
    """A hole of one voxel is the middle of four lines of radius 1, of 4 * 25 - ... that fit into five by five."""
    p = torch.ones(1, 1, 5, 5, dtype=torch.float64)
    p[..., 2, 2] = 0
    lines = 2 * 5 * 3 + 2 * 3 * 3
    assert monai_segloss.ConvexityLoss(offsets=[1])(p, p).item() == pytest.approx(4 / lines)


def test_symmetry_of_pairs() -> None:
    z = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    twin = z.flip(3)[:, [0, 2, 1]]
    loss = monai_segloss.SymmetryLoss(softmax=True, to_onehot_y=True, swap=[[1, 2]])
    y = torch.zeros(2, 1, 5, 6, dtype=torch.long)
    assert loss((z + twin) / 2, y).item() == pytest.approx(0, abs=1e-12)
    assert loss(z, y).item() == pytest.approx(loss(twin, y).item())
    plain = monai_segloss.SymmetryLoss(softmax=True, to_onehot_y=True)
    assert plain((z + twin) / 2, y).item() > 0.01
    left = box((4, 8), (0, 4), (1, 3))
    assert of_masks("symmetry", left, left) == pytest.approx(16 / 32)
    assert of_masks("symmetry", left | left.flip(1), left) == pytest.approx(0, abs=1e-12)
    assert of_masks("symmetry", left, left, axis=0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"swap": [[1, 1]]}, "swap must hold pairs"),
        ({"swap": [[1, 2], [2, 0]]}, "swap must hold pairs"),
        ({"swap": [1, 2]}, "swap must hold pairs"),
        ({"swap": [[0, 1]]}, r"swap is \[0, 1\]; scored are the channels 1 to 1"),
        ({"swap": [[1, 5]]}, r"swap is \[1, 5\]; scored are the channels 1 to 1"),
        ({"axis": 3}, "axis must be a spatial axis"),
        ({"axis": 2}, "axis is 2, but input has 2 spatial axes"),
    ],
)
def test_wrong_pairs_and_axes_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_masks("symmetry", box((4, 4), (0, 2), (0, 2)), box((4, 4), (0, 2), (0, 2)), **arguments)


@pytest.mark.parametrize("offsets", [[], [0], [1.5], 3])
def test_wrong_radii_are_named(offsets: Any) -> None:
    with pytest.raises(ValueError, match="offsets must hold whole numbers"):
        monai_segloss.ConvexityLoss(offsets=offsets)


# -- shares of classes --------------------------------------------------------------------------------------------------


def test_shares_of_classes() -> None:
    y = label(box((4, 8), (0, 4), (0, 2)))
    z = torch.zeros(1, 2, 4, 8, dtype=torch.float64)
    assert monai_segloss.RegionSizeLoss(**READING)(z, y).item() == pytest.approx(0.25)
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert monai_segloss.RegionSizeLoss(**READING, measure="kl")(z, y).item() == pytest.approx(kl)
    moved = hard(box((4, 8), (0, 4), (5, 7)))
    for measure in ("l1", "kl"):
        loss = monai_segloss.RegionSizeLoss(**READING, measure=measure)
        assert loss(moved, y).item() == pytest.approx(0, abs=1e-9), "a share has no place"
    with pytest.raises(ValueError, match="include_background=False: measure='kl'"):
        monai_segloss.RegionSizeLoss(**READING, measure="kl", include_background=False)(z, y)


def test_a_class_that_the_prediction_lacks_has_a_gradient() -> None:
    """Its share is 0 in float32, whose logarithm is none."""
    z = torch.stack((torch.full((4, 8), 200.0), torch.zeros(4, 8)))[None]
    loss = monai_segloss.RegionSizeLoss(**READING, measure="kl")
    y = label(box((4, 8), (0, 4), (0, 2)))
    assert loss(z, y).item() == pytest.approx(0.25 * 200 + 0.25 * math.log(0.25) + 0.75 * math.log(0.75), rel=1e-4)
    assert gradient(loss, z, y)[:, 1].max() < 0
