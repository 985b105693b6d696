"""Maps of distance, border, contour and skeleton: brute force, closed forms, parity, and the faults of other code."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics.utils import get_mask_edges
from monai.transforms import LabelToContour
from references import boundary as reference
from scipy import ndimage
from torch import Tensor

from monai_segloss import maps
from monai_segloss.kernels import distance
from monai_segloss.maps.distance import MODES

SHAPES = [(9,), (7, 8), (4, 6, 5), (1, 6, 5)]


def example(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Masks that are random, empty, full, one voxel, at the border; spacing per sample; voxels that count."""
    rng = np.random.default_rng(7 * len(shape) + shape[0])
    mask = torch.from_numpy(rng.random((2, 5, *shape)) < 0.4)
    mask[:, 1], mask[:, 2], mask[:, 3] = False, True, False
    mask[:, 3].flatten(1)[:, mask[0, 0].numel() // 2] = True
    mask[:, 4] = torch.from_numpy(np.indices(shape).sum(0) > sum(shape) // 2)
    spacing = torch.from_numpy(rng.uniform(0.3, 8, (2, len(shape))))
    spacing[0] = torch.tensor([3.0, 1.0, 0.5])[-len(shape) :]
    return mask, spacing, torch.from_numpy(rng.random((2, 1, *shape)) < 0.7)


def brute(mask: Tensor, spacing: Tensor, valid: Tensor, **options: Any) -> np.ndarray:
    rows = [
        [
            reference.signed(mask[b, c].numpy(), valid[b, 0].numpy(), spacing[b].numpy(), **options)
            for c in range(mask.shape[1])
        ]
        for b in range(len(mask))
    ]
    return np.array(rows)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"empty": "diagonal", "full": "diagonal"},
    {"normalize": True},
    {"clip": 2.5},
    {"clip": (1.0, 4.0), "empty": "diagonal", "normalize": True},
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_signed_maps_equal_brute_force(shape: tuple[int, ...], mode: str) -> None:
    mask, spacing, valid = example(shape)
    for options, counted in itertools.product(OPTIONS, (None, valid)):
        found = maps.signed_distance_map(mask, spacing, counted, mode=mode, **options)  # type: ignore[arg-type]
        sent = torch.ones_like(valid) if counted is None else counted
        expected = brute(mask, spacing, sent, mode=mode, **options)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=f"{options}")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", [4, 2, -2, -4, -6]),
        ("kervadec", [4, 2, 0, -2, -4]),
        ("literal", [4, 2, -1, -3, -5]),
        ("inner", [4, 2, 0, -2, -4]),
        ("maurer", [4, 2, 0, -2, -4]),
        ("surface", [3, 1, -1, -3, -5]),
        ("swdm", [4, 2, 0, -4, -6]),
    ],
)
def test_a_half_space_in_each_mode(mode: Any, expected: list[float]) -> None:
    mask = torch.zeros(1, 1, 5, 3)
    mask[:, :, 2:] = 1
    found = maps.signed_distance_map(mask, torch.tensor([2.0, 2.5]), mode=mode)
    assert found[0, 0, :, 1].tolist() == expected


def test_kervadec_is_never_above_zero_inside_and_literal_is_below_a_millimeter() -> None:
    """The published offset of 1 in a map in mm makes the inner boundary positive where voxels are smaller."""
    mask = torch.zeros(1, 1, 6, 8)
    mask[..., 2:5, 2:6] = 1
    for spacing in ([1.0, 0.5], [0.3, 0.3], [0.7, 8.0]):
        steps = torch.tensor(spacing)
        inside = mask > 0
        assert maps.signed_distance_map(mask, steps)[inside].max() == 0
        assert maps.signed_distance_map(mask, steps, mode="literal")[inside].max() > 0


