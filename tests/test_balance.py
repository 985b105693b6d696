"""Weights of the terms of a sum that are learned, or follow the values of the terms."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss import LossConfig, WeightedSum
from monai_segloss.config import json_schema
from monai_segloss.core.companions import learnable, parameter_groups
from monai_segloss.losses.compound.balance import BALANCES, Following, UncertaintyWeighting, balance
from monai_segloss.testing import cases

READS: dict[str, Any] = {"softmax": True, "to_onehot_y": True}
TERMS = {"dice": 1.0, "cross_entropy": 0.5, "focal": 2.0}
CASE = cases.get("labels_3d")
ROOTS = {
    "classification": lambda value: 2 * value,
    "regression": lambda value: value,
    "laplace": lambda value: value,
    "liebel_koerner": lambda value: (value + math.sqrt(value * value + 8 * value)) / 4,
}


def plain_value(loss: WeightedSum) -> Tensor:
    """The value as it would be with these weights as numbers."""
    return sum(w * loss.last[name] for name, w in loss.term_weights.items())  # type: ignore[return-value]


def called(loss: WeightedSum) -> Tensor:
    value: Tensor = loss(CASE.input, CASE.target)
    return value


def following(method: str, epochs: list[dict[str, float]], **settings: Any) -> dict[str, float]:
    """The factors after these epochs."""
    found = balance({"method": method, **settings}, ("a", "b", "c"))
    assert isinstance(found, Following)
    for means in epochs:
        found.end_epoch(means)
    found.set_epoch(len(epochs))
    return {name: float(found.factor(name)) for name in found.terms}


@pytest.mark.parametrize("method", BALANCES)
def test_the_sum_is_weight_times_factor_times_value(method: str) -> None:
    loss = WeightedSum(TERMS, balance=method, **READS)
    value = called(loss)
    torch.testing.assert_close(value.detach(), plain_value(loss) + loss.last.get("balance", 0))
    for name, weight in TERMS.items():
        assert loss.balance is not None
        assert loss.term_weights[name] == pytest.approx(weight * float(loss.balance.factor(name).detach()))


@pytest.mark.parametrize("kind", UncertaintyWeighting.KINDS)
def test_learned_weights_at_the_start(kind: str) -> None:
    """s = 0: L, L/2, L, L/2 + ln 2."""
    loss = WeightedSum({"dice": 1.0}, balance={"method": "uncertainty_weighting", "kind": kind}, **READS)
    dice = WeightedSum({"dice": 1.0}, **READS)(CASE.input, CASE.target)
    half = {"regression": 0.5 * dice, "liebel_koerner": 0.5 * dice + math.log(2)}
    torch.testing.assert_close(called(loss).detach(), half.get(kind, dice), check_dtype=False)


@pytest.mark.parametrize("kind", UncertaintyWeighting.KINDS)
@pytest.mark.parametrize("size", [0.02, 0.7, 12.0])
def test_the_least_value_of_learned_weights(kind: str, size: float) -> None:
    """e^s is 2 L, L, L, and the root of 2 x^2 - L x - L; the weight of the term does not move it."""
    for weight in (1.0, 0.1):
        found = balance({"method": "uncertainty_weighting", "kind": kind}, ("a",))
        assert isinstance(found, UncertaintyWeighting)
        optimizer = torch.optim.LBFGS(found.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def step(found: Any = found, weight: float = weight, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            value: Tensor = weight * (found.factor("a") * size + found.added("a"))
            value.backward()
            return value

        optimizer.step(step)
        assert math.exp(float(found.log_scales.detach()[0])) == pytest.approx(ROOTS[kind](size), rel=1e-3)


def test_learned_weights_stay_in_range_and_pull_the_terms() -> None:
    found = balance("uncertainty_weighting", ("a", "b"))
    assert isinstance(found, UncertaintyWeighting)
    with torch.no_grad():
        found.log_scales.copy_(torch.tensor([-50.0, 50.0]))
    assert float(found.factor("a").detach()) == pytest.approx(math.exp(10))
    assert float(found.factor("b").detach()) == pytest.approx(math.exp(-10))
    loss = WeightedSum(TERMS, balance="uncertainty_weighting", **READS)
    with torch.no_grad():
        loss.balance.log_scales.copy_(torch.tensor([0.5, -0.25, 1.0]))  # type: ignore[union-attr, operator]
    leaf = CASE.input.clone().requires_grad_()
    loss(leaf, CASE.target).backward()
    numbers = {name: w for name, w in loss.term_weights.items() if name != "balance"}
    other = CASE.input.clone().requires_grad_()
    WeightedSum(numbers, **READS)(other, CASE.target).backward()
    torch.testing.assert_close(leaf.grad, other.grad)
    s, weights = [0.5, -0.25, 1.0], list(TERMS.values())
    expected = [w * (0.5 - math.exp(-x) * float(loss.last[n])) for x, w, n in zip(s, weights, TERMS, strict=True)]
    assert loss.balance.log_scales.grad.tolist() == pytest.approx(expected)  # type: ignore[union-attr]


def test_kinds_are_those_of_the_tasks() -> None:
    tasks = {"contour": 1.0, "distance": 1.0, "reconstruction": {"loss": "absolute"}}
    loss = monai_segloss.MultiTaskLoss(tasks=tasks, balance="uncertainty_weighting", **READS)
    assert isinstance(loss.balance, UncertaintyWeighting)
    wanted = {"dice_ce": "classification", "contour": "classification", "distance": "regression"}
    assert loss.balance.kinds == {**wanted, "reconstruction": "laplace"}
    own = {"method": "uncertainty_weighting", "kind": {"dice_ce": "liebel_koerner"}}
    loss = monai_segloss.MultiTaskLoss(balance=own, **READS)
    assert loss.balance.kinds == {**wanted, "dice_ce": "liebel_koerner"}  # type: ignore[union-attr]


def test_learned_weights_have_no_weight_decay() -> None:
    loss = WeightedSum(TERMS, balance="uncertainty_weighting", **READS)
    (group,) = parameter_groups(loss, 3e-5)
    assert [p.numel() for p in group["params"]] == [3]
    assert group["weight_decay"] == 0
    for method in BALANCES.keys() - {"uncertainty_weighting"}:
        assert not learnable(WeightedSum(TERMS, balance=method, **READS))


def test_a_term_without_weight_moves_nothing() -> None:
    loss = WeightedSum({**TERMS, "focal": 0.0}, balance="uncertainty_weighting", **READS)
    called(loss).backward()
    assert loss.balance.log_scales.grad[2] == 0  # type: ignore[union-attr, index]
    assert "focal" not in loss.last


@pytest.mark.parametrize("method", ["dynamic_weight_averaging", "softadapt"])
def test_terms_that_fall_alike_keep_their_weights(method: str) -> None:
    fall = [{"a": 4.0, "b": 4.0, "c": 4.0}, {"a": 2.0, "b": 2.0, "c": 2.0}]
    assert following(method, []) == following(method, fall[:1]) == {"a": 1, "b": 1, "c": 1}
    assert following(method, fall) == pytest.approx({"a": 1, "b": 1, "c": 1})


def test_dynamic_weight_averaging() -> None:
    """K e^(r/T) / sum e^(r/T), r the mean of the last epoch over that of the one before."""
    epochs = [{"a": 9.0, "b": 9.0, "c": 9.0}, {"a": 1.0, "b": 2.0, "c": 4.0}, {"a": 0.5, "b": 3.0, "c": 4.0}]
    for t in (2.0, 0.5):
        found = following("dynamic_weight_averaging", epochs, temperature=t)
        shares = [math.exp(r / t) for r in (0.5, 1.5, 1.0)]
        assert list(found.values()) == pytest.approx([3 * x / sum(shares) for x in shares])
    broken = [{"a": 0.0, "b": -1.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}]
    assert following("dynamic_weight_averaging", broken) == pytest.approx({"a": 1, "b": 1, "c": 1})


def test_softadapt() -> None:
    """K e^(beta s) / sum e^(beta s); published code normalizes the slopes -.2, -.1, .25 to 4, 2, -5."""
    epochs = [{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 0.8, "b": 0.9, "c": 1.25}]
    slopes = [-0.2, -0.1, 0.25]

    def shares(s: list[float], beta: float) -> list[float]:
        return [3 * math.exp(beta * x) / sum(math.exp(beta * y) for y in s) for x in s]

    assert list(following("softadapt", epochs).values()) == pytest.approx(shares(slopes, 0.1))
    assert list(following("softadapt", epochs, beta=3.0).values()) == pytest.approx(shares(slopes, 3.0))
    relative = [x / 0.55 for x in slopes]
    found = following("softadapt", epochs, normalize=True, beta=2.0)
    assert list(found.values()) == pytest.approx(shares(relative, 2.0))
    assert found["c"] > found["b"] > found["a"], "what rises gets more"
    weighted = [x * y for x, y in zip(shares(slopes, 0.1), (0.8, 0.9, 1.25), strict=True)]
    found = following("softadapt", epochs, loss_weighted=True)
    assert list(found.values()) == pytest.approx([3 * x / sum(weighted) for x in weighted])


def test_a_term_that_has_just_come_has_the_factor_1() -> None:
    for method in ("dynamic_weight_averaging", "softadapt"):
        found = following(method, [{"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 2.0, "c": 1.0}])
        assert found["c"] == 1
        assert found["a"] + found["b"] == pytest.approx(2)
        assert found["b"] > found["a"]


def test_factors_follow_the_epochs_of_a_sum() -> None:
    """Also of a term that is a sum itself, whose mean is that of its parts."""
    loss = WeightedSum({"dice_ce": 1.0, "focal": 1.0}, balance="dynamic_weight_averaging", **READS)
    for epoch, (dice, focal) in enumerate([(1.0, 1.0), (0.8, 0.4), (0.7, 0.1)]):
        loss.set_epoch(epoch)
        called(loss)
        loss.end_epoch({"dice_ce/dice": dice, "dice_ce/cross_entropy": dice, "focal": focal})
    loss.set_epoch(3)
    slow, fast = math.exp(1.4 / 1.6 / 2), math.exp(0.1 / 0.4 / 2)
    assert loss.term_weights["dice_ce"] == pytest.approx(2 * slow / (slow + fast))
    assert loss.term_weights["focal"] == pytest.approx(2 * fast / (slow + fast))


def test_what_must_be_known_is_asked_for() -> None:
    loss = WeightedSum(TERMS, balance="softadapt", **READS)
    loss.set_epoch(1)
    with pytest.raises(ValueError, match=r"balance follows the mean values of the two epochs before, .* in epoch 2"):
        loss.set_epoch(2)


@pytest.mark.parametrize("method", BALANCES)
def test_a_resumed_sum_goes_on(method: str) -> None:
    def trained(loss: WeightedSum, epochs: range) -> WeightedSum:
        for epoch in epochs:
            loss.set_epoch(epoch)
            value = called(loss)
            for p in learnable(loss):
                value.backward()
                p.data -= 0.1 * p.grad  # type: ignore[operator]
                p.grad = None
            loss.update()
            loss.end_epoch({name: float(x) / (1 + i * epoch) for i, (name, x) in enumerate(loss.last.items())})
        loss.set_epoch(epochs.stop)
        return loss

    whole = trained(WeightedSum(TERMS, balance=method, **READS), range(4))
    half = trained(WeightedSum(TERMS, balance=method, **READS), range(2))
    state = copy.deepcopy(half.state_dict())
    resumed = WeightedSum(TERMS, balance=method, **READS)
    resumed.load_state_dict(state)
    assert trained(resumed, range(2, 4)).term_weights == whole.term_weights
    assert torch.equal(called(resumed), called(whole))
    assert whole.term_weights != WeightedSum(TERMS, balance=method, **READS).term_weights
    assert called(copy.deepcopy(whole)).item() == called(whole).item()


def test_random_weights() -> None:
    """Shares of K that change with each step, the same in every process, and alike on average."""
    torch.manual_seed(0)
    loss = WeightedSum(TERMS, balance={"method": "random_weights", "seed": 3}, **READS)
    state = torch.get_rng_state()
    seen = []
    for _ in range(400):
        factors = [loss.term_weights[name] / weight for name, weight in TERMS.items()]
        assert sum(factors) == pytest.approx(3)
        seen.append(factors)
        loss.update()
    assert len({tuple(each) for each in seen}) == 400
    assert torch.equal(torch.get_rng_state(), state), "no random number of the training is used"
    assert torch.tensor(seen).mean(0).tolist() == pytest.approx([1, 1, 1], abs=0.15)
    again = WeightedSum(TERMS, balance={"method": "random_weights", "seed": 3}, **READS)
    assert [again.term_weights[n] / w for n, w in TERMS.items()] == pytest.approx(seen[0])
    other = WeightedSum(TERMS, balance={"method": "random_weights", "seed": 4}, **READS)
    assert other.term_weights != again.term_weights


def test_a_sum_in_a_sum_has_a_balance_of_its_own() -> None:
    inner = {"loss": "multi_task", "base": {}, "tasks": {"contour": 1.0}}
    loss = WeightedSum({"dice": 1.0, "tasks": inner}, balance="dynamic_weight_averaging", **READS)
    assert loss.terms["tasks"].balance is None
    both = {**inner, "balance": "uncertainty_weighting"}
    nested = WeightedSum({"dice": 1.0, "tasks": both}, balance="softadapt", **READS)
    assert [name for name, _ in nested.named_parameters()] == ["terms.tasks.balance.log_scales"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("uncertainty", "balance: no method is called 'uncertainty'; did you mean 'uncertainty_weighting'"),
        (3, "balance: no method is called 3. There are uncertainty_weighting"),
        ({"temperature": 2}, "balance: no method is called None"),
        (
            {"method": "softadapt", "temperature": 2},
            "balance: softadapt has no setting 'temperature'. It has beta, normalize",
        ),
        ({"method": "softadapt", "normalize": "false"}, "balance: normalize must be True or False, got 'false'"),
        ({"method": "softadapt", "beta": -1}, "balance: beta should be no less than 0"),
        ({"method": "dynamic_weight_averaging", "temperature": 0}, "balance: temperature must be above 0"),
        ({"method": "random_weights", "seed": 0.5}, "balance: seed must be a whole number"),
        ({"method": "uncertainty_weighting", "kind": "gauss"}, "balance: kind must be one of 'classification'"),
        (
            {"method": "uncertainty_weighting", "kind": {"dise": "laplace"}},
            "balance: kind: no term is called 'dise'; did",
        ),
    ],
)
def test_settings_that_do_not_fit(value: Any, said: str) -> None:
    for build in (WeightedSum, lambda terms, balance: LossConfig(terms=terms, balance=balance)):
        with pytest.raises(ValueError, match=said if build is WeightedSum else "balance"):
            build(TERMS, balance=value)


def test_a_term_cannot_have_the_name_of_what_is_added() -> None:
    with pytest.raises(ValueError, match="balance: its part of the loss is called 'balance'"):
        WeightedSum({"balance": {"loss": "dice"}}, balance="softadapt")


def test_configuration() -> None:
    chosen = {"method": "dynamic_weight_averaging", "temperature": 1.0}
    config = LossConfig(terms=TERMS, balance=chosen)
    built = config.build(**READS)
    assert isinstance(built, WeightedSum)
    assert type(built.balance).__name__ == "DynamicWeightAveraging"
    assert config.model_dump(exclude_defaults=True)["balance"] == chosen
    assert "balance" in json_schema()["properties"]
    with pytest.raises(ValueError, match="balance belongs to terms"):
        LossConfig(loss="dice", balance="softadapt")
    asked = LossConfig(loss="conv_mcd", arguments={"balance": "softadapt"}).build(**READS)
    assert type(asked.balance).__name__ == "SoftAdapt"  # type: ignore[attr-defined]
