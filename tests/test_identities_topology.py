"""Losses of centerlines: closed forms, and faults of other code that ours do not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from boundary_shapes import READING, box, hard, label, of_masks
from torch import Tensor

import monai_segloss
from monai_segloss.core.reading import Reader
from monai_segloss.kernels.soft_skeleton import _skeleton, soft_skeleton
from monai_segloss.losses.topology.soft_skeletons import Skeletons, axes_of_steps

FOREGROUND = {**READING, "include_background": False}


def skeleton(mask: Tensor, iter_: int = 3, spacing: Any = None, valid: Tensor | None = None) -> Tensor:
    """The soft skeleton of one map (*S)."""
    x = mask.double()[None, None]
    batch = Reader(sigmoid=True).read(x, torch.zeros_like(x), valid, spacing)
    return Skeletons(iter_, spacing is not None)(batch, x)[0, 0]


def line(shape: tuple[int, ...] = (9, 20), row: int = 4) -> Tensor:
    return box(shape, *((row, row + 1) for _ in shape[1:]), (2, shape[-1] - 2))


@pytest.mark.parametrize(("width", "voxels"), [(7, 30), (8, 60), (9, 0), (10, 0)])
def test_a_bar_needs_erosions_for_its_width(width: int, voxels: int) -> None:
    """The skeleton of a bar of 30 voxels after three erosions: empty from a width of nine on."""
    bar = box((20, 30), (5, 5 + width), (0, 30))
    assert skeleton(bar).sum() == voxels
    assert skeleton(bar, 4).sum() > 0


@pytest.mark.parametrize("shape", [(9, 20), (9, 8, 20)])
def test_skeletons_of_simple_shapes(shape: tuple[int, ...]) -> None:
    thin = line(shape)
    assert torch.equal(skeleton(thin), thin.double())
    assert skeleton(torch.ones(shape)).sum() == 0
    soft = box(shape, *((2, 6) for _ in shape))
    torch.testing.assert_close(skeleton(0.3 * soft), 0.3 * skeleton(soft))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("width", [3, 5, 7])
def test_the_center_of_a_cube(width: int, axes: int) -> None:
    cube, half = box((11,) * axes, *((2, 2 + width),) * axes), (width - 1) // 2
    center = (2 + half,) * axes
    assert skeleton(cube, half)[center] == 1
    assert skeleton(cube, half - 1)[center] == 0


def test_the_kernel_has_the_gradient_of_the_definition() -> None:
    """Also where values are equal, and with steps that leave axes out."""
    generator = torch.Generator().manual_seed(0)
    axes = ((2, 3, 4), (2, 4), (4,), (2, 3, 4))
    for kind in (torch.rand, lambda *s, **k: torch.randint(0, 3, *s, **k).double() / 2):
        x, w = (kind((2, 2, 6, 7, 5), generator=generator) for _ in range(2))
        mask = torch.rand(2, 1, 6, 7, 5, generator=generator) > 0.2
        for counted in (None, mask):
            leaves = [x.clone().requires_grad_() for _ in range(2)]
            known = () if counted is None else (counted.expand_as(x),)
            found, expected = soft_skeleton(leaves[0], axes, counted), _skeleton(axes, leaves[1], *known)
            torch.testing.assert_close(found, expected)
            slopes = [
                torch.autograd.grad((w * v).sum(), leaf)[0] for v, leaf in zip((found, expected), leaves, strict=True)
            ]
            torch.testing.assert_close(*slopes)


def test_nothing_but_the_input_is_kept_for_the_gradient() -> None:
    """Other code keeps 448 (three erosions) to 1344 bytes (ten) per voxel and channel."""
    x, kept = torch.rand(1, 2, 12, 12, 12, requires_grad=True), 0

    def count(saved: Tensor) -> Tensor:
        nonlocal kept
        kept += saved.numel() * saved.element_size()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        soft_skeleton(x, ((2, 3, 4),) * 11)
    assert kept == x.numel() * 4


def test_an_axis_of_large_voxels_is_eroded_less_often() -> None:
    x = torch.zeros(1, 1, 4, 9, 9)
    steps = axes_of_steps(5, (3.0, 1.0, 1.0), x)
    assert [step.count(2) for step in steps] == [0, 1, 0, 0, 1, 0]
    assert all(step[-2:] == (3, 4) for step in steps)
    assert axes_of_steps(2, (1.0, 1.0, 1.0), x) == ((2, 3, 4),) * 3
    assert axes_of_steps(2, (9.0, 1.0, 1.0), x[:, :, :1]) == ((3, 4),) * 3, "an axis of one voxel has no steps"
    tube = box((5, 12, 20), (2, 3), (3, 8), (0, 20))  # one slice of 5 mm
    flat, deep = skeleton(tube), skeleton(tube, spacing=(5.0, 1.0, 1.0))
    assert flat.sum() == tube.sum(), "an opening along the thick axis takes all of the slice"
    assert torch.equal(deep, box((5, 12, 20), (2, 3), (5, 6), (0, 20)).double())


def test_ignored_voxels_are_in_no_neighborhood() -> None:
    """What hangs over into ignored voxels has the skeleton of what is left, as at the edge of the image."""
    bar = box((11, 12), (2, 9), (0, 12))
    valid = torch.ones(1, 11, 12, dtype=torch.bool)
    valid[..., 8:] = False
    found = skeleton(bar | (torch.arange(12) > 9), valid=valid)
    assert found[:, 8:].sum() == 0
    assert torch.equal(found[:, :8], skeleton(bar[:, :8]))


@pytest.mark.parametrize("s", [1.0, 0.25])
@pytest.mark.parametrize("a", [0.2, 0.9])
def test_cldice_of_a_faint_line(a: float, s: float) -> None:
    """p = a on the line: the precision is (a n + s) / (a n + s) = 1, the sensitivity (a n + s) / (n + s)."""
    y = line()[None, None].double()
    n, loss = float(y.sum()), monai_segloss.SoftclDiceLoss(smooth_nr=s, smooth_dr=s, smooth=0.0)
    sensitivity = (a * n + s) / (n + s)
    assert loss(a * y, y).item() == pytest.approx(1 - 2 * sensitivity / (1 + sensitivity))


@pytest.mark.parametrize("s", [1.0, 0.25, 0.0])
def test_cldice_of_equal_and_of_disjoint_lines(s: float) -> None:
    one, other = line(row=2), line(row=6)
    n, settings = float(one.sum()), {**FOREGROUND, "smooth_nr": s, "smooth_dr": s, "smooth": 0.0}
    assert of_masks("soft_cldice", one, one, **settings) == pytest.approx(0, abs=1e-12)
    assert of_masks("soft_cldice", one, other, **settings) == pytest.approx(n / (n + s))
    nothing = one & other
    assert s == 0 or of_masks("soft_cldice", nothing, nothing, **settings) == pytest.approx(0, abs=1e-12)


def test_cldice_does_not_see_the_width_but_the_gap() -> None:
    thick, thin = box((15, 30), (5, 10), (2, 28)), box((15, 30), (7, 8), (4, 26))
    gap = thick & ~box((15, 30), (0, 15), (13, 17))
    assert of_masks("soft_cldice", thin, thick, **FOREGROUND) < 0.02
    assert of_masks("soft_cldice", gap, thick, **FOREGROUND) > 0.05
    assert of_masks("dice", gap, thick, **FOREGROUND) < of_masks("dice", thin, thick, **FOREGROUND) / 4


def test_iterations_are_not_ignored() -> None:
    """Code of the authors passes 3 and always takes 10."""
    bar = box((20, 30), (5, 14), (0, 30))
    logits, y = hard(box((20, 30), (2, 8), (0, 30))), label(bar)
    found = {k: monai_segloss.SoftclDiceLoss(**FOREGROUND, iter_=k)(logits, y).item() for k in (4, 10)}
    assert found[4] == found[10], "nothing is left after four"
    with pytest.warns(UserWarning, match="too wide for iter_=3"):
        assert monai_segloss.SoftclDiceLoss(**FOREGROUND)(logits, y).item() != found[10]


@pytest.mark.parametrize("key", ["soft_cldice", "dice_cldice", "cl_ce"])
def test_a_skeleton_worn_away_is_said(key: str) -> None:
    bar = box((20, 30), (5, 14), (0, 30))
    with pytest.warns(UserWarning, match=r"skeleton of a class .* is empty: .* iter_=3"):
        of_masks(key, bar, bar)
    of_masks(key, bar, bar, iter_=4)
    of_masks(key, bar | True, bar | True), of_masks(key, bar & False, bar & False)  # no background, no foreground


def test_the_ends_of_dice_plus_cldice() -> None:
    logits, y = hard(box((15, 30), (4, 8), (2, 28))) / 60, label(box((15, 30), (5, 10), (2, 28)))
    common = {**FOREGROUND, "smooth_nr": 1.0, "smooth_dr": 1.0}
    ends = monai_segloss.DiceLoss(**common)(logits, y), monai_segloss.SoftclDiceLoss(**common, smooth=0.0)(logits, y)
    for alpha, weights in {0.0: (1, 0), 1.0: (0, 1), 0.25: (0.75, 0.25)}.items():
        found = monai_segloss.DiceclDiceLoss(**FOREGROUND, alpha=alpha)(logits, y)
        torch.testing.assert_close(found, weights[0] * ends[0] + weights[1] * ends[1])
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], but reaches 1\.5"):
        monai_segloss.DiceclDiceLoss(alpha=1.5)


def test_cross_entropy_at_the_centerlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 for the right prediction; with a skeleton that is 1 everywhere twice the cross-entropy."""
    y = label(line())
    loss, ce = monai_segloss.ClCELoss(**READING), monai_segloss.CrossEntropyLoss(**READING)
    assert loss(hard(line()), y).item() == pytest.approx(0, abs=1e-12)
    logits = torch.randn(1, 2, 9, 20, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(Skeletons, "__call__", lambda self, batch, x: torch.ones_like(x))
    torch.testing.assert_close(loss(logits, y), 2 * ce(logits, y))


def test_the_mean_of_centerlines_and_its_options() -> None:
    y, logits = label(line()), torch.randn(1, 2, 9, 20, generator=torch.Generator().manual_seed(0)).double()
    ce = torch.nn.functional.cross_entropy(logits, y[:, 0], reduction="none")[0]
    of_g, of_p = skeleton(line()), skeleton(logits.softmax(1)[0, 1])
    found = monai_segloss.ClCELoss(**READING)(logits, y)
    torch.testing.assert_close(found, (ce * of_g).mean() + (ce * of_p).mean())
    found = monai_segloss.ClCELoss(**READING, normalize=True)(logits, y)
    torch.testing.assert_close(found, (ce * of_g).sum() / of_g.sum() + (ce * of_p).sum() / of_p.sum())
    slopes = []
    for detach in (False, True):
        leaf = logits.clone().requires_grad_()
        slopes += torch.autograd.grad(monai_segloss.ClCELoss(**READING, detach=detach)(leaf, y), leaf)
    leaf = logits.clone().requires_grad_()
    frozen = torch.nn.functional.cross_entropy(leaf, y[:, 0], reduction="none")[0] * (of_g + of_p)
    torch.testing.assert_close(slopes[1], torch.autograd.grad(frozen.mean(), leaf)[0])
    assert not torch.allclose(slopes[0], slopes[1])


recall = pytest.mark.skipif(
    pytest.importorskip("importlib.util").find_spec("skimage") is None, reason="scikit-image is not installed"
)


@recall
@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_recall_of_the_tube(a: float) -> None:
    """p = a on the n voxels of the tube: 1 - (a n + s) / (n + s), whatever p is elsewhere."""
    from monai_segloss.maps import tubed_skeleton_map

    y = box((11, 20), (2, 9), (2, 18))[None, None].double()
    tube, s = tubed_skeleton_map(y).bool(), 0.5
    n, loss = float(tube.sum()), monai_segloss.SkeletonRecallLoss(smooth_nr=s, smooth_dr=s)
    for elsewhere in (0.0, 0.7):
        p = torch.where(tube, a, elsewhere).double()
        assert loss(p, y).item() == pytest.approx(1 - (a * n + s) / (n + s))


@recall
@pytest.mark.parametrize(("shape", "voxels"), [((9, 9), 13), ((9, 9, 9), 25)])
def test_the_tube_of_a_voxel_is_a_ball_of_steps(shape: tuple[int, ...], voxels: int) -> None:
    from monai_segloss.kernels.skeletons import skeletons
    from monai_segloss.maps.masks import grow

    point = box(shape, *((4, 5) for _ in shape))[None, None]
    assert torch.equal(skeletons(point), point)
    assert grow(point, 2).sum() == voxels


@recall
def test_an_absent_class_does_not_flatter() -> None:
    """Published code counts it as a perfect one: the mean over two classes, one absent, would be half of the value."""
    y = label(line())
    logits = torch.zeros(1, 3, *y.shape[2:])
    two = monai_segloss.SkeletonRecallLoss(**READING)(logits[:, :2], y)
    three = monai_segloss.SkeletonRecallLoss(**READING)(logits, y)
    assert two.item() == pytest.approx(1 / 2, abs=1e-4)
    assert three.item() == pytest.approx(2 / 3, abs=1e-4)
    leaf = logits.clone().requires_grad_()
    nothing = monai_segloss.SkeletonRecallLoss(**READING)(leaf, 0 * y)
    assert nothing == 0
    assert torch.autograd.grad(nothing, leaf)[0].abs().sum() == 0


@recall
def test_nested_classes_each_have_a_tube() -> None:
    """Of the union, as published, the outer class of a square with a core has none."""
    y = label(box((20, 20), (2, 18), (2, 18)).long() + box((20, 20), (7, 13), (7, 13)).long())
    logits = torch.zeros(1, 3, 20, 20)
    logits[:, 1] = -50
    found = {
        each: monai_segloss.SkeletonRecallLoss(**READING, radius=0, per_class=each)(logits, y) for each in (True, False)
    }
    assert found[True].item() == pytest.approx(0.75, abs=1e-3)
    assert found[False].item() == pytest.approx(0.5, abs=1e-3), "only the core is asked for"


@recall
def test_a_packed_map_holds_all_classes() -> None:
    """One channel, as the workers of nnU-Net send it, or one per class, or those of the foreground."""
    y = label(box((12, 20), (1, 5), (2, 18)).long() + 2 * box((12, 20), (7, 11), (2, 18)).long())
    loss, logits = monai_segloss.SkeletonRecallLoss(**READING), torch.randn(1, 3, 12, 20)
    (spec,) = loss.needs
    masks = torch.cat([y == c for c in (1, 2)], 1)
    each = spec.make(masks)
    for sent in (each, spec.packed(masks, None, None, True), torch.cat((0 * each[:, :1], each), 1)):
        assert torch.equal(loss(logits, y, **{spec.key: sent}), loss(logits, y))
    assert spec.packed(masks, None, None, True).shape[1] == 1


@pytest.mark.parametrize(
    ("key", "arguments", "message"),
    [
        ("soft_cldice", {"iter_": -1}, "iter_"),
        ("soft_cldice", {"iter_": 2.5}, "iter_ must be a whole number"),
        ("cl_ce", {"iter_": 1e6}, "iter_ must be a number, at most 1000"),
        ("skeleton_recall", {"radius": 1.5}, "radius must be a whole number .* radius_mm"),
        ("skeleton_recall", {"radius_mm": -1.0}, "radius_mm"),
    ],
)
def test_wrong_arguments_are_named(key: str, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        monai_segloss.create(key, **arguments)


def cb(predicted: Tensor, truth: Tensor, **arguments: Any) -> float:
    return of_masks("cb_dice", predicted, truth, **arguments)


@pytest.mark.parametrize("s", [1.0, 0.25])
def test_centerline_boundary_dice_of_equal_and_of_disjoint_lines(s: float) -> None:
    one, other = line(row=2), line(row=6)
    n, settings = float(one.sum()), {"smooth_nr": s, "smooth_dr": s}
    assert cb(one, one, **settings) == pytest.approx(0, abs=1e-9)
    assert cb(one, other, **settings) == pytest.approx(n / (n + s))
    nothing = one & other
    assert cb(nothing, nothing, **settings) == pytest.approx(0, abs=1e-12)


def test_a_thin_tube_counts_as_much_as_a_wide_one() -> None:
    """Radii of 1 and 4: depth 1/4 and 1, thinness 1 and 1/4, and so 1/4 for each voxel of both centerlines.

    Where the thin one is all of the prediction, it is as deep as that gets.
    """
    thin, wide = box((21, 24), (2, 3), (2, 22)), box((21, 24), (10, 17), (2, 22))
    line_thin, line_wide, s = float(skeleton(thin, 4).sum()), float(skeleton(wide, 4).sum()), 1.0
    for kept, met, missed in ((wide, line_wide / 4, line_thin / 4), (thin, line_thin, line_wide / 4)):
        sensitivity = (met + s) / (met + missed + s)
        assert cb(kept, thin | wide, iter_=4) == pytest.approx(1 - 2 * sensitivity / (1 + sensitivity))


def test_nothing_is_better_than_a_perfect_prediction() -> None:
    """Published code divides by the prediction's own depth: faint beside the centerline it falls below -1, its best."""
    truth = box((15, 30), (4, 11), (2, 28))
    y = label(truth)
    loss = monai_segloss.CbDiceLoss(**READING)
    assert loss(hard(truth), y).item() == pytest.approx(0, abs=1e-9)
    for shift in range(-4, 5):
        for width in (1, 3, 5):
            middle = 7 + shift
            part = box((15, 30), (max(0, middle - width // 2), min(15, middle + width // 2 + 1)), (2, 28))
            for sure in (0.1, 1.0, 80.0):
                assert loss(hard(part) / 80 * sure, y).item() >= -1e-9


def test_classes_are_scored_one_by_one() -> None:
    """Published code merges them before the softmax: swapped labels are a perfect prediction there."""
    y = label(box((12, 20), (1, 4), (2, 18)).long() + 2 * box((12, 20), (7, 10), (2, 18)).long())
    hot = torch.nn.functional.one_hot(y[:, 0], 3).movedim(-1, 1).double()
    loss = monai_segloss.CbDiceLoss(**READING)
    assert loss(80 * hot, y).item() == pytest.approx(0, abs=1e-9)
    assert loss(80 * hot[:, [0, 2, 1]], y).item() > 0.9


def test_radii_in_mm() -> None:
    """A tube of one slice of 5 mm: in voxels the slice is as wide as its neighborhood, in mm wider than the tube."""
    tube = box((5, 12, 20), (2, 3), (3, 8), (0, 20))
    shifted = tube.roll(1, 1)
    logits, y = hard(shifted), label(tube)
    found = {
        use: monai_segloss.CbDiceLoss(**READING, use_spacing=use)(logits, y, spacing=(5.0, 1.0, 1.0)).item()
        for use in (True, False)
    }
    assert found[True] != pytest.approx(found[False], abs=1e-2)
    thin = monai_segloss.CbDiceLoss(**READING)(hard(shifted[2]), label(tube[2])).item()
    assert found[True] == pytest.approx(thin), "all of it is in the slice"
