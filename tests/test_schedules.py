"""Weights over the epochs: closed forms, plain data, what is refused, and how a sum of losses follows them."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from monai_segloss import LossConfig, WeightedSum
from monai_segloss.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Geometric,
    Increase,
    Linear,
    Pause,
    Ratio,
    Rebalance,
    Rest,
    Schedule,
    WarmUp,
    schedule,
)
from monai_segloss.testing import cases
from monai_segloss.testing.cases import Case
from monai_segloss.testing.harness import refused

# Schedule -> epoch -> weight, each from its formula.
FORMS: list[tuple[Schedule, Callable[[int], float]]] = [
    (Constant(0.3), lambda e: 0.3),
    (Linear(1.0, 0.2, epochs=8), lambda e: max(0.2, 1 - 0.1 * e)),
    (Linear(0.0, 1.0, epochs=4, begin=3), lambda e: min(1.0, max(0, e - 3) / 4)),
    (Cosine(0.0, 2.0, epochs=10), lambda e: 1 - math.cos(math.pi * min(e, 10) / 10)),
    (Increase(), lambda e: 0.01 * (e + 1)),
    (Increase(0.0, 0.5, end=2.0), lambda e: min(2.0, e / 2)),
    (Rebalance(), lambda e: min(0.99, 0.01 * (e + 1))),
    (Geometric(), lambda e: min(1000.0, 5 * 1.1**e)),
    (Geometric(0.5, 2.0, end=8.0), lambda e: min(8.0, 0.5 * 2.0**e)),
    (Rest(Rebalance()), lambda e: max(0.01, 1 - 0.01 * (e + 1))),
    (Rest(0.25), lambda e: 0.75),
    (WarmUp(2.0, epochs=5, begin=2), lambda e: 0.0 if e < 2 else 2 * math.exp(-5 * (1 - min(1.0, (e - 2) / 5)) ** 2)),
    (WarmUp(1.0, epochs=0, begin=3), lambda e: float(e >= 3)),
    (Pause(5, Linear(1.0, 0.0, epochs=10)), lambda e: 1 - min(10, max(0, e - 5)) / 10),
    (Pause(2, "rebalance"), lambda e: min(0.99, 0.01 * (max(0, e - 2) + 1))),
]


def value(loss: Callable[..., torch.Tensor], case: Case) -> torch.Tensor:
    return loss(case.input, case.target, **case.call)


RATIO = Ratio("dice", to="hausdorff_dt", ratio=2.0, start=0.5)


@pytest.mark.parametrize(("found", "formula"), FORMS, ids=[repr(form[0]) for form in FORMS])
def test_weights_follow_the_formula(found: Schedule, formula: Callable[[int], float]) -> None:
    for epoch in (0, 1, 2, 3, 5, 7, 10, 11, 98, 99, 1000):
        assert found(epoch) == pytest.approx(formula(epoch), abs=1e-12)
        assert found(epoch) <= found.largest


@pytest.mark.parametrize("found", [*(form[0] for form in FORMS), RATIO], ids=repr)
def test_a_schedule_is_plain_data(found: Schedule) -> None:
    again = schedule(json.loads(json.dumps(found.mapping)))
    assert again == found
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == found
    assert hash(again) == hash(found)


def test_every_schedule_has_a_formula_here() -> None:
    assert {type(found) for found, _ in FORMS} | {Ratio} == set(SCHEDULES.values())


def test_names_stand_for_the_defaults() -> None:
    assert schedule("rebalance") == Rebalance(0.01, 0.01, 0.99)
    assert schedule("increase") == Increase(0.01, 0.01, None)
    assert schedule(2) == Constant(2)
    assert schedule({"schedule": "rest", "of": "rebalance"}) == Rest(Rebalance())


def test_a_ratio_is_that_of_the_epoch_before() -> None:
    assert RATIO(0) == 0.5
    assert RATIO(1, {"dice": 0.25, "hausdorff_dt": 3.0}) == 2 * 3 / 0.25
    assert RATIO(1, {"dice": 1e-9, "hausdorff_dt": 3.0}) == pytest.approx(2 * 3 / 1e-5)
    for broken in ({"dice": math.nan}, {"dice": 0.0}, {"hausdorff_dt": math.inf}, {"hausdorff_dt": -1.0}):
        assert RATIO(1, {"dice": 0.25, "hausdorff_dt": 3.0, **broken}) == 0.5
    assert RATIO(1, {"dice": 0.25}) == 0.5
    refused((ValueError, "'dice'.*epoch 1.*end_epoch"), RATIO, 1)
    assert Pause(3, RATIO)(3) == 0.5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (-0.1, "at least 0, got value=-0.1"),
        (math.inf, "at least 0"),
        (math.nan, "at least 0"),
        (10**400, "at least 0"),
        (None, "at least 0"),
        (True, "at least 0"),
        ([1.0], "at least 0"),
        ("linar", "did you mean 'linear'"),
        ("linear", "'linear' needs start and end and epochs"),
        ({"start": 1}, "no schedule is called None"),
        ({"schedule": "linear", "start": 0, "end": 1, "epoch": 3}, "no parameter 'epoch'; did you mean 'epochs'"),
        ({"schedule": "linear", "start": 0, "end": 1, "epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"schedule": "linear", "start": 0, "end": 1, "epochs": 2.5}, "epochs must be a whole number"),
        ({"schedule": "linear", "start": "0", "end": 1, "epochs": 2}, "start='0'"),
        ({"schedule": "cosine", "start": 0, "end": 1, "epochs": 2, "begin": -1}, "begin must be"),
        ({"schedule": "increase", "step": -1}, "step=-1"),
        ({"schedule": "increase", "start": 1, "end": 0.5}, "end must be at least start"),
        ({"schedule": "geometric", "factor": 0.9}, "factor must be at least 1"),
        ({"schedule": "rebalance", "end": 1.5}, "end must be at most 1"),
        ({"schedule": "rebalance", "end": None}, "end=None"),
        ({"schedule": "rest", "of": "increase"}, "of must be at most 1.*reaches inf"),
        ({"schedule": "rest", "of": 2}, "of must be at most 1.*reaches 2"),
        ({"schedule": "warm_up", "value": 1, "epochs": -1}, "epochs must be"),
        ({"schedule": "pause", "epochs": 1, "then": "rebalace"}, "did you mean 'rebalance'"),
        ({"schedule": "ratio", "term": "dice", "to": "focal", "ratio": -1}, "ratio=-1"),
    ],
)
def test_what_is_refused(given: Any, words: str) -> None:
    refused((ValueError, words), schedule, given)
    refused((ValueError, f"dice: .*{words}"), WeightedSum, {"dice": {"weight": given}, "focal": 1})


TERMS = {"dice": {"schedule": "rest", "of": {"schedule": "rebalance", "step": 0.2}},
         "boundary": {"weight": {"schedule": "rebalance", "step": 0.2}, "offset": True}}  # fmt: skip


def test_a_sum_follows_the_epoch() -> None:
    case = cases.get("five_classes")
    loss = LossConfig(terms=TERMS).build(**case.reading)
    assert isinstance(loss, WeightedSum)
    for epoch, alpha in ((0, 0.01), (3, 0.61), (9, 0.99), (1, 0.21)):
        loss.set_epoch(epoch)
        total = value(loss, case)
        assert loss.term_weights == pytest.approx({"dice": 1 - alpha, "boundary": alpha})
        terms = loss.last
        assert float(total) == pytest.approx(float((1 - alpha) * terms["dice"] + alpha * terms["boundary"]))


def test_an_epoch_is_a_whole_number() -> None:
    loss = WeightedSum({"dice": "rebalance"}, softmax=True)
    for wrong in (-1, 1.5, "3", True, None):
        refused((ValueError, "epoch must be a whole number of at least 0"), loss.set_epoch, wrong)
    loss.set_epoch(np.int64(3))
    assert loss.term_weights == {"dice": 0.04}


def test_a_ratio_of_terms_and_its_state() -> None:
    case = cases.get("labels_3d")
    weight = {"schedule": "ratio", "term": "dice", "to": "cross_entropy", "ratio": 3.0, "start": 0.5}
    loss = WeightedSum({"dice": weight, "cross_entropy": 1}, **case.reading)
    value(loss, case)
    assert loss.term_weights == {"dice": 0.5, "cross_entropy": 1.0}
    loss.end_epoch({"dice": 0.2, "cross_entropy": 0.8})
    value(loss, case)
    assert loss.term_weights["dice"] == 0.5, "the weight is that of the epoch until the next one begins"
    state = loss.state_dict()
    loss.set_epoch(1)
    assert loss.term_weights["dice"] == pytest.approx(12.0)

    resumed = WeightedSum({"dice": weight, "cross_entropy": 1}, **case.reading)
    refused((ValueError, "end_epoch"), resumed.set_epoch, 1)
    resumed.load_state_dict(state)
    resumed.set_epoch(1)
    assert resumed.term_weights == loss.term_weights
    assert value(resumed, case) == value(loss, case)
    refused((ValueError, "dice: a ratio.*'ce'"), WeightedSum, {"dice": {**weight, "to": "ce"}, "cross_entropy": 1})


def test_a_term_that_is_a_sum_follows_too_and_has_a_mean() -> None:
    case = cases.get("labels_3d")
    ratio = {"schedule": "ratio", "term": "dice_ce", "to": "focal"}
    loss = WeightedSum({"dice_ce": {"weight": ratio, "lambda_ce": 0.5}, "focal": 1}, **case.reading)
    value(loss, case)
    loss.end_epoch({"dice_ce/dice": 0.4, "dice_ce/cross_entropy": 0.2, "focal": 2.0})
    loss.set_epoch(1)
    assert loss.term_weights["dice_ce"] == pytest.approx(2.0 / (0.4 + 0.5 * 0.2))


def test_a_ratio_inside_of_a_term_waits_until_the_term_has_a_weight() -> None:
    """Without a weight the term has no values, which is not the same as nobody telling them."""
    case = cases.get("labels_3d")
    late = {"schedule": "warm_up", "value": 1, "epochs": 0, "begin": 3}
    loss = WeightedSum({"dice_ce": 1, "dice_hausdorff_dt": {"weight": late}}, **case.reading)
    weights = []
    for epoch in range(5):
        loss.set_epoch(epoch)
        weights.append(loss.term_weights["dice_hausdorff_dt/hausdorff_dt"])
        value(loss, case)
        loss.end_epoch({name: 3.0 if name.endswith("_dt") else 0.6 for name in loss.last})
    assert weights == pytest.approx([0, 0, 0, 0.01, 0.2])
    loss.end_epoch({"dice_ce/dice": 0.5})
    refused((ValueError, "end_epoch"), loss.set_epoch, 5)


def test_terms_have_no_reading_of_their_own() -> None:
    """It would have no effect: a sum reads its input once."""
    for name, own in {
        "softmax": True,
        "sigmoid": True,
        "to_onehot_y": True,
        "ignore_index": 1,
        "reduction": "sum",
    }.items():
        refused(
            (TypeError, f"dice: {name} is the same for all terms"), WeightedSum, {"dice": {name: own}}, softmax=True
        )
    terms = {"dice": 1, "focal": {"use_softmax": True}}
    refused((TypeError, "focal: use_softmax.*softmax=True to the sum"), WeightedSum, terms)
    refused((TypeError, "focal: use_softmax"), WeightedSum, {"focal": 1}, use_softmax=True)
    WeightedSum(terms, softmax=True)


def test_a_term_without_weight_is_not_evaluated() -> None:
    case = cases.get("labels_3d")
    loss = WeightedSum(
        {"dice": 1, "focal": {"schedule": "warm_up", "value": 1, "epochs": 0, "begin": 1}}, **case.reading
    )
    for epoch, names in ((0, {"dice"}), (1, {"dice", "focal"})):
        loss.set_epoch(epoch)
        value(loss, case)
        assert set(loss.last) == names
    off = WeightedSum({"dice": 0, "focal": 0}, **case.reading)
    refused((ValueError, r"all weights of \['dice', 'focal'\] are 0 in epoch 0"), value, off, case)


def test_a_new_epoch_compiles_nothing_again() -> None:
    """A compiled loss whose weights were numbers would be compiled in each epoch, and torch gives up after eight."""
    case, count = cases.get("labels_3d"), 0

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        nonlocal count
        count += 1
        return graph.forward

    torch.compiler.reset()
    loss = WeightedSum({"dice": {"schedule": "rest", "of": "rebalance"}, "focal": "rebalance"}, **case.reading)
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for epoch in range(12):
        loss.set_epoch(epoch)
        assert value(compiled, case) == pytest.approx(float(value(loss, case)))
    assert count == 1


def test_schedules_in_a_configuration_become_plain_data() -> None:
    given = LossConfig(
        terms={"dice": Rest(Rebalance()), "focal": {"weight": Rebalance(), "gamma": 3}, "boundary": "increase"}
    )
    assert LossConfig.model_validate(json.loads(given.model_dump_json())) == given
    assert given.terms["focal"] == {"weight": Rebalance().mapping, "gamma": 3}
    assert given.terms["boundary"] == {"weight": "increase"}
    with pytest.raises(ValueError, match="at least 0, got value=True"):
        LossConfig(terms={"dice": True})
    card = LossConfig(loss="dice_boundary", arguments={"lambda_boundary": Rebalance(step=0.02)})
    assert LossConfig.model_validate(json.loads(card.model_dump_json())) == card
    assert card.arguments == {"lambda_boundary": Rebalance(step=0.02).mapping}
    assert card.build(softmax=True).schedules["boundary"] == Rebalance(step=0.02)  # type: ignore[attr-defined]


def test_names_of_terms() -> None:
    for wrong in ("", "a.b", "a/b"):
        refused((ValueError, "name of a term"), WeightedSum, {wrong: {"loss": "dice"}})
    loss = WeightedSum({"dice": "rebalance", "focal": 1}, softmax=True)
    refused((ValueError, "no term is called 'dise'; did you mean 'dice'"), loss.end_epoch, {"dise": 0.5})