def test_maurer_is_itks() -> None:
    itk = pytest.importorskip("itk", reason="ITK is not installed")
    mask, spacing, _ = example((6, 7, 5))
    for b, c in ((0, 0), (1, 3), (1, 4)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = itk.image_view_from_array(mask[b, c].numpy().astype(np.uint8))
            image.SetSpacing(spacing[b].flip(0).tolist())
            out = itk.signed_maurer_distance_map_image_filter(image, use_image_spacing=True, squared_distance=False)
        ours = maps.signed_distance_map(mask[b : b + 1, c : c + 1], spacing[b], mode="maurer")
        np.testing.assert_allclose(ours[0, 0], itk.array_from_image(out), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_ignored_region_makes_no_boundary(mode: Any) -> None:
    """A map around ignored voxels is that of whatever stands there, as long as it is far from the true boundary."""
    mask = torch.zeros(1, 1, 24)
    mask[..., 8:] = 1
    valid = torch.ones(1, 1, 24, dtype=torch.bool)
    valid[..., 16:20] = False
    hole = mask.clone()
    hole[..., 16:20] = 0
    whole = maps.signed_distance_map(mask, mode=mode)
    found = maps.signed_distance_map(hole, None, valid, mode=mode)
    assert torch.equal(found, whole.masked_fill(~valid, 0))
    assert not torch.equal(maps.signed_distance_map(hole, mode=mode).masked_fill(~valid, 0), found)


def test_maps_do_not_truncate_whatever_the_type_of_the_mask() -> None:
    base = torch.zeros(1, 2, 7, 9)
    base[:, 1, 2:5, 3:7] = 1
    expected = maps.signed_distance_map(base.bool())
    assert (expected % 1 != 0).any()
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.float64):
        assert torch.equal(maps.signed_distance_map(base.to(dtype)), expected)
        assert maps.distance_field(base.to(dtype)).dtype == torch.float32


def test_no_gradient_flows() -> None:
    assert not maps.signed_distance_map(torch.rand(1, 1, 4, 4, requires_grad=True)).requires_grad


def test_fields_in_one_pass_or_class_by_class() -> None:
    labels = torch.randint(0, 4, (2, 1, 5, 6, 4), generator=torch.Generator().manual_seed(0))
    masks, spacing, valid = maps.class_masks(labels, 4), torch.tensor([3.0, 1.0, 0.5]), torch.rand(labels.shape) < 0.7
    for counted in (None, valid):
        for make in (_inside, maps.distance_penalty_map, maps.region_wise_map):
            apart, together = (make(masks, spacing, counted, exclusive=e) for e in (False, True))
            torch.testing.assert_close(apart, together)
    both, inside, outside = (maps.distance_field(masks, spacing, side=s) for s in ("both", "inside", "outside"))  # type: ignore[arg-type]
    assert torch.equal(both, inside + outside)
    uncovered = maps.class_masks(labels, 4, include_background=False)
    torch.testing.assert_close(_inside(uncovered, spacing, None), _inside(uncovered, spacing, None, exclusive=True))


def _inside(mask: Tensor, spacing: Tensor | None, valid: Tensor | None, exclusive: bool = False) -> Tensor:
    return maps.distance_field(mask, spacing, valid, side="inside", exclusive=exclusive)


def test_an_object_one_voxel_thick_has_no_inside_in_any_spacing() -> None:
    """The distance less the smallest spacing is 0 there, not the last digit of a root, which ``normalize`` made -1."""
    mask = torch.zeros(1, 1, 5, 5)
    mask[..., 2, :] = 1
    for spacing in torch.linspace(0.1, 3.1, 200, dtype=torch.float64):
        found = maps.signed_distance_map(mask, torch.stack((spacing, 2 * spacing)), normalize=True)
        assert not found[..., 2, :].any(), f"spacing {float(spacing)}"


def test_voxels_as_deep_along_different_axes_are_as_deep() -> None:
    """Two plates one voxel thick in cubic voxels: all have 1, whatever the last digit of a root."""
    labels = torch.zeros(1, 1, 9, 8, 8, dtype=torch.int64)
    labels[..., 1, 1:4, 1:4] = labels[..., 4:7, 4:7, 6] = 1
    masks = maps.class_masks(labels, 2)
    for spacing in torch.linspace(0.1, 3.1, 100, dtype=torch.float64):
        for exclusive in (False, True):
            found = maps.distance_penalty_map(masks, spacing.expand(3), exclusive=exclusive)
            assert torch.equal(found[:, 1], masks[:, 1].float()), f"spacing {float(spacing)}"


def test_penalty_and_region_wise_maps_of_a_slab() -> None:
    """T4: (D - k) / (D - 1) and -k / D at depth k of a slab of D voxels at the edge of the image."""
    mask = torch.zeros(1, 2, 9, 4)
    mask[:, 1, :5] = 1
    mask[:, 0] = 1 - mask[:, 1]
    for step in (1.0, 0.4):
        spacing = torch.tensor([step, 1.0])
        penalty = maps.distance_penalty_map(mask, spacing)
        torch.testing.assert_close(penalty[0, 1, :5, 0], torch.arange(5) / 4)
        torch.testing.assert_close(penalty[0, 0, 5:, 2], (4 - torch.arange(1.0, 5)) / 3)
        assert not penalty[0, 1, 5:].any()
        region = maps.region_wise_map(mask, spacing)
        torch.testing.assert_close(region[0, 1, :, 1], torch.tensor([-5, -4, -3, -2, -1, 5, 5, 5, 5]) / 5)


def test_degenerate_classes_are_finite() -> None:
    """A line is as deep everywhere; a class that is absent or fills the image has no boundary."""
    mask = torch.zeros(1, 3, 5, 5)
    mask[:, 0, 2], mask[:, 2] = 1, 1
    penalty, region = maps.distance_penalty_map(mask), maps.region_wise_map(mask)
    assert torch.equal(penalty[:, 0], mask[:, 0])
    assert not penalty[:, 1:].any()
    assert torch.equal(region[:, 0], 1 - 2 * mask[:, 0])
    assert (region[:, 1] == 1).all()
    assert (region[:, 2] == -1).all()
    normal = maps.signed_distance_map(mask, normalize=True)
    assert normal.isfinite().all()
    assert (normal[:, 0].max(), normal[:, 0].min()) == (1, 0)  # the one voxel inside is its own boundary


def test_unsigned_field_equals_monais_and_scipy() -> None:
    mask, spacing, _ = example((4, 6, 5))
    found = maps.distance_field(mask, spacing)
    for b, c in ((0, 0), (1, 3)):
        steps, x = spacing[b].numpy(), mask[b, c].numpy()
        both = ndimage.distance_transform_edt(x, sampling=steps) + ndimage.distance_transform_edt(~x, sampling=steps)
        np.testing.assert_allclose(found[b, c], both, rtol=1e-5)
    assert not found[:, 1:3].any()


def test_border_weights_across_a_gap() -> None:
    """T4: constant across a gap of w voxels, 1 + w0 exp(-(s (w + 1))^2 / (2 sigma^2))."""
    mask = torch.zeros(1, 1, 12, 5)
    mask[:, :, :3], mask[:, :, 7:] = 1, 1
    found = maps.border_weight_map(mask, torch.tensor([0.7, 1.0]))
    expected = 1 + 10 * np.exp(-((0.7 * 5) ** 2) / 50)
    torch.testing.assert_close(found[0, 0, 3:7], torch.full((4, 5), expected, dtype=torch.float32))
    assert (found[mask > 0] == 1).all()
    assert (maps.border_weight_map(mask, background_only=False)[mask > 0] > 1).all()
    assert (maps.border_weight_map(mask[:, :, :6]) == 1).all(), "one instance has no border"


def test_border_weights_of_classes_and_given_instances() -> None:
    mask = torch.zeros(2, 2, 10)
    mask[0, 0, 0], mask[0, 1, 4], mask[1, 0, 0:2] = 1, 1, 1
    weights = maps.border_weight_map(mask, class_weight=[1.0, 2.0, 3.0], w0=0.0)
    assert weights[0, 0].tolist() == [2, 1, 1, 1, 3, 1, 1, 1, 1, 1]
    balanced = maps.border_weight_map(mask, class_weight="balanced", w0=0.0)
    torch.testing.assert_close(balanced[0, 0, :2], torch.tensor([10 / 3, 10 / 24]))
    torch.testing.assert_close(balanced[1, 0, :3], torch.tensor([2.5, 2.5, 0.625]))
    instances = torch.tensor([[[1, 2, 0, 0]]])
    touching = maps.border_weight_map((instances > 0).float(), instances=instances)
    assert (touching[..., 2:] > 1).all()
    valid = torch.ones(2, 1, 10, dtype=torch.bool)
    valid[..., 4] = False
    ignored = maps.border_weight_map(mask, None, valid)
    assert (ignored[..., 4] == 0).all()
    assert (ignored[0, 0, :4] == 1).all(), "an instance that does not count has no border"


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("connectivity", ["face", "full"])
@pytest.mark.parametrize("shape", [(9, 8), (5, 6, 7)], ids=str)
def test_contours_equal_erosion_and_dilation(
    shape: tuple[int, ...], connectivity: str, border: bool, both: bool
) -> None:
    mask, _, _ = example(shape)
    kind = ndimage.generate_binary_structure(len(shape), len(shape) if connectivity == "full" else 1)
    for width in (1, 2):
        found = maps.contour_map(
            mask, width=width, connectivity=connectivity, border_is_boundary=border, both_sides=both
        )
        for b, c in itertools.product(range(2), range(5)):
            x = mask[b, c].numpy()
            expected = x & ~ndimage.binary_erosion(x, kind, width, border_value=not border)
            if both:
                expected |= ~x & ndimage.binary_dilation(x, kind, width)
            assert np.array_equal(found[b, c].numpy(), expected)


def test_inner_contours_are_monais() -> None:
    """MONAI's get_mask_edges and LabelToContour of one-hot masks: the edge of the image counts there."""
    mask, _, _ = example((9, 8))
    face, full = (maps.contour_map(mask, connectivity=c, border_is_boundary=True) for c in ("face", "full"))
    for c in (0, 3, 4):
        theirs, _ = get_mask_edges(mask[0, c].numpy(), mask[0, c].numpy(), crop=False)
        assert np.array_equal(face[0, c].numpy(), theirs)
        assert torch.equal(full[0, c], LabelToContour()(mask[0, c : c + 1].float())[0])


def test_contours_without_what_is_ignored() -> None:
    mask, valid = torch.ones(1, 1, 8), torch.ones(1, 1, 8, dtype=torch.bool)
    mask[..., :2], valid[..., 2] = 0, False
    assert maps.contour_map(mask, valid, both_sides=True).sum() == 0
    assert maps.contour_map(mask, valid, width=3)[0, 0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


@pytest.fixture
def bars() -> Tensor:
    """Two bars that touch along their length, as two classes."""
    mask = torch.zeros(1, 2, 7, 20)
    mask[:, 0, 0:3, 2:18], mask[:, 1, 3:7, 2:18] = 1, 1
    return mask


def test_skeletons_and_tubes(bars: Tensor) -> None:
    skimage = pytest.importorskip("skimage.morphology", reason="scikit-image is not installed")
    lines = maps.skeleton_map(bars)
    for c in range(2):
        assert np.array_equal(lines[0, c].numpy() > 0, skimage.skeletonize(bars[0, c].numpy() > 0))
    tube = maps.tubed_skeleton_map(bars)
    assert (tube <= bars).all()
    cross = ndimage.generate_binary_structure(2, 1)
    thick = ndimage.binary_dilation(lines[0, 0].numpy() > 0, cross, 2) & (bars[0, 0].numpy() > 0)
    assert np.array_equal(tube[0, 0].numpy() > 0, thick)
    in_mm = maps.tubed_skeleton_map(bars, torch.tensor([1.0, 4.0]), radius_mm=1.0)
    assert torch.equal(in_mm, maps.tubed_skeleton_map(bars, torch.tensor([1.0, 9.0]), radius_mm=1.0))
    shared = maps.skeleton_map(bars, per_class=False)
    assert shared[0, 0].sum() < lines[0, 0].sum() / 3, "of a shared skeleton one class has next to nothing"
    volume = maps.skeleton_map(torch.ones(1, 1, 3, 3, 12))
    assert volume.sum() > 3
    assert maps.skeleton_map(torch.zeros(1, 2, 4, 4)).sum() == 0
    valid = torch.zeros(1, 1, 7, 20, dtype=torch.bool)
    assert maps.tubed_skeleton_map(bars, None, valid).sum() == 0


def test_skeletons_without_scikit_image_say_what_to_install(bars: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skimage.morphology", None)
    with pytest.raises(ImportError, match=r"scikit-image.*monai-segloss\[skeleton\]"):
        maps.skeleton_map(bars)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: maps.signed_distance_map(x, mode="signed"), "mode must be one of 'none'.*'signed'"),  # type: ignore[arg-type]
        (lambda x: maps.signed_distance_map(x, empty="one"), "empty must be one of"),  # type: ignore[arg-type]
        (lambda x: maps.signed_distance_map(x, clip=-1.0), "clip"),
        (lambda x: maps.signed_distance_map(x, clip=(1.0, 2.0, 3.0)), "clip"),
        (lambda x: maps.distance_field(x, side="in"), "side"),  # type: ignore[arg-type]
        (lambda x: maps.contour_map(x, width=0), "width"),
        (lambda x: maps.contour_map(x, connectivity="6"), "connectivity"),
        (lambda x: maps.border_weight_map(x, sigma=0.0), "sigma"),
        (lambda x: maps.border_weight_map(x, class_weight=[1.0]), "class_weight.*1 values"),
        (lambda x: maps.border_weight_map(x, class_weight="all"), "class_weight.*'all'"),
        (lambda x: maps.tubed_skeleton_map(x, radius=-1), "radius"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.ones(1, 1, 4, 4))


def test_the_same_by_scipy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, spacing, valid = example((4, 6, 5))
    by_the_best = [maps.signed_distance_map(mask, spacing, valid, mode=mode) for mode in MODES]
    monkeypatch.setattr(distance, "library", lambda: None)
    monkeypatch.setattr(distance, "_transform", lambda: distance.transform_by_scipy)
    for mode, expected in zip(MODES, by_the_best, strict=True):
        torch.testing.assert_close(maps.signed_distance_map(mask, spacing, valid, mode=mode), expected)
