"""Losses of the neighborhood of a boundary: closed forms, and faults of other code that ours do not have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from boundary_shapes import box, half_space, hard, label
from boundary_shapes import of_masks as of
from references import REFERENCES
from scipy import ndimage

import monai_segloss

CONTOURS = ["boundary_iou", "boundary_f1", "contour_dice"]
WITH_SPACING = [
    "hausdorff_conv", *CONTOURS, "active_contour", "mumford_shah", "elastic_interaction", "contour_aware",
    "active_boundary",
]  # fmt: skip
ZERO_AT_BEST = ["hausdorff_er", "hausdorff_conv", "boundary_dou", *CONTOURS]
BACKGROUND_SAYS_NOTHING = ["hausdorff_er"]


@pytest.mark.parametrize("norm", ["rescale", "none"])
def test_a_block_of_errors_erodes_from_its_edges(norm: str) -> None:
    """T5: one soft erosion leaves 1 inside, less on faces, edges and corners of the block."""
    plane, volume = box((11, 12), (3, 8), (3, 8)), box((11, 12, 10), (3, 8), (3, 8), (2, 7))
    share = {"rescale": 1.0, "none": 0.5}[norm]
    found = of("hausdorff_er", plane, ~plane & plane, erosions=1, norm=norm) * plane.numel()
    assert found == pytest.approx(share * (9 * 1 + 12 * 0.6 + 4 * 0.2))
    found = of("hausdorff_er", volume, ~volume & volume, erosions=1, norm=norm) * volume.numel()
    assert found == pytest.approx(share * (27 * 1 + 54 * 5 / 7 + 36 * 3 / 7 + 8 * 1 / 7))


def test_the_literal_threshold_ends_after_one_erosion() -> None:
    """Read literally, all further erosions are empty; ours sees how thick an error is."""
    thick, none = box((20, 20), (2, 18), (2, 18)), torch.zeros(20, 20)
    one, nine = (of("hausdorff_er", thick, none, erosions=k, norm="none") for k in (1, 9))
    assert nine == one
    one, nine = (of("hausdorff_er", thick, none, erosions=k) for k in (1, 9))
    assert nine > 20 * one


@pytest.mark.parametrize("shape", [(12, 13), (9, 10, 8)])
def test_erosions_of_kornia(shape: tuple[int, ...]) -> None:
    """``norm="minmax"`` with the background is kornia's loss of probabilities, value and gradient."""
    kornia = pytest.importorskip("kornia.losses")
    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.interpolate(torch.rand(2, 3, *(3 for _ in shape), generator=generator), shape).argmax(1)
    p = torch.nn.functional.interpolate(torch.rand(2, 3, *(4 for _ in shape), generator=generator), shape)
    p = (20 * p.double()).softmax(1).requires_grad_()
    theirs = kornia.HausdorffERLoss if len(shape) == 2 else kornia.HausdorffERLoss3D
    expected = theirs(alpha=2.0, k=10).double()(p, truth[:, None])
    loss = monai_segloss.create("hausdorff_er", to_onehot_y=True, norm="minmax", include_background=True)
    found = loss(p, truth[:, None])
    assert found > 0.1
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x, p)[0] for x in (found, expected)))


def test_every_axis_of_a_volume_erodes() -> None:
    """A kernel that forgets an axis gives another value for a slab that is thin along that one."""
    found = [of("hausdorff_er", half_space((14, 14, 14), axis, 5), torch.zeros(14, 14, 14)) for axis in range(3)]
    np.testing.assert_allclose(found, found[0], rtol=1e-12)


