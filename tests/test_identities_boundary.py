"""Losses of distance maps: closed forms and identities of the catalog, parity with MONAI, faults of other code."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import monai.losses
import numpy as np
import pytest
import torch
from boundary_shapes import READING, SURE, WIDTH, blobs, of, shifted_half_space, turned_flipped_and_copied
from monai.data import MetaTensor
from torch import Tensor

import monai_segloss
from monai_segloss.losses.boundary.distances import signed_distance
from nnunet_trainers.deep_supervision import NnUNetLoss

STEPS = [(1.0, 1.0), (0.5, 2.0), (3.0, 1.0, 0.3)]


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_t1_boundary_of_a_shifted_half_space(axis: int, steps: tuple[float, ...]) -> None:
    s, s0 = steps[axis], min(steps)
    for t in range(1, 6):
        for mode, sign, expected in [
            ("surface", 1, s * t * t / 2),
            ("surface", -1, s * t * t / 2),
            ("none", 1, s * t * (t + 1) / 2),
            ("none", -1, s * t * (t + 1) / 2),
            ("kervadec", 1, s * t * (t + 1) / 2),
            ("kervadec", -1, s * t * (t + 1) / 2 - s0 * t),
            ("inner", -1, s * t * (t - 1) / 2),
            ("maurer", -1, s * t * (t - 1) / 2),
        ]:
            logits, labels = shifted_half_space(axis, sign * t, steps)
            found = of("boundary", logits, labels, steps, mode=mode, offset=True, include_background=False)
            assert found == pytest.approx(expected / WIDTH, rel=1e-5), (mode, sign, t)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_t2_hausdorff_of_a_shifted_half_space(axis: int, alpha: float) -> None:
    steps = (3.0, 0.5)
    s = steps[axis]
    for t in (1, 3, -2):
        logits, labels = shifted_half_space(axis, t, steps)
        one = s**alpha * sum(k**alpha for k in range(1, abs(t) + 1)) / WIDTH
        found = of("hausdorff_dt", logits, labels, steps, alpha=alpha)
        assert found == pytest.approx(2 * one, rel=1e-5)
        assert of("hausdorff_dt", logits, labels, steps, alpha=alpha, one_sided=True) == pytest.approx(one, rel=1e-5)
        assert of("log_hausdorff_dt", logits, labels, steps, alpha=alpha) == pytest.approx(
            math.log1p(2 * one), rel=1e-5
        )


def test_t3_turning_the_axes_turns_the_spacing() -> None:
    """The ratio of the spacings, to the power of alpha: an ignored or permuted spacing shows."""
    steps = (3.0, 0.5)
    for key, power in (("boundary", 1.0), ("hausdorff_dt", 2.0)):
        more = {"offset": True, "mode": "surface"} if key == "boundary" else {}
        along = [of(key, *shifted_half_space(axis, 3, steps), steps, **more) for axis in (0, 1)]
        assert along[0] / along[1] == pytest.approx((steps[0] / steps[1]) ** power, rel=1e-5)


KEYS = ("boundary", "hausdorff_dt", "log_hausdorff_dt")


@pytest.mark.parametrize("key", KEYS)
def test_t7_axes_flips_and_copies(key: str) -> None:
    expected, found = turned_flipped_and_copied(key)
    assert found == pytest.approx([expected] * 3, rel=1e-9)


def test_t7_moving_an_object_that_is_away_from_the_border() -> None:
    logits, labels = torch.full((1, 2, 16, 16), -SURE), torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    labels[..., 4:8, 5:8], logits[:, 1, 4:9, 4:8] = 1, SURE
    logits[:, 0] = -logits[:, 1]
    for key in ("hausdorff_dt", "log_hausdorff_dt"):
        before = of(key, logits, labels, (2.0, 1.0))
        after = of(key, logits.roll((3, 2), (2, 3)), labels.roll((3, 2), (2, 3)), (2.0, 1.0))
        assert before == pytest.approx(after, rel=1e-6)


def test_t8_scaling_the_spacing() -> None:
    logits, labels = blobs()
    steps, more = (3.0, 1.0, 0.5), tuple(2.5 * s for s in (3.0, 1.0, 0.5))
    for key, arguments, factor in [
        ("boundary", {}, 2.5),
        ("boundary", {"mode": "surface"}, 2.5),
        ("boundary", {"normalize": True}, 1.0),
        ("hausdorff_dt", {}, 2.5**2),
        ("hausdorff_dt", {"alpha": 1.0}, 2.5),
    ]:
        before, after = (of(key, logits, labels, x, **arguments) for x in (steps, more))
        assert after == pytest.approx(factor * before, rel=1e-5), (key, arguments)
    assert of("boundary", logits, labels, more, mode="literal") != pytest.approx(
        2.5 * of("boundary", logits, labels, steps, mode="literal"), rel=1e-3
    )


def test_t9_two_classes_with_and_without_background() -> None:
    logits, labels = blobs(classes=2)
    for key in ("hausdorff_dt", "log_hausdorff_dt"):
        with_it, without = (of(key, logits, labels, (2.0, 1.0, 1.0), include_background=x) for x in (True, False))
        assert with_it == pytest.approx(without, rel=1e-6)


SHAPES = {"all background": (), "one voxel": ((4, 5),), "line at the border": ((0, slice(None)),), "full": ((...,),)}


@pytest.mark.parametrize("where", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("key", KEYS)
def test_t10_thin_empty_and_full_objects_are_finite(key: str, where: Any) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        for size in (1.0, 1e4):
            logits = (size * torch.randn(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))).to(dtype)
            labels = torch.zeros(1, 1, 8, 9, dtype=torch.int64)
            for index in where:
                labels[(0, 0, *index)] = 1
            leaf = logits.clamp(-6e4, 6e4).requires_grad_()
            arguments = (
                [{}, {"mode": "surface"}, {"normalize": True}, {"empty": "diagonal"}] if key == "boundary" else [{}]
            )
            for more in arguments:
                value = monai_segloss.create(key, **READING, **more)(leaf, labels, spacing=(0.3, 8.0))
                value.backward()
                assert value.isfinite()
                assert leaf.grad is not None
                assert leaf.grad.isfinite().all()


def test_t11_further_is_worse() -> None:
    for arguments in ({"mode": "surface", "offset": True}, {}):
        key = "boundary" if arguments else "hausdorff_dt"
        more = arguments or {"one_sided": True}
        for sign in (1, -1):
            values = [of(key, *shifted_half_space(0, sign * t, (1.0, 1.0)), (1.0, 1.0), **more) for t in range(6)]
            assert values == sorted(values)
            assert len(set(values)) == 6


def far_false_positives(**arguments: Any) -> list[float]:
    """A 5 x 30 image with an object at the left and one voxel too many, further and further to the right."""
    labels = torch.zeros(1, 1, 5, 30, dtype=torch.int64)
    labels[..., 1:4, 2:6] = 1
    found = []
    for column in (8, 14, 20, 26):
        logits = SURE * (2.0 * labels.double() - 1)
        logits[..., 2, column] = SURE
        found.append(of(arguments["key"], torch.cat([-logits, logits], 1), labels, (1.0, 1.0), **arguments["more"]))
    return found


def test_t11_a_false_positive_far_away_weighs_more() -> None:
    one_sided = far_false_positives(key="hausdorff_dt", more={"one_sided": True})
    assert one_sided == pytest.approx([9 / 150, 81 / 150, 225 / 150, 441 / 150], rel=1e-6)
    boundary = far_false_positives(key="boundary", more={"offset": True, "include_background": False})
    assert boundary == pytest.approx([3 / 150, 9 / 150, 15 / 150, 21 / 150], rel=1e-6)


def test_inside_only_maps_do_not_see_how_far() -> None:
    """The variant of several popular codes, kept for comparison."""
    inside = {"field": "inside"}
    assert far_false_positives(key="hausdorff_dt", more={**inside, "one_sided": True}) == [0.0] * 4
    assert far_false_positives(key="hausdorff_dt", more=inside) == pytest.approx([1 / 150] * 4)


# -- parity ---------------------------------------------------------------------------------------------------------

PEERS = {
    "boundary": monai.losses.BoundaryLoss,
    "hausdorff_dt": monai.losses.HausdorffDTLoss,
    "log_hausdorff_dt": monai.losses.LogHausdorffDTLoss,
}


@pytest.mark.parametrize("shape", [(9, 8), (5, 6, 7)], ids=str)
@pytest.mark.parametrize("key", KEYS)
def test_t12_monai_at_unit_spacing(key: str, shape: tuple[int, ...]) -> None:
    """Float one-hot; value, gradient and reductions, with and without background, one channel and regions too."""
    logits, labels = blobs(shape=shape)
    hot = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1).float()
    hot[1, 2] = 0
    for arguments in (
        {"softmax": True},
        {"softmax": True, "include_background": True},
        {"softmax": True, "include_background": False, "batch": True},
        {"sigmoid": True, "reduction": "sum"},
        {"softmax": True, "reduction": "none"},
    ):
        leaves = [logits.float().requires_grad_() for _ in range(2)]
        theirs = PEERS[key](**arguments)(leaves[0], hot)
        ours = monai_segloss.create(key, **arguments)(leaves[1], hot)
        torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=1e-5, atol=1e-7)
        slopes = [torch.autograd.grad(x.sum(), leaf)[0] for x, leaf in zip((theirs, ours), leaves, strict=True)]
        torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-8)


def test_t12_the_arguments_are_monais_in_their_order() -> None:
    logits, labels = blobs()
    for key, given in (("boundary", (False, True, False, True)), ("hausdorff_dt", (3.0, True, True, False, True))):
        theirs = PEERS[key](*given)(logits, labels)
        ours = monai_segloss.find(key).cls(*given)(logits, labels)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7, check_dtype=False)


# -- faults of other code -------------------------------------------------------------------------------------------


def test_the_type_of_the_target_does_not_matter() -> None:
    """MONAI's Hausdorff loss cuts the distances of an integer target to whole numbers."""
    logits, labels = blobs(shape=(16, 16))
    hot = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1)
    peer, ours = PEERS["hausdorff_dt"](softmax=True), monai_segloss.create("hausdorff_dt", softmax=True)
    assert float(peer(logits, hot)) < 0.99 * float(peer(logits, hot.double()))
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.float64):
        assert float(ours(logits, hot.to(dtype))) == pytest.approx(float(peer(logits, hot.double())), rel=1e-6)


