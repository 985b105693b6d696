"""Losses of persistent homology: closed forms, and faults of other code that ours do not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from boundary_shapes import box, hard, label
from torch import Tensor

import monai_segloss
from monai_segloss.core import packages
from monai_segloss.engine.deep_supervision import DeepSupervision
from monai_segloss.kernels.persistence import betti_numbers, persistence_pairs
from monai_segloss.losses.topology import persistence
from nnunet_trainers.deep_supervision import NnUNetLoss

READING = {"softmax": True, "to_onehot_y": True}
RING = box((9, 11), (2, 7), (3, 8)) & ~box((9, 11), (4, 5), (5, 6))
DISC = box((9, 11), (2, 7), (3, 8))
TWO = box((9, 11), (1, 4), (1, 4)) | box((9, 11), (6, 8), (7, 10))
NONE = torch.zeros(9, 11, dtype=torch.bool)


def maps(*masks: Tensor) -> Tensor:
    return torch.stack(masks)[None].double()


def matching(p: Tensor, g: Tensor, **arguments: Any) -> float:
    return monai_segloss.PersistenceMatchingLoss(**arguments)(p, g).item()


def prior(mask: Tensor, betti: Any, **arguments: Any) -> float:
    p = maps(mask)
    return monai_segloss.BettiPriorLoss(betti=betti, **arguments)(p, p).item()


@pytest.mark.parametrize(
    ("mask", "betti", "expected"),
    [(RING, (1, 1), 0), (DISC, (1, 1), 1), (TWO, (1,), 1), (NONE, (1,), 1), (TWO, (0,), 2)],
)
@pytest.mark.parametrize("squared", [True, False])
def test_masks_of_other_numbers_of_features(
    mask: Tensor, betti: tuple[int, ...], expected: float, squared: bool
) -> None:
    assert prior(mask, betti, squared=squared) == expected


@pytest.mark.parametrize(("squared", "power"), [(True, 2), (False, 1)])
def test_a_faint_ring_is_a_faint_hole(squared: bool, power: int) -> None:
    """Of a disc of 1 with a middle of 0.4 the hole has the persistence 0.6, and so has the missing one 0.4."""
    p = maps(DISC)
    p[..., 4, 5] = 0.4
    for holes, expected in ((1, 1 - 0.6**power), (0, 0.6**power), (2, 1 - 0.6**power + 1)):
        loss = monai_segloss.BettiPriorLoss(betti=(1, holes), squared=squared)
        assert loss(p, p).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("mask", "betti", "expected"),
    [
        (TWO, ([1, 2],), 0), (TWO, ([2, 9],), 0), (TWO, ([0, 1],), 1), (TWO, ([3, 4],), 1), (TWO, ([5, None],), 3),
        (TWO, ([None, 0],), 2), (NONE, ([1, 2],), 1), (NONE, ([0, 2],), 0), (RING, (1, [0, 1]), 0), (DISC, (1, [0, 1]), 0),
        (RING, (1, [0, None]), 0), (RING, (1, [2, 3]), 1), (RING, ([1, 2], 0), 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("squared", [True, False])
def test_numbers_between_bounds_are_free(mask: Tensor, betti: Any, expected: float, squared: bool) -> None:
    assert prior(mask, betti, squared=squared) == expected


@pytest.mark.parametrize(("squared", "power"), [(True, 2), (False, 1)])
def test_two_faint_components_by_hand(squared: bool, power: int) -> None:
    """Of 0.9 and 0.6: up to the lower bound 1 - Delta, beyond the upper one Delta, between them nothing."""
    p = maps(0.9 * (TWO & box((9, 11), (0, 5), (0, 11))) + 0.6 * (TWO & box((9, 11), (5, 9), (0, 11))))
    one, two = 0.9**power, 0.6**power
    for bounds, expected in (
        ([0, 0], one + two),
        ([0, 1], two),
        ([0, 2], 0),
        ([1, 1], 1 - one + two),
        ([1, 2], 1 - one),
        ([2, 5], 1 - one + 1 - two),
        ([4, 5], 1 - one + 1 - two + 2),
    ):
        leaf = p.clone().requires_grad_()
        value = monai_segloss.BettiPriorLoss(betti=(bounds,), squared=squared)(leaf, p)
        assert value.item() == pytest.approx(expected), bounds
        slopes = torch.autograd.grad(value, leaf)[0][p > 0]  # not of the voxel at which the two meet
        signs = [-1 if i < bounds[0] else 1 if i >= bounds[1] else 0 for i in range(2)]
        raw = [sign * (power * x ** (power - 1)) for sign, x in zip(signs, (0.9, 0.6), strict=True)]
        assert sorted(slopes[slopes != 0].tolist()) == pytest.approx(sorted(x for x in raw if x))


@pytest.mark.parametrize("axes", [2, 3])
def test_equal_bounds_are_a_number(axes: int) -> None:
    z = torch.randn(2, 3, *(7, 6, 5)[:axes], generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    y = torch.zeros(2, 1, *z.shape[2:], dtype=torch.long)
    for number, pair in (
        ((2, 1), ([2, 2], [1, 1])),
        ({"1+2": (1,), "1": (3, 2)}, {"1+2": ([1, 1],), "1": ([3, 3], 2)}),
    ):
        one, other = (monai_segloss.BettiPriorLoss(betti=betti, **READING)(z, y) for betti in (number, pair))
        assert one.item() == other.item() > 0
        slopes = [torch.autograd.grad(value, z)[0] for value in (one, other)]
        assert torch.equal(*slopes)
        assert slopes[0].any()


def test_numbers_of_each_sample_come_with_the_call() -> None:
    """The keyword comes before the argument; what is not whole is rounded outwards."""
    p = torch.cat([maps(TWO), maps(RING)])
    loss = monai_segloss.BettiPriorLoss(betti=(7,), reduction="none")
    right = torch.tensor([[[[2.0, 2.0], [0.0, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    assert not loss(p, p, bounds=right).any()
    assert loss(p, p, bounds=right.flip(0)).flatten().tolist() == [2, 2]
    assert loss(p, p, bounds=torch.tensor([[0.6, 1.2]] * 2)).flatten().tolist() == [0, 0], "0 to 2"
    with pytest.raises(ValueError, match=r"bounds has shape \(2, 3, 2\); with 1 scored classes expected"):
        loss(p, p, bounds=torch.zeros(2, 3, 2))


def test_the_numbers_are_of_whole_cases() -> None:
    assert monai_segloss.BettiPriorLoss().whole_cases
    assert not monai_segloss.BettiPriorLoss(on_patches=True).whole_cases


def test_unions_have_numbers_of_their_own() -> None:
    """A ring and its middle: each is one piece, only the ring has a hole, and their union has none."""
    y = label(RING.long() + 2 * (DISC & ~RING).long())
    logits = 80 * (torch.nn.functional.one_hot(y[:, 0], 3).movedim(-1, 1) - 0.5).double()
    right = {"1": (1, 1), "2": (1,), "1+2": (1,), (0, 1): (1, 1)}
    for key, numbers in right.items():
        wrong = {**right, key: (numbers[0] + 1, *numbers[1:])}
        for betti, expected in ((right, 0), (wrong, 1 / 4)):
            assert monai_segloss.BettiPriorLoss(**READING, betti=betti)(logits, y).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("betti", "reading", "message"),
    [
        ("1", READING, "betti: there is no file '1'"),
        (7, READING, "betti must be numbers"),
        ((1, 0, 0, 0), READING, "betti must be"),
        ((-1,), READING, "betti must be"),
        ((1.5,), READING, "betti must be"),
        (([2, 1],), READING, r"each a number or \[lower, upper\].*got \(\[2, 1\],\)"),
        (([1, 2, 3],), READING, "betti must be"),
        (([0, 1.5],), READING, "betti must be"),
        (("12",), READING, "betti must be"),
        ({}, READING, "betti must be"),
        ({"one": (1,)}, READING, "got the key 'one'"),
        ({"1+1": (1,)}, READING, "got the key"),
        ({"1": (1,), 1: (1,)}, READING, "each once"),
        ({"3": (1,)}, READING, "names the class 3, but input has 3 channels"),
        ((1, 0, 1), READING, "axes has no cavities"),
        ((1, 0, [0, None]), READING, "asks for cavities, but an image of 2 axes has no cavities"),
        ({"0+1": (1,)}, {"sigmoid": True, "to_onehot_y": True}, r"union 0\+1.*sigmoid"),
    ],
)
def test_a_wrong_prior_is_named(betti: Any, reading: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        monai_segloss.BettiPriorLoss(**reading, betti=betti)(torch.zeros(1, 3, 6, 6), torch.zeros(1, 1, 6, 6))


@pytest.mark.parametrize("axes", [2, 3])
def test_betti_numbers_are_those_of_the_diagram(axes: int) -> None:
    """Counted by components and Euler's formula, and by gudhi as the features from 1 to 0; corners connect."""
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.random((12, *(7, 6, 5)[:axes])) < np.linspace(0.05, 0.95, 12).reshape(-1, *[1] * axes))
    masks[0] = False
    pairs = persistence_pairs(masks.float())
    expected = torch.zeros(12, 3, dtype=torch.int64)
    for i, dimension, _, birth, _ in pairs.tolist():
        expected[i, dimension] += int(masks[i].flatten()[birth])
    assert torch.equal(betti_numbers(masks), expected)
    assert expected[:, : axes - 1].max() > 1
    assert betti_numbers(torch.ones(1, 5, 5, 5)).tolist() == [[1, 0, 0]]
    cavity = torch.ones(1, 5, 5, 5)
    cavity[:, 2, 2, 2] = 0
    assert betti_numbers(cavity).tolist() == [[1, 0, 1]]
    cavity[:, :, 2, 2] = 0
    assert betti_numbers(cavity).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("a", [0.1, 0.6, 1.0])