def test_errors_do_not_erode_where_voxels_are_ignored() -> None:
    """A slab of errors between ignored voxels stays: only its free side, of which there is none here, would erode."""
    truth = torch.zeros(1, 1, 12, 12).long()
    truth[..., :3], truth[..., 6:] = 255, 255
    truth[:, :, :3], truth[:, :, 6:] = 255, 255
    loss = monai_segloss.create("hausdorff_er", softmax=True, to_onehot_y=True, ignore_index=255, alpha=0.0)
    assert loss(hard(torch.ones(12, 12)), truth).item() == pytest.approx(10)


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.5, 2.0)])
def test_a_false_positive_weighs_by_the_largest_ball_without_target(spacing: tuple[float, ...] | None) -> None:
    """A single voxel at a distance d from the object: the sum of r^2 of the radii below d, in the unit of the spacing."""
    truth = box((9, 40), (0, 9), (0, 2))
    step = 1.0 if spacing is None else spacing[1]
    for column in (6, 12, 30):
        predicted = truth.clone()
        predicted[4, column] = True
        free = sum(r**2 for r in (2.0, 4.0, 8.0, 16.0) if r < (column - 1) * step)
        found = of("hausdorff_conv", predicted, truth, spacing, radii=(2.0, 4.0, 8.0, 16.0), tau=0.8)
        touched = sum(r**2 for r in (2.0, 4.0, 8.0, 16.0)) - free
        assert free / truth.numel() - 1e-9 <= found <= (free + touched) / truth.numel()
        if column == 30:
            assert found == pytest.approx(free / truth.numel(), rel=1e-6)


@pytest.mark.parametrize(("n", "dims"), [(4, 2), (9, 2), (5, 3), (9, 3), (40, 2)])
def test_difference_over_union_of_a_cube(n: int, dims: int) -> None:
    """T6 at the uniform prediction: alpha is 1 - 2 C / S up to 0.8, C the surface of the cube."""
    shape = (n + 4,) * dims
    cube = box(shape, *((2, 2 + n),) * dims)
    size, volume = n**dims, math.prod(shape)
    alpha = min(1 - 2 * (n**dims - (n - 2) ** dims) / size, 0.8)
    difference = volume / 4
    loss = monai_segloss.create("boundary_dou", softmax=True, to_onehot_y=True, include_background=False)
    found = loss(torch.zeros(1, 2, *shape, dtype=torch.float64), label(cube)).item()
    assert found == pytest.approx(difference / (difference + (1 - alpha) * size / 2), rel=1e-5)


