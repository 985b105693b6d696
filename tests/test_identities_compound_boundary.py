"""Compounds of a region and a distance term: what they are made of in every epoch, units, faults that they do not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness import of, same

import monai_segloss
from monai_segloss import WeightedSum
from monai_segloss.losses.boundary import boundary as boundary_card
from monai_segloss.schedules import Increase, Linear, Rebalance
from monai_segloss.testing import cases
from monai_segloss.testing.cases import Case
from monai_segloss.testing.harness import gradient, refused, value

CASES = ("labels_3d", "five_classes", "ignored", "regions", "regions_masked", "soft_labels", "empty_class", "one_class")
EPOCHS = (0, 1, 49, 98, 500)
BOTH = ("dice_boundary", "dice_ce_boundary", "generalized_dice_boundary")
ALL = (*BOTH, "dice_hausdorff_dt")
READS = {"softmax": True, "to_onehot_y": True}


def at(epoch: int, key: str, case: Case, **arguments: Any) -> torch.Tensor:
    loss = monai_segloss.create(key, **{**case.reading, **arguments})
    loss.set_epoch(epoch)
    return value(loss, case)


def shifted(t: int, spacing: tuple[float, ...], width: int = 20) -> Case:
    """A half-space and its certain prediction, t voxels further along the first axis."""
    place = torch.arange(width).view(1, 1, width, 1, 1).expand(1, 1, width, 3, 4)
    target, predicted = place < 8, place < 8 + t
    return Case("half", torch.where(predicted, 80.0, -80.0).double(), target, "sigmoid", False, spacing=spacing)


@pytest.mark.parametrize("epoch", EPOCHS)
@pytest.mark.parametrize("name", CASES)
def test_the_sums_of_their_parts(name: str, epoch: int) -> None:
    case = cases.get(name)
    alpha, multilabel = min(0.01 * (epoch + 1), 0.99), case.activation == "sigmoid"
    dice, phi = of("dice", case), of("boundary", case, offset=True)
    same(at(epoch, "dice_boundary", case), (1 - alpha) * dice + alpha * phi)
    if not multilabel:
        without = {"include_background": False}
        expected = (1 - alpha) * of("dice", case, **without) + alpha * of("boundary", case, offset=True, **without)
        same(at(epoch, "dice_boundary", case, **without), expected)
    total = (1 - alpha) * of("dice_ce", case, batch=True) + alpha * phi
    same(at(epoch, "dice_ce_boundary", case, batch=True), total)
    foreground = of("boundary", case, offset=True, include_background=multilabel)
    same(at(epoch, "generalized_dice_boundary", case), (1 - alpha) * of("generalized_dice", case) + alpha * foreground)


@pytest.mark.parametrize("name", CASES)
def test_dice_and_hausdorff_of_one_size(name: str) -> None:
    case = cases.get(name)
    loss = monai_segloss.create("dice_hausdorff_dt", **case.reading)
    first = value(loss, case)
    dice, distance = of("dice", case), of("hausdorff_dt", case, include_background=True)
    same(first, dice + 0.01 * distance)
    loss.end_epoch(loss.last)
    loss.set_epoch(1)
    same(value(loss, case), 2 * dice)


def test_the_published_ratio_is_the_same_sum_up_to_a_factor() -> None:
    case = cases.get("labels_3d")
    published = {"lambda_dice": {"schedule": "ratio", "term": "dice", "to": "hausdorff_dt"}, "lambda_hausdorff": 1}
    slopes = []
    for given in ({}, published):
        loss = monai_segloss.create("dice_hausdorff_dt", **given, **case.reading)
        value(loss, case)
        loss.end_epoch(loss.last)
        factor = float(loss.last["hausdorff_dt"] / loss.last["dice"]) if given else 1.0
        loss.set_epoch(1)
        slopes.append(gradient(loss, case)[1] / factor)
    same(*slopes)


@pytest.mark.parametrize("key", BOTH)
def test_a_sum_of_losses_says_the_same(key: str) -> None:
    case = cases.get("five_classes")
    regions = {"dice_boundary": ("dice",), "dice_ce_boundary": ("dice", "cross_entropy"),
               "generalized_dice_boundary": ("generalized_dice",)}[key]  # fmt: skip
    background = {"include_background": False} if key == "generalized_dice_boundary" else {}
    terms: dict[str, Any] = {"boundary": {"weight": "rebalance", "offset": True, **background}}
    terms |= {name: {"schedule": "rest", "of": "rebalance"} for name in regions}
    total = WeightedSum(terms, **case.reading)
    loss = monai_segloss.create(key, **case.reading)
    for epoch in EPOCHS:
        total.set_epoch(epoch)
        loss.set_epoch(epoch)
        found, slope = gradient(loss, case)
        expected, other = gradient(total.__call__, case)
        same(found, expected)
        same(slope, other)
        assert loss.term_weights == total.term_weights
        assert set(loss.last) == set(total.last) == set(loss.term_weights)


@pytest.mark.parametrize("key", BOTH)
def test_the_gradient_is_the_published_one(key: str) -> None:
    """The constant that makes the least value 0 has none."""
    case = cases.get("two_classes")
    loss = monai_segloss.create(key, lambda_boundary=1.0, **case.reading)
    background = key != "generalized_dice_boundary"
    published = monai_segloss.create("boundary", include_background=background, **case.reading)
    same(gradient(loss, case)[1], gradient(published, case)[1])


@pytest.mark.parametrize("t", [-3, -1, 0, 2, 5])
@pytest.mark.parametrize("step", [0.3, 1.0, 3.0])
def test_closed_forms_of_a_shifted_half_space(t: int, step: float) -> None:
    """A plane moved by t voxels: s t (t + 1) / 2 W outward, s t (t - 1) / 2 W inward; 2 s^2 sum k^2 / W."""
    case = shifted(t, (step, 9.0, 9.0))
    outward = t * (t + 1) if t > 0 else -t * (-t - 1)
    for key in BOTH:
        loss = monai_segloss.create(key, sigmoid=True)
        value(loss, case)
        assert float(loss.last["boundary"]) == pytest.approx(step * outward / 2 / 20, rel=1e-6, abs=1e-9)
    loss = monai_segloss.create("dice_hausdorff_dt", sigmoid=True)
    value(loss, case)
    squares = sum(k * k for k in range(1, abs(t) + 1))
    assert float(loss.last["hausdorff_dt"]) == pytest.approx(2 * step**2 * squares / 20, rel=1e-6, abs=1e-9)


def test_units() -> None:
    """With voxels c times as large the boundary term grows by c, the Hausdorff term by c^alpha, the region term stays."""
    case, other = shifted(3, (1.0, 2.0, 0.5)), shifted(3, (2.5, 5.0, 1.25))
    for key, term, factor in (("dice_boundary", "boundary", 2.5), ("dice_hausdorff_dt", "hausdorff_dt", 2.5**2)):
        loss = monai_segloss.create(key, sigmoid=True)
        value(loss, case)
        before = dict(loss.last)
        value(loss, other)
        torch.testing.assert_close(loss.last[term], factor * before[term])
        assert loss.last["dice"] == before["dice"]
    loss = monai_segloss.create("dice_boundary", sigmoid=True, normalize=True)
    torch.testing.assert_close(value(loss, case), value(loss, other))


def test_a_term_without_weight_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases.get("labels_3d")
    expected = of("dice_ce", case)
    monkeypatch.setattr(boundary_card.BoundaryForm, "unreduced", None)
    same(of("dice_ce_boundary", case, lambda_boundary=0), expected)
    loss = monai_segloss.create("dice_boundary", lambda_boundary=Linear(0, 1, epochs=10), **case.reading)
    value(loss, case)
    assert set(loss.last) == {"dice"}
    loss.set_epoch(1)
    with pytest.raises(TypeError, match="not callable"):
        value(loss, case)


def test_the_constant_and_the_increase_of_the_authors() -> None:
    case = cases.get("labels_3d")
    dice, phi = of("dice", case), of("boundary", case, offset=True)
    same(of("dice_boundary", case, lambda_dice=1, lambda_boundary=0.1), dice + 0.1 * phi)
    same(at(299, "dice_boundary", case, lambda_dice=1, lambda_boundary="increase"), dice + 3.0 * phi)
    slow = {"schedule": "rebalance", "start": 0.0, "step": 0.005, "end": 0.5}
    for given in (slow, Rebalance(0.0, 0.005, 0.5)):
        same(at(20, "dice_boundary", case, lambda_boundary=given), 0.9 * dice + 0.1 * phi)


def test_one_map_serves_a_sum_in_which_the_compound_is_a_term() -> None:
    """The epoch, the means and the map go down to it, its weights come up."""
    case = cases.get("labels_3d")
    terms = {"dice_boundary": {"weight": 0.5}, "boundary": {"weight": 0.25, "offset": True}, "dice_hausdorff_dt": 2}
    loss = WeightedSum(terms, **case.reading)
    assert len(loss.needs) == 2
    loss(case.input, case.target)
    loss.end_epoch({name: float(term) for name, term in loss.last.items()})
    state = loss.state_dict()
    loss.set_epoch(1)
    ratio = float(loss.last["dice_hausdorff_dt/dice"] / loss.last["dice_hausdorff_dt/hausdorff_dt"])
    expected = {"dice_boundary/dice": 0.49, "dice_boundary/boundary": 0.01, "boundary": 0.25}
    expected |= {"dice_hausdorff_dt/dice": 2.0, "dice_hausdorff_dt/hausdorff_dt": 2 * ratio}
    assert loss.term_weights == pytest.approx(expected)
    total = loss(case.input, case.target)
    assert float(total) == pytest.approx(sum(weight * float(loss.last[name]) for name, weight in expected.items()))
    again = WeightedSum(terms, **case.reading)
    again.load_state_dict(state)
    again.set_epoch(1)
    assert again.term_weights == loss.term_weights


def test_118_classes_in_half_precision() -> None:
    case = cases.get("many_classes")
    for key in ALL:
        found, slope = gradient(monai_segloss.create(key, **case.reading), case, case.input.half())
        assert found.isfinite()
        assert slope.isfinite().all()


def test_what_is_refused() -> None:
    create = monai_segloss.create
    for key in BOTH:
        refused((ValueError, "lambda_boundary: .*at least 0"), create, key, lambda_boundary=-1)
        refused((ValueError, "lambda_boundary: .*'rebalance'"), create, key, lambda_boundary="rebalanced")
        refused((ValueError, "lambda_dice: .*at least 0"), create, key, lambda_dice=[1])
        for given in (1.5, "increase", Increase(end=2.0)):
            refused((ValueError, "lambda_boundary reaches.*give lambda_"), create, key, lambda_boundary=given)
    for name in ("lambda_dice", "lambda_hausdorff"):
        wrong = {"schedule": "ratio", "term": "dice", "to": "hausdorff"}
        refused((ValueError, "'hausdorff'; did you mean 'hausdorff_dt'"), create, "dice_hausdorff_dt", **{name: wrong})
    refused((ValueError, "binarize='argmax'"), create, "dice_hausdorff_dt", sigmoid=True, binarize="argmax")
    loss, case = create("dice_boundary", lambda_dice=0, lambda_boundary=0, **READS), cases.get("labels_3d")
    refused((ValueError, r"all weights of \['dice', 'boundary'\] are 0 in epoch 0"), loss, case.input, case.target)
    later = create("dice_hausdorff_dt", **READS)
    refused((ValueError, "'hausdorff_dt' follows the mean values of the epoch before.*epoch 3"), later.set_epoch, 3)