def test_components_of_any_height(a: float) -> None:
    """One wanted costs (1 - a)^2, one too many a^2 / 2, one that is missing 1/2; the one that stays counts like others."""
    p, one = a * maps(TWO), TWO & box((9, 11), (0, 5), (0, 11))
    assert matching(a * maps(one), maps(one)) == pytest.approx((1 - a) ** 2)
    assert matching(p, maps(TWO)) == pytest.approx(2 * (1 - a) ** 2)
    assert matching(p, maps(one)) == pytest.approx((1 - a) ** 2 + a**2 / 2)
    assert matching(a * maps(one), maps(TWO)) == pytest.approx((1 - a) ** 2 + 1 / 2)


def test_false_components_are_not_free_where_the_target_is_empty() -> None:
    """Published code skips such patches."""
    assert matching(0.8 * maps(TWO), maps(NONE)) == pytest.approx(0.8**2)
    assert matching(maps(NONE), maps(NONE)) == 0


def test_holes_are_matched_too() -> None:
    """Published code matches components only, for which a ring and a disc are the same."""
    assert matching(maps(DISC), maps(RING)) == pytest.approx(1 / 2)
    assert matching(maps(RING), maps(DISC)) == pytest.approx(1 / 2)
    assert matching(maps(DISC), maps(RING), dimensions=(0,)) == 0
    assert matching(maps(DISC), maps(RING), dimensions=[1]) == pytest.approx(1 / 2)