def test_difference_over_union_between_dice_and_jaccard() -> None:
    """alpha -1 is the squared Dice loss, alpha 0 one minus the squared soft IoU."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 9, 8, generator=generator, dtype=torch.float64)
    truth = torch.randint(0, 3, (2, 1, 9, 8), generator=generator)
    common = {"softmax": True, "to_onehot_y": True, "batch": True}
    dice = monai_segloss.create("dice", squared_pred=True, reduction="none", **common)(z, truth)
    found = monai_segloss.create("boundary_dou", alpha_max=-1.0, reduction="none", **common)(z, truth)
    torch.testing.assert_close(found, dice)
    found = monai_segloss.create("boundary_dou", alpha_max=0.0, clamp_low=True, reduction="none", **common)(z, truth)
    torch.testing.assert_close(found, 2 * dice / (1 + dice), rtol=1e-5, atol=0)


def test_an_absent_class_is_no_constant() -> None:
    """Published code gives 1 whatever is predicted; ours 0 where nothing is, with a gradient where something is."""
    nothing = torch.zeros(6, 6).bool()
    assert of("boundary_dou", nothing, nothing, include_background=False) == pytest.approx(0, abs=1e-9)
    z = hard(nothing).div_(10).requires_grad_()
    loss = monai_segloss.create("boundary_dou", softmax=True, to_onehot_y=True, include_background=False, smooth_dr=1.0)
    (slope,) = torch.autograd.grad(loss(z, label(nothing)), z)
    assert slope[:, 1].min() > 0


def test_ignored_voxels_are_no_surface() -> None:
    """Half of an object ignored: the cut is not counted as its boundary."""
    truth = label(box((12, 12), (3, 9), (3, 9)))
    cut = truth.clone()
    cut[..., 6:] = 255
    size, edge = 6 * 3, 2 * 3 + 4  # three sides, the cut has none
    loss = monai_segloss.create(
        "boundary_dou", softmax=True, to_onehot_y=True, include_background=False, ignore_index=255
    )
    found = loss(torch.zeros(1, 2, 12, 12, dtype=torch.float64), cut).item()
    difference = 12 * 6 / 4
    assert found == pytest.approx(difference / (difference + 2 * edge / size * size / 2), rel=1e-5)


def test_boundary_iou_is_that_of_hard_bands() -> None:
    """The metric of two masks off the border, its bands by erosions of a box."""
    truth, predicted = box((20, 24), (4, 15), (5, 18)), box((20, 24), (3, 14), (6, 20))
    for width in (1, 2, 3):
        window = np.ones((2 * width + 1,) * 2)
        bands = [m.numpy() & ~ndimage.binary_erosion(m.numpy(), window) for m in (truth, predicted)]
        expected = 1 - (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
        assert of("boundary_iou", predicted, truth, width=width) == pytest.approx(expected, rel=1e-6)
    diagonal = math.hypot(20, 24)  # 2 % of it is less than a voxel: one
    assert 0.02 * diagonal < 1
    expected = of("boundary_iou", predicted, truth, width=1)
    assert of("boundary_iou", predicted, truth) == expected


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 3.0)])
def test_a_window_of_one_voxel_is_that_voxel(spacing: tuple[float, float]) -> None:
    truth = box((12, 12), (2, 7), (2, 7))  # its contour are 16 voxels, half of which a shift by one voxel keeps
    moved = truth.roll(1, 1)
    found = of("boundary_f1", moved, truth, spacing, tolerance=1)
    assert found == pytest.approx(0.5, rel=1e-5)
    given = {"spacing": spacing, "tolerance": 1, "labels": True}
    expected = REFERENCES["boundary_f1"](hard(moved).numpy(), label(truth).numpy(), "softmax", **given)
    assert found == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("key", ["boundary_f1", "contour_dice"])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_tolerance_is_a_length(key: str, axis: int) -> None:
    """A shift within the tolerance is free, and how many voxels that are depends on the spacing of the axis.

    The band of contour Dice begins at the contour itself, which is one voxel inside.
    """
    truth = box((30, 30), (8, 20), (8, 20))
    spacing = (0.5, 1.0)
    free = {"boundary_f1": (4, 2), "contour_dice": (3, 1)}[key][axis]
    more = {"tolerance": 9} if key == "boundary_f1" else {}
    inside, outside = (of(key, truth.roll(k, axis), truth, spacing, **more) for k in (free, free + 1))
    assert inside == pytest.approx(0, abs=1e-6)
    assert outside > 0.05


@pytest.mark.parametrize("key", CONTOURS)
def test_what_the_image_or_an_ignored_region_cuts_off_is_no_contour(key: str) -> None:
    """A wide stripe through the image has two contours; with one of them ignored, the other one is left."""
    truth = box((12, 12), (0, 12), (3, 9))
    predicted = box((12, 12), (0, 12), (5, 9))
    more = {"width": 1.0} if key == "boundary_iou" else {}
    more |= {"tolerance": 1} if key != "boundary_iou" else {}
    loss = monai_segloss.create(key, softmax=True, to_onehot_y=True, ignore_index=255, **more)
    both = loss(hard(predicted), label(truth)).item()
    cut = label(truth)
    cut[..., 7:] = 255
    left = loss(hard(predicted), cut).item()
    assert left == pytest.approx(1, abs=1e-4)
    assert both == pytest.approx(2 / 3 if key == "boundary_iou" else 0.5, rel=1e-4)
    assert loss(hard(truth.roll(1, 0)), label(truth)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("key", WITH_SPACING)
def test_each_sample_has_its_own_spacing(key: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(2, 2, 8, 9, generator=generator, dtype=torch.float64)
    truth = torch.nn.functional.interpolate(torch.rand(2, 1, 3, 3, generator=generator), (8, 9)).round().long()
    rows = ((1.0, 1.0), (3.0, 0.7))
    more: dict[str, Any] = {"batch": False} if "batch" in monai_segloss.find(key).parameters else {}
    more |= {"width": 2.0} if key == "boundary_iou" else {}
    more |= {"radii": (3, 6)} if key == "hausdorff_conv" else {}  # six of them take half a minute to compile
    loss = monai_segloss.create(key, softmax=True, to_onehot_y=True, **more)
    apart = [loss(z[b : b + 1], truth[b : b + 1], spacing=row) for b, row in enumerate(rows)]
    assert apart[1] != loss(z[1:], truth[1:])
    for sent in (rows, torch.tensor(rows), torch.tensor(rows, dtype=torch.float64).numpy()):
        torch.testing.assert_close(loss(z, truth, spacing=sent), sum(apart) / 2)
    torch.testing.assert_close(loss(z[:1], truth[:1], spacing=(1, 1)), apart[0])
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z, truth, spacing=rows), sum(apart) / 2)
    torch.compiler.reset()


@pytest.mark.parametrize("key", ZERO_AT_BEST)
def test_perfect_is_exactly_zero_in_any_size(key: str) -> None:
    for mask in (
        box((7, 8), (2, 5), (3, 6)),
        box((5, 6, 7), (0, 2), (1, 3), (2, 7)),
        torch.ones(4, 4),
        torch.zeros(4, 4),
    ):
        assert abs(of(key, mask.bool(), mask.bool(), (0.7,) * mask.ndim)) < 1e-6


@pytest.mark.parametrize("classes", [2])
@pytest.mark.parametrize("key", BACKGROUND_SAYS_NOTHING)
def test_two_classes_need_no_background(key: str, classes: int) -> None:
    """T9: with two classes and softmax the background says the same again."""
    generator = torch.Generator().manual_seed(0)
    z = 4 * torch.randn(2, classes, 5, 6, generator=generator, dtype=torch.float64).repeat_interleave(3, 2)
    truth = torch.randint(0, classes, (2, 1, 5, 6), generator=generator).repeat_interleave(3, 2)
    values = [
        monai_segloss.create(key, softmax=True, to_onehot_y=True, include_background=b)(z, truth) for b in (True, False)
    ]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("key", ["boundary_dou", *WITH_SPACING])
def test_voxels_without_a_place_have_no_neighbors(key: str) -> None:
    with pytest.raises(ValueError, match=r"input has shape \(4, 2\); .* needs spatial axes"):
        monai_segloss.create(key, softmax=True, to_onehot_y=True)(torch.zeros(4, 2), torch.zeros(4))


def test_refusals() -> None:
    for bad in (0, 2.5):
        with pytest.raises(ValueError, match="erosions must be a whole number"):
            monai_segloss.create("hausdorff_er", erosions=bad)
    with pytest.raises(ValueError, match="norm must be one of"):
        monai_segloss.create("hausdorff_er", norm="max")
    for bad in ((), (0.0, 3.0), (-1.0,)):
        with pytest.raises(ValueError, match="radii must be numbers above 0"):
            monai_segloss.create("hausdorff_conv", radii=bad)
    with pytest.raises(ValueError, match="tau must be below 1"):
        monai_segloss.create("hausdorff_conv", tau=1.0)
    for name in ("contour", "tolerance"):
        with pytest.raises(ValueError, match=f"{name} must be an odd number"):
            monai_segloss.create("boundary_f1", **{name: 4})
    for key, name in (("boundary_iou", "width"), ("contour_dice", "tolerance")):
        with pytest.raises(ValueError, match=f"{name} must be above 0"):
            monai_segloss.create(key, **{name: 0.0})
