"""Losses of distances to a surface: closed forms and identities of the catalog, faults of other code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from boundary_shapes import EDGE, READING, SURE, WIDTH, blobs, of, shifted_half_space, turned_flipped_and_copied
from torch import Tensor

import monai_segloss
from monai_segloss.losses.boundary.distances import signed_distance
from nnunet_trainers.deep_supervision import NnUNetLoss

STEPS = [(1.0, 1.0), (0.5, 2.0), (3.0, 1.0, 0.3)]
KEYS = ("generalized_surface", "surface_dice", "shape_aware", "signed_distance_regression")
ISO = (1.0, 1.0, 1.0)


def near(expected: float | list[float], rel: float = 1e-5) -> Any:
    return pytest.approx(expected, rel=rel, abs=1e-9)


def hot(labels: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels[:, 0], classes).movedim(-1, 1).bool()


# -- generalized surface ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["maurer", "surface", "kervadec", "none"])
def test_t6_generalized_surface_at_the_three_points(mode: str) -> None:
    """0 for the target, 3/4 at one half, 1 for the opposite, whatever the distances."""
    _, labels = blobs()
    sure = 2.0 * hot(labels, 3).double() - 1
    for scale, expected in ((SURE, 0.0), (0.0, 0.75), (-SURE, 1.0)):
        loss = monai_segloss.create("generalized_surface", sigmoid=True, to_onehot_y=True, mode=mode)
        assert float(loss(scale * sure, labels, spacing=(3.0, 1.0, 0.5))) == near(expected)


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_generalized_surface_of_a_shifted_half_space(axis: int, steps: tuple[float, ...]) -> None:
    """Sums of squares: k^2 to each side of the inner boundary, which weighs 0."""
    squares = sum(k**2 for k in range(1, EDGE + 1)) + sum(k**2 for k in range(WIDTH - EDGE))
    for t in (1, 3, 6):
        over, under = sum(k**2 for k in range(1, t + 1)), sum(k**2 for k in range(t))
        assert of("generalized_surface", *shifted_half_space(axis, t, steps), steps) == near(over / squares)
        assert of("generalized_surface", *shifted_half_space(axis, -t, steps), steps) == near(under / squares)


def test_t8_generalized_surface_and_regression_do_not_know_the_unit() -> None:
    logits, labels = blobs()
    for key in ("generalized_surface", "signed_distance_regression"):
        before = of(key, logits, labels, (3.0, 1.0, 0.5))
        assert of(key, logits, labels, (7.5, 2.5, 1.25)) == near(before)
        assert of(key, logits, labels, (1.0, 1.0, 1.0)) != near(before, 1e-3), "they know the shape of a voxel"


def test_generalized_surface_of_classes() -> None:
    """One ratio is that of the weighted sums; per class the mean of the ratios of single classes."""
    logits, labels = blobs()
    masks = hot(labels, 3)
    single = [
        monai_segloss.create("generalized_surface", include_background=True)(
            logits.softmax(1)[:, c : c + 1], masks[:, c : c + 1], spacing=ISO
        )
        for c in (1, 2)
    ]
    arguments = {"per_class": True}
    assert of("generalized_surface", logits, labels, ISO, **arguments) == near(float(sum(single)) / 2)
    weighted = [of("generalized_surface", logits, labels, ISO, weight=[9.0, 1.0, w]) for w in (0.0, 1e9)]
    for c, found in zip((1, 2), weighted, strict=True):
        alone = monai_segloss.create("generalized_surface", weight=[0.0, *(float(k == c) for k in (1, 2))], **READING)
        assert found == near(float(alone(logits, labels, spacing=ISO)), 1e-6)
    both = of("generalized_surface", logits, labels, ISO)
    assert min(weighted) < both < max(weighted)
    assert of("generalized_surface", logits, labels, ISO, weight=[5.0, 2.0, 2.0]) == near(both), "proportions"


def test_an_absent_class_has_no_influence_on_the_generalized_surface_per_class() -> None:
    """The value of two classes is that of three, one of which the sample does not have."""
    logits, labels = blobs()
    labels[labels == 2] = 0
    for more in ({}, {"batch": True}):
        loss = monai_segloss.create("generalized_surface", per_class=True, weight=[0.0, 3.0, 7.0], **READING, **more)
        z = torch.cat((logits[:, :1].logaddexp(logits[:, 2:]), logits[:, 1:2]), 1)
        two = monai_segloss.create("generalized_surface", per_class=True, weight=[0.0, 3.0], **READING, **more)
        assert float(loss(logits, labels, spacing=ISO)) == near(float(two(z, labels, spacing=ISO)))


def test_without_a_boundary_generalized_surface_is_zero_and_with_a_diagonal_it_punishes() -> None:
    """The authors' quotient is 0/0, which their code makes a constant 1."""
    labels = torch.zeros(1, 1, 6, 7, dtype=torch.int64)
    logits = torch.zeros(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    for target in (labels, labels + 1):
        loss = monai_segloss.create("generalized_surface", **READING)(logits, target, spacing=(1.0, 2.0))
        assert float(loss.detach()) == 0
        assert not torch.autograd.grad(loss, logits)[0].any()
    punished = monai_segloss.create("generalized_surface", empty="diagonal", **READING)
    value = punished(logits, labels, spacing=(1.0, 2.0))
    assert float(value.detach()) == near(0.75)
    slope = torch.autograd.grad(value, logits)[0]
    assert (slope[:, 1] > 0).all()


# -- surface Dice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("tolerance", [None, 1.0, 2.5])
def test_surface_dice_of_a_shifted_half_space(axis: int, steps: tuple[float, ...], tolerance: float | None) -> None:
    """Two bands of 2 ceil(tolerance / s) + 1 voxels."""
    reach = 1.25 * max(steps) if tolerance is None else tolerance
    width = 2 * math.ceil(reach / steps[axis]) + 1
    for t in (0, 1, 2, 3):
        if EDGE - t - width // 2 < 0 or EDGE + width // 2 >= WIDTH:
            continue  # the band would leave the image
        found = of(
            "surface_dice", *shifted_half_space(axis, t, steps), steps, tolerance=tolerance, smooth_nr=0, smooth_dr=0
        )
        assert found == near(min(1.0, t / width))


def test_the_tolerance_is_a_length_along_every_axis() -> None:
    """Shifts of 2 mm cost the same along axes of 1 and of 0.5 mm but for the voxel in the middle of the band."""
    steps = (1.0, 0.5)
    along = [
        of("surface_dice", *shifted_half_space(axis, t, steps), steps, tolerance=2.0) for axis, t in ((0, 2), (1, 4))
    ]
    assert along == [near(2 / 5, 1e-4), near(4 / 9, 1e-4)]


def test_surface_dice_of_an_absent_class_is_zero_and_what_is_found_there_costs() -> None:
    labels = torch.zeros(1, 1, 9, 9, dtype=torch.int64)
    nothing = torch.stack([torch.full((9, 9), SURE), torch.full((9, 9), -SURE)])[None].double()
    assert of("surface_dice", nothing, labels, (1.0, 1.0)) == near(0.0)
    found = nothing.clone()
    found[:, 0, 3:6, 3:6], found[:, 1, 3:6, 3:6] = -SURE, SURE
    assert of("surface_dice", found, labels, (1.0, 1.0)) == near(1.0, 1e-3)


# -- shape-aware ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_t2_shape_aware_of_a_shifted_half_space(axis: int, steps: tuple[float, ...]) -> None:
    """E is the shift in mm; the wrong voxels are a share t / W with the cross-entropy of a sure mistake."""
    for shift in (1, 4, -3):
        t, e = abs(shift), abs(shift) * steps[axis]
        logits, labels = shifted_half_space(axis, shift, steps)
        plain = SURE * t / WIDTH
        assert of("cross_entropy", logits, labels) == near(plain)
        for domain in ("mismatch", "all"):  # sure where right, so that only mistakes cost
            assert of("shape_aware", logits, labels, steps, domain=domain) == near(plain * (1 + e))
        assert of("shape_aware", logits, labels, steps, w_shape=0.5) == near(plain * (1 + e / 2))


def test_the_literal_form_scales_all_of_the_cross_entropy() -> None:
    logits, labels = shifted_half_space(0, 2, (3.0, 1.0))
    soft = logits / SURE
    ce = of("cross_entropy", soft, labels)
    assert of("shape_aware", soft, labels, (3.0, 1.0), domain="all") == near(ce * 7)
    wrong = math.log1p(math.e) * 2 / WIDTH
    assert of("shape_aware", soft, labels, (3.0, 1.0)) == near(ce + 6 * wrong)


def test_shape_aware_is_the_cross_entropy_where_a_contour_is_missing() -> None:
    labels = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    labels[..., 2:5, 2:6] = 1
    empty = torch.stack([torch.full((8, 8), 1.0), torch.full((8, 8), -1.0)])[None].double()
    for logits, target in ((empty, labels), (-empty, labels), (labels * 2.0 * empty, 0 * labels)):
        logits = logits.double()
        assert of("shape_aware", logits, target, (2.0, 2.0)) == near(of("cross_entropy", logits, target))


def test_two_classes_are_one_region() -> None:
    """Softmax over two channels is a sigmoid of their difference."""
    logits, labels = blobs(classes=2)
    region = monai_segloss.create("shape_aware", sigmoid=True)
    found = float(region(logits[:, 1:] - logits[:, :1], labels.double(), spacing=(3.0, 1.0, 0.5)))
    assert found == near(of("shape_aware", logits, labels, (3.0, 1.0, 0.5)))


def test_the_distance_of_the_contours_carries_no_gradient() -> None:
    logits, labels = shifted_half_space(0, 2, (3.0, 1.0))
    leaf = (logits / SURE).requires_grad_()
    loss = monai_segloss.create("shape_aware", **READING)
    (slope,) = torch.autograd.grad(loss(leaf, labels, spacing=(3.0, 1.0)), leaf)
    ce = monai_segloss.create("cross_entropy", **READING)
    (plain,) = torch.autograd.grad(ce(leaf, labels), leaf)
    wrong = (leaf.argmax(1) != labels[:, 0])[:, None]
    torch.testing.assert_close(slope, torch.where(wrong, 7 * plain, plain))


def test_shape_aware_takes_the_mean_over_classes() -> None:
    """Class 1 is off by 2 voxels, class 2 by 0, class 3 by what nobody predicts."""
    labels = torch.zeros(1, 1, 24, dtype=torch.int64)
    labels[..., 4:8], labels[..., 12:16], labels[..., 20:22] = 1, 2, 3
    predicted = torch.zeros(1, 24, dtype=torch.int64)
    predicted[..., 6:10], predicted[..., 12:16] = 1, 2
    logits = SURE * torch.nn.functional.one_hot(predicted, 4).movedim(-1, 1).double()
    loss = monai_segloss.create("shape_aware", **READING)
    loss(logits, labels, spacing=(1.5,))
    wrong = SURE * (4 + 2) / 24
    # the contour 6 to 9 of class 1: 6 is 1 voxel from 7 (and 9 is 2 from it), so 3 mm / 2; class 2 is right
    assert float(loss.last["shape"]) == near(wrong * (1.5 * (1 + 2) / 2 + 0) / 2)


# -- regression of signed distances -----------------------------------------------------------------------------------


def regression(p: Tensor, labels: Tensor, spacing: Any = ISO, **arguments: Any) -> dict[str, float]:
    """The terms for an output of a head of distances."""
    arguments = {"head": "tanh", "to_onehot_y": True, "w_square": 1.0, "include_background": False, **arguments}
    loss = monai_segloss.create("signed_distance_regression", **arguments)
    loss(torch.atanh(p), labels, spacing=spacing)
    return {name: float(value) for name, value in loss.last.items()}


def test_t6_the_product_term() -> None:
    """0 where p = y, 4/3 where p = -y, 1/3 where p = 0: the published values and 1/3."""
    _, labels = blobs()
    steps = torch.tensor([3.0, 1.0, 0.5])
    y = (
        signed_distance(mode="swdm", normalize=True)
        .make(hot(labels, 3), steps, None)
        .double()
        .clamp(-1 + 1e-9, 1 - 1e-9)
    )
    for p, expected in ((y, 0.0), (-y, 4 / 3), (0 * y, 1 / 3)):
        found = regression(p, labels, steps)
        assert found["product"] == pytest.approx(expected, abs=1e-7)
        assert found["absolute"] == pytest.approx(float((y - p)[:, 1:].abs().mean()), abs=1e-7)
        assert found["square"] == pytest.approx(float(((y - p)[:, 1:] ** 2).mean()), abs=1e-7)
    noisy = (y + 0.3 * torch.randn_like(y)).clamp(-0.9, 0.9)
    assert 0 < regression(noisy, labels, steps)["product"] < 1 / 3


def test_a_sigmoid_is_a_head_of_distances() -> None:
    """1 - 2 sigmoid(-2 z) = tanh(z)."""
    logits, labels = blobs()
    one = monai_segloss.create("signed_distance_regression", head="tanh", to_onehot_y=True)
    two = monai_segloss.create("signed_distance_regression", sigmoid=True, to_onehot_y=True)
    assert float(one(logits, labels, spacing=ISO)) == near(float(two(-2 * logits, labels, spacing=ISO)))
    for activation in ({"softmax": True}, {"sigmoid": True}, {"other_act": torch.sigmoid}):
        with pytest.raises(ValueError, match="head='tanh'"):
            monai_segloss.create("signed_distance_regression", head="tanh", **activation)
    with pytest.raises(ValueError, match="w_absolute, w_product and w_square"):
        monai_segloss.create("signed_distance_regression", w_absolute=0, w_product=0)


def test_the_sign_is_that_of_the_maps() -> None:
    """The right segmentation, however blurred, lies below its opposite."""
    _, labels = blobs()
    sure = 2.0 * hot(labels, 3).double() - 1
    for scale in (0.1, 1.0, SURE):
        right, wrong = (of("signed_distance_regression", x * sure, labels, ISO) for x in (scale, -scale))
        assert right < wrong


def test_a_class_without_a_boundary_leaves_the_mean() -> None:
    logits, labels = blobs(classes=4)
    labels = torch.where(labels == 3, 0, labels)
    probability = logits.softmax(1)
    three = monai_segloss.create("signed_distance_regression", to_onehot_y=False)
    expected = three(probability[:, :3], hot(labels, 3), spacing=ISO)
    assert float(three(probability, hot(labels, 4), spacing=ISO)) == near(float(expected))
    full = torch.ones(1, 1, 5, 5)
    value = monai_segloss.create("signed_distance_regression", sigmoid=True)(0 * full, full, spacing=(1.0, 1.0))
    assert value == 0


def test_an_absent_class_is_far_away_everywhere_with_a_diagonal() -> None:
    labels = torch.zeros(1, 1, 5, 6, dtype=torch.int64)
    p = torch.full((1, 2, 5, 6), 0.5, dtype=torch.float64)
    found = regression(p, labels, (1.0, 2.0), empty="diagonal")
    assert found == {"absolute": near(0.5), "product": near(1 / 3 - 0.5 / 1.75), "square": near(0.25)}


def discs() -> Tensor:
    """Two discs that do not touch, (1, 1, 24, 24)."""
    labels = torch.zeros(1, 1, 24, 24, dtype=torch.int64)
    row, column = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    labels[0, 0][(row - 7) ** 2 + (column - 7) ** 2 < 21] = 1
    labels[0, 0][(row - 16) ** 2 + (column - 15) ** 2 < 15] = 2
    return labels


def fitted(key: str, labels: Tensor, **arguments: Any) -> Tensor:
    """The largest channel, (1, 1, *S), of the logits that a loss ends with."""
    logits = torch.nn.Parameter(0.1 * torch.randn(1, 3, *labels.shape[2:]))
    optimizer, loss = torch.optim.Adam([logits], lr=0.2), monai_segloss.create(key, **READING, **arguments)
    for _ in range(200):
        optimizer.zero_grad()
        loss(logits, labels, spacing=(1.0, 1.0)).backward()
        optimizer.step()
    return logits.detach().argmax(1, keepdim=True)


def test_what_the_losses_end_with() -> None:
    """The target; without the background the nearer class wins outside of both, and on Maurer's inner boundary either."""
    labels = discs()
    for key, arguments in (
        ("generalized_surface", {"mode": "surface"}),
        ("signed_distance_regression", {}),
        ("shape_aware", {}),
    ):
        assert torch.equal(fitted(key, labels, **arguments), labels), key
    rest = fitted("generalized_surface", labels) != labels
    boundary = (signed_distance(mode="maurer").make(hot(labels, 3), torch.ones(2), None)[:, 1:] == 0).any(1, True)
    assert rest.any()
    assert not (rest & ~boundary).any()
    assert not torch.equal(fitted("signed_distance_regression", labels, include_background=False), labels)


@pytest.mark.parametrize("key", KEYS)
def test_t10_thin_and_tiny_objects_and_extreme_logits(key: str) -> None:
    """A voxel, a line along the border, a class that fills the image, none: finite, in half precision too."""
    targets = torch.zeros(5, 1, 9, 8, dtype=torch.int64)
    targets[0, 0, 4, 4], targets[1, 0, :, 0], targets[2], targets[3, 0, :, ::2] = 1, 1, 1, 1
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for scale in (1.0, 1e4):
            logits = (scale * torch.randn(5, 2, 9, 8, generator=generator)).to(dtype).requires_grad_()
            value = monai_segloss.create(key, **READING)(logits, targets, spacing=(8.0, 0.3))
            assert value.isfinite(), (dtype, scale)
            assert torch.autograd.grad(value, logits)[0].isfinite().all(), (dtype, scale)


@pytest.mark.parametrize("key", KEYS)
def test_t7_flips_axes_and_copies(key: str) -> None:
    expected, found = turned_flipped_and_copied(key)
    assert found == near([expected] * 3, 1e-9)


@pytest.mark.parametrize("key", KEYS)
def test_each_scale_has_its_own_labels_and_spacing(key: str) -> None:
    logits, labels = blobs(shape=(8, 8, 8))
    spacings, weights = [(1.0, 1.0, 2.0), (2.0, 2.0, 4.0)], [2 / 3, 1 / 3]
    outputs, targets = ([x[:, :, ::k, ::k, ::k] for k in (1, 2)] for x in (logits, labels))
    loss = monai_segloss.create(key, **READING)
    parts = [loss(o, t, spacing=s) for o, t, s in zip(outputs, targets, spacings, strict=True)]
    expected = sum(w * x for w, x in zip(weights, parts, strict=True))
    torch.testing.assert_close(NnUNetLoss(loss, spacings, weights)(outputs, targets), expected)


@pytest.mark.parametrize("key", KEYS)
def test_an_ignored_region_makes_no_boundary(key: str) -> None:
    """A class that goes on behind an ignored slab has the distances of a whole one."""
    labels = torch.zeros(1, 1, 4, 20, dtype=torch.int64)
    labels[..., 8:] = 1
    hidden = labels.clone()
    hidden[..., 13:16] = 255
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 4, 20, generator=generator, dtype=torch.float64)
    logits[:, 1, :, 10:], logits[:, 0, :, 10:] = SURE, -SURE  # around the slab, as far as bands reach, all is right
    loss = monai_segloss.create(key, ignore_index=255, **READING)
    if key == "surface_dice":
        assert float(loss(logits, hidden, spacing=(1.0, 1.0))) == near(of(key, logits, labels, (1.0, 1.0)))
        return
    mask = (hidden != 255).expand(1, 1, 4, 20)
    masked = monai_segloss.create(key, **READING)(logits, labels, mask=mask, spacing=(1.0, 1.0))
    assert float(loss(logits, hidden, spacing=(1.0, 1.0))) == near(float(masked))
    found = {spec.key: spec.make(hot(labels, 2), torch.ones(2), None) for spec in loss.needs}
    whole = monai_segloss.create(key, **READING)(logits, labels, mask=mask, spacing=(1.0, 1.0), **found)
    assert float(masked) == near(float(whole)), "the maps of the whole label, but for what is ignored"


@pytest.mark.parametrize(
    "key",
    [
        *KEYS, "boundary", "hausdorff_dt", "distance_penalized_ce", "distance_penalized_dice", "border_weighted_ce",
        "region_wise", "weighted_hausdorff", "dice_boundary", "dice_ce_boundary", "generalized_dice_boundary",
        "dice_hausdorff_dt",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ignore", [None, 1])
def test_each_sample_has_its_own_spacing(key: str, ignore: int | None) -> None:
    logits, labels = blobs()
    rows = ((3.0, 1.0, 0.5), (0.7, 0.7, 2.0))
    loss = monai_segloss.create(key, **READING, reduction="sum", ignore_index=ignore)
    apart = [loss(logits[b : b + 1], labels[b : b + 1], spacing=row) for b, row in enumerate(rows)]
    assert float(sum(apart)) != near(float(loss(logits, labels, spacing=ISO)), 1e-8)
    for sent in (rows, torch.tensor(rows, dtype=torch.float64)):
        torch.testing.assert_close(loss(logits, labels, spacing=sent), sum(apart))