def test_a_perfect_prediction_costs_nothing_whatever_its_logits() -> None:
    """Published code takes births from probabilities and squares of logits: 16 for one of 5."""
    loss = monai_segloss.PersistenceMatchingLoss(**READING)
    for sure in (5.0, 40.0):
        assert loss(hard(RING) / 40 * sure, label(RING)).item() == pytest.approx(0, abs=1e-3)


def test_a_voxel_that_ends_two_features_has_the_gradient_of_both() -> None:
    """Published code keeps the last one."""
    p = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    p[0, 0, 3, 3], p[0, 0, 3, 5], p[0, 0, 5, 4], p[0, 0, 4, 4] = 0.9, 0.8, 0.7, 0.3
    leaf = p.clone().requires_grad_()
    value = monai_segloss.PersistenceMatchingLoss()(leaf, torch.zeros_like(p))
    assert value.item() == pytest.approx((0.9**2 + 0.5**2 + 0.4**2) / 2)
    (slope,) = torch.autograd.grad(value, leaf)
    assert slope[0, 0, 4, 4].item() == pytest.approx(-(0.5 + 0.4))


def test_voxels_of_images_that_are_no_squares() -> None:
    """gudhi counts them in Fortran order, by which published code scrambles the last tiles of an image."""
    p = torch.zeros(1, 1, 3, 7, 5, dtype=torch.float64)
    p[0, 0, 1, 5, 2], p[0, 0, 2, 0, 4] = 0.9, 0.5
    leaf = p.clone().requires_grad_()
    (slope,) = torch.autograd.grad(monai_segloss.PersistenceMatchingLoss()(leaf, torch.zeros_like(p)), leaf)
    torch.testing.assert_close(slope[p > 0], p[p > 0])


def test_tiles_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    p, g = torch.rand(2, 1, 7, 10, generator=generator).double(), torch.rand(2, 1, 7, 10, generator=generator) < 0.5
    parts = [(slice(a, a + 4), slice(b, b + 4)) for a in (0, 4) for b in (0, 4, 8)]
    expected = sum(matching(p[(..., *part)], g[(..., *part)]) for part in parts)
    assert matching(p, g, patch_size=4) == pytest.approx(expected)
    assert matching(p, g) != pytest.approx(expected)