def test_the_benchmark_compares_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent))
    from benchmarks.distance import WANTED, agree, races

    found = races(16, 16)
    assert set(found) == set(WANTED)
    for name, racers in found.items():
        agree(name, racers)


def test_maps_of_integers_are_refused() -> None:
    logits, labels = blobs()
    loss = monai_segloss.create("boundary", **READING)
    phi = signed_distance().make(torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1).bool(), None, None)
    loss(logits, labels, sdm=phi)
    with pytest.raises(TypeError, match=r"sdm must be floating point.*int64"):
        loss(logits, labels, sdm=phi.long())
    for wrong in (phi[:, 1:], phi[:1], phi[:, :, 1:], phi[:, :1]):
        with pytest.raises(ValueError, match=r"sdm has shape"):
            loss(logits, labels, sdm=wrong)
    scored = monai_segloss.create("boundary", include_background=False, **READING)
    assert scored(logits, labels, sdm=phi[:, 1:]) == scored(logits, labels, sdm=phi)
    with pytest.raises(ValueError, match="sdm is on meta"):
        loss(logits, labels, sdm=phi.to("meta"))


def test_spacing_below_a_millimeter_keeps_the_sign() -> None:
    """The right prediction is the best one in mm too; with the published offset of 1 it is not."""
    labels = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    labels[..., 3:5, 2:6] = 1
    right = SURE * (2.0 * labels.double() - 1)
    nothing = torch.full_like(right, -SURE)
    for mode, better in (("kervadec", True), ("surface", True), ("inner", True), ("literal", False)):
        values = [
            of("boundary", torch.cat([-x, x], 1), labels, (0.4, 0.4), mode=mode, include_background=False)
            for x in (right, nothing)
        ]
        assert (values[0] <= values[1] + 1e-12) is better, mode


def test_an_empty_and_a_full_class_have_no_boundary() -> None:
    """SciPy measures to voxel -1 where a mask is full; code that asks it trains on that."""
    logits = torch.randn(2, 2, 6, 7, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.stack([torch.zeros(1, 6, 7), torch.ones(1, 6, 7)]).long()
    for mode in ("none", "kervadec", "literal", "inner", "maurer", "surface", "swdm"):
        assert of("boundary", logits, labels, (2.0, 0.3), mode=mode) == 0
    diagonal = math.hypot(6 * 2.0, 7 * 0.3)
    p = logits.softmax(1)
    expected = diagonal * float((p[0, 1].mean() + p[1, 0].mean()) / 4)
    assert of("boundary", logits, labels, (2.0, 0.3), empty="diagonal") == pytest.approx(expected, rel=1e-6)


def test_an_ignored_region_makes_no_boundary() -> None:
    """Nothing changes where an ignored hole is deep inside of the class, but for the voxels themselves."""
    labels = torch.zeros(1, 1, 24, dtype=torch.int64)
    labels[..., 8:] = 1
    hole = labels.clone()
    hole[..., 18:21] = 255
    logits = torch.randn(1, 2, 24, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    for key in KEYS:
        arguments = {"one_sided": True, "include_background": True} if "dt" in key else {}
        (whole,) = torch.autograd.grad(
            monai_segloss.create(key, **READING, **arguments)(logits, labels, spacing=(1.0,)), logits
        )
        (found,) = torch.autograd.grad(
            monai_segloss.create(key, **READING, ignore_index=255, **arguments)(logits, hole, spacing=(1.0,)), logits
        )
        assert not found[..., 18:21].any()
        kept = torch.cat([torch.arange(18), torch.arange(21, 24)])
        ratio = found[..., kept] / whole[..., kept]
        ratio = ratio[whole[..., kept].abs() > 1e-12]
        assert ratio.max() / ratio.min() == pytest.approx(1, rel=1e-9), key


def test_deep_supervision_measures_at_every_scale() -> None:
    """Each scale has its own labels and its own spacing; a list of one map for three scales would stop after the first."""
    logits, labels = blobs(shape=(8, 8, 8))
    spacings, weights = [(1.0, 1.0, 2.0), (2.0, 2.0, 4.0), (4.0, 4.0, 8.0)], [4 / 7, 2 / 7, 1 / 7]
    every = [1, 2, 4]
    outputs, targets = ([x[:, :, ::k, ::k, ::k] for k in every] for x in (logits, labels))
    loss = monai_segloss.create("boundary", **READING)
    wrapped = NnUNetLoss(loss, spacings, weights)
    parts = [loss(o, t, spacing=s) for o, t, s in zip(outputs, targets, spacings, strict=True)]
    expected = sum(w * x for w, x in zip(weights, parts, strict=True))
    torch.testing.assert_close(wrapped(outputs, targets), expected)
    assert all(x != 0 for x in parts)
    with pytest.raises(ValueError, match="3 scales"):
        wrapped(outputs, targets[:1])


def test_a_voxel_of_no_class_has_one_with_argmax() -> None:
    logits = torch.tensor([0.4, 0.3, 0.3]).log().view(1, 3, 1).expand(1, 3, 6).clone().double()
    logits[..., 3:] = torch.tensor([0.3, 0.4, 0.3]).log().view(1, 3, 1).double()
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1]]])
    target_only = of("hausdorff_dt", logits, labels, (1.0,), one_sided=True)
    assert of("hausdorff_dt", logits, labels, (1.0,)) == target_only, "no probability is above 1/2"
    assert of("hausdorff_dt", logits, labels, (1.0,), binarize="argmax") > target_only
    with pytest.raises(ValueError, match="binarize='argmax'"):
        monai_segloss.create("hausdorff_dt", sigmoid=True, binarize="argmax")