@pytest.mark.parametrize("key", ["persistence_matching", "betti_prior"])
def test_every_third_step(key: str) -> None:
    """Value and gradient are as large on average; evaluation takes every call, and a restored run goes on where it was."""
    p, y = 0.6 * maps(TWO).float(), maps(RING).float()
    always, third = monai_segloss.create(key), monai_segloss.create(key, every=3)
    values = [third(p.requires_grad_(), y).item() for _ in range(4)]
    full = always(p, y).item()
    assert values == pytest.approx([3 * full, 0, 0, 3 * full])
    again = monai_segloss.create(key, every=3)
    again.load_state_dict(third.state_dict())
    assert [again(p, y).item() for _ in range(3)] == pytest.approx([0, 0, 3 * full])
    with torch.no_grad():
        assert again(p, y).item() == pytest.approx(full)
    assert again.eval()(p, y).item() == pytest.approx(full)
    assert [again.train()(p, y).item() for _ in range(3)] == pytest.approx([0, 0, 3 * full])


def test_steps_left_out_compute_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y = 0.6 * maps(TWO).float().requires_grad_(), maps(RING).float()
    loss = monai_segloss.PersistenceMatchingLoss(every=2)
    found = loss(p, y)

    def fail() -> None:
        raise AssertionError("persistence is computed")

    monkeypatch.setattr("monai_segloss.kernels.persistence.complexes", fail)
    left_out = loss(p, y)
    assert left_out == 0
    assert not torch.autograd.grad(left_out, p)[0].any()
    assert found > 0
    assert monai_segloss.PersistenceMatchingLoss()(p, y, full_resolution=False) == 0
    with pytest.raises(AssertionError, match="is computed"):
        loss(p, y)


def test_warm_up_is_that_of_the_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it begins the term is not evaluated."""
    weight = {"schedule": "warm_up", "value": 0.005, "epochs": 0, "begin": 2}
    loss = monai_segloss.WeightedSum({"dice": 1, "persistence_matching": {"weight": weight}}, **READING)
    logits, y = hard(TWO), label(RING)
    assert loss(logits, y) == monai_segloss.create("dice", **READING)(logits, y)
    assert loss.last.keys() == {"dice"}
    loss.set_epoch(2)
    loss(logits, y)
    assert loss.last["persistence_matching"] > 0


@pytest.mark.parametrize("terms", [{"persistence_matching": 1}, {"dice": 1, "betti_prior": 1}])
def test_coarser_scales_of_deep_supervision_are_left_out(terms: dict[str, float]) -> None:
    """There structures vanish, and with them their features."""
    loss = monai_segloss.WeightedSum(terms, **READING)
    seen: list[bool] = []
    topology = next(term for key, term in loss.terms.items() if key != "dice")
    topology.steps.register_forward_hook(lambda module, given, out: seen.append(bool(out)))
    logits, y = hard(TWO).float(), label(RING)
    outputs, targets = [logits, logits[..., ::2, ::2]], [y, y[..., ::2, ::2]]
    DeepSupervision(loss)(outputs, y)
    NnUNetLoss(loss, [(1.0, 1.0), (2.0, 2.0)], (0.5, 0.5))(outputs, targets)
    assert seen == [True, False] * 2
    assert not monai_segloss.create("dice").tells_scales_apart


def test_without_gudhi_a_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the loss is made; what only describes it goes on."""
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    for key in ("persistence_matching", "betti_prior"):
        with pytest.raises(
            ImportError, match=r"gudhi, which is not installed: pip install 'monai-segloss\[topology\]'"
        ):
            monai_segloss.create(key)
        info = monai_segloss.find(key)
        assert (info.needs, info.taps, info.brings) == ((), (), False)
        with pytest.raises(ImportError, match="gudhi"):
            monai_segloss.create(key)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 1}, "patch_size must be a whole number of at least 2, got 1"),
        ({"patch_size": 2.5}, "patch_size must be a whole number"),
        ({"patch_size": 513}, "patch_size must be a number, at most 512"),
        ({"every": 0}, "every must be a whole number of at least 1"),
        ({"dimensions": ()}, "dimensions must be some of 0, 1 and 2"),
        ({"dimensions": (3,)}, "dimensions must be some of"),
        ({"dimensions": "012"}, "dimensions must be some of"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        monai_segloss.PersistenceMatchingLoss(**arguments)


def test_an_image_that_would_take_minutes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persistence, "LARGEST", 50)
    x = torch.zeros(1, 1, 9, 11)
    with pytest.raises(ValueError, match=r"9x11 voxels; .* at most 64x64x64 or 512x512 .* patch_size"):
        monai_segloss.PersistenceMatchingLoss()(x, x)
    monai_segloss.PersistenceMatchingLoss(patch_size=7)(x, x)