def test_only_the_error_carries_a_gradient() -> None:
    """The distances are constants: the gradient of the Hausdorff loss is that with the fields of this prediction."""
    logits, labels = blobs()
    leaf = logits.clone().requires_grad_()
    loss = monai_segloss.create("hausdorff_dt", include_background=True, **READING)
    (slope,) = torch.autograd.grad(loss(leaf, labels, spacing=(1.0, 1.0, 1.0)), leaf)
    hot = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1).double()
    fields = [loss.form.field.make(m, None, None).double() ** 2 for m in (hot > 0.5, leaf.softmax(1) > 0.5)]
    (by_hand,) = torch.autograd.grad(((leaf.softmax(1) - hot) ** 2 * sum(fields)).mean(), leaf)
    torch.testing.assert_close(slope, by_hand)


# -- spacing --------------------------------------------------------------------------------------------------------


def affines(*steps: tuple[float, ...]) -> Tensor:
    return torch.stack([torch.diag(torch.tensor([*s, 1.0])) for s in steps])


@pytest.mark.parametrize("key", KEYS)
def test_the_spacing_of_the_metadata(key: str) -> None:
    """The argument, else each sample's spacing from target or input, else 1 and a warning."""
    logits, labels = blobs()
    loss = monai_segloss.create(key, **READING)
    rows = [(3.0, 1.0, 0.5), (1.0, 1.0, 2.0)]
    expected = loss(logits, labels, spacing=rows)
    meta = MetaTensor(labels, affine=affines(*rows))
    for input, target in (
        (logits, meta),
        (MetaTensor(logits, affine=affines(*rows)), labels),
        (MetaTensor(logits, affine=affines(rows[1], rows[1])), meta),
        (logits, {"label": meta}),
    ):
        assert loss(input, target) == expected
        assert type(loss(input, target)) is Tensor
    assert loss(logits, meta, spacing=(1.0, 1.0, 1.0)) == loss(logits, labels, spacing=(1.0, 1.0, 1.0))
    with pytest.warns(UserWarning, match="no voxel spacing came"):
        assert loss(logits, labels) == loss(logits, labels, spacing=(1.0, 1.0, 1.0))


def test_losses_that_measure_nothing_do_not_ask_for_a_spacing() -> None:
    logits, labels = blobs()
    flat = torch.zeros(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of("dice", logits, labels)
        of("dice", logits, MetaTensor(labels, affine=flat))


def test_a_compiled_loss_with_spacing() -> None:
    logits, labels = blobs()
    for key in KEYS:
        loss = monai_segloss.create(key, **READING)
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        for spacing in ((3.0, 1.0, 0.5), torch.tensor([[3.0, 1.0, 0.5], [1.0, 1.0, 2.0]])):
            torch.testing.assert_close(compiled(logits, labels, spacing=spacing), loss(logits, labels, spacing=spacing))


def test_terms_of_a_sum_share_a_declared_map() -> None:
    terms = {"boundary": 1.0, "dice": 1.0}
    total = monai_segloss.WeightedSum(terms, **READING)
    assert [spec.key for spec in total.needs] == ["sdm"]
    assert total.needs == monai_segloss.create("boundary").needs
    logits, labels = blobs()
    expected = of("boundary", logits, labels, (1.0, 1.0, 1.0)) + of("dice", logits, labels)
    assert float(total(logits, labels, spacing=(1.0, 1.0, 1.0))) == pytest.approx(expected)
    np.testing.assert_allclose(float(total.last["boundary"]), of("boundary", logits, labels, (1.0, 1.0, 1.0)))
