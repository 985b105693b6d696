"""Statistics of a comparison: closed cases, SciPy and statsmodels, and what they claim in simulations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from monai_segloss.experiment.ranking import not_the_best, ranks, taus
from monai_segloss.experiment.statistics import (
    Settings,
    TooFewError,
    compare,
    holm,
    interval,
    least_patients,
    noise_band,
    signed_rank,
)

Array = NDArray[np.float64]
QUICK = Settings(resamples=400)


def simulated(
    rng: np.random.Generator, effects: dict[str, float], patients: int = 20, seeds: int = 2, baseline: int = 4
) -> dict[str, Array]:
    """Dice-like values: patients differ by 0.1, seeds move all patients by 0.004, what is left is 0.02."""
    level = 0.8 + 0.1 * rng.standard_normal(patients)
    found = {}
    for name, effect in effects.items():
        runs = baseline if name == "baseline" else seeds
        noise = 0.004 * rng.standard_normal((runs, 1)) + 0.02 * rng.standard_normal((runs, patients))
        found[name] = level + effect + noise
    return found


def claims(effects: dict[str, float], repeats: int, seed: int = 0) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    settings = Settings(resamples=200)
    return [
        {each.arm: each.verdict for each in compare(simulated(rng, effects), "baseline", settings)}
        for _ in range(repeats)
    ]


def test_without_a_difference_at_most_one_report_in_twenty_claims_one() -> None:
    found = claims({"baseline": 0, "a": 0, "b": 0, "c": 0}, 300)
    wrong = sum(bool({"better", "worse"} & set(each.values())) for each in found)
    assert wrong <= stats.binom.ppf(0.99, 300, 0.05)
    assert stats.binom.cdf(wrong, 300, 0.05) > 0  # counted at all


def test_a_difference_of_four_hundredths_is_found() -> None:
    found = claims({"baseline": 0, "a": 0.04, "b": 0, "c": -0.04}, 100, seed=1)
    assert np.mean([each["a"] == "better" for each in found]) >= 0.8
    assert np.mean([each["c"] == "worse" for each in found]) >= 0.8
    assert not any(each["a"] == "worse" or each["c"] == "better" for each in found)


def test_patients_alone_would_claim_what_a_seed_did() -> None:
    """A run of luck: one arm's seeds are above, and all patients agree about it."""
    patients = np.linspace(0.5, 0.9, 30)
    seeds = np.array([[0.02], [-0.02], [0.015], [-0.015]])
    lucky = patients + np.array([[0.02], [0.018]])
    (found,) = compare({"baseline": patients + seeds, "lucky": lucky}, "baseline", QUICK)
    assert found.p < 1e-6
    assert found.low > 0
    assert found.verdict == "within the noise"
    (alone,) = compare({"baseline": patients[None], "lucky": lucky}, "baseline", QUICK)
    assert math.isnan(alone.noise)
    assert alone.verdict == "undecided"


@pytest.mark.parametrize("seed", range(5))
def test_libraries_give_the_same(seed: int) -> None:
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    rng = np.random.default_rng(seed)
    values = rng.random(7).tolist()
    np.testing.assert_allclose(holm(values), multipletests(values, method="holm")[1])
    differences = rng.standard_normal(15) + 0.4
    assert signed_rank(differences) == stats.wilcoxon(differences).pvalue
    arms = simulated(rng, {"baseline": 0, "a": 0.01})
    (found,) = compare(arms, "baseline", QUICK)
    paired = arms["a"].mean(0) - arms["baseline"].mean(0)
    assert found.difference == pytest.approx(paired.mean())
    assert found.p == stats.wilcoxon(paired).pvalue
    expected = stats.bootstrap(
        (paired,), np.mean, n_resamples=400, method="BCa", rng=np.random.default_rng(QUICK.seed)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        low, high = interval(rng.standard_normal(25), 0.95, QUICK)
        inside += low <= 0 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_the_noise_band_in_closed_form() -> None:
    baseline = np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]])  # means 2, 3, 4: standard deviation 1
    assert noise_band(baseline, 3) == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(2 / 3))
    assert noise_band(baseline, 3, 0.01) > noise_band(baseline, 3)
    assert math.isnan(noise_band(baseline[:1], 3))


def test_the_noise_band_holds_for_groups_of_runs() -> None:
    rng = np.random.default_rng(5)
    beyond = 0
    for _ in range(2000):
        runs = rng.standard_normal((6, 1)) * np.ones(4)
        beyond += abs(runs[:4].mean() - runs[4:].mean()) > noise_band(runs[:4], 2)
    assert beyond / 2000 == pytest.approx(0.05, abs=0.015)


def test_equivalence_within_a_margin() -> None:
    patients, settings = np.linspace(0.5, 0.9, 30), Settings(resamples=400, margin=0.01)
    wiggle = 0.004 * np.cos(np.arange(30.0))
    arms = {"baseline": patients + np.array([[0.001], [-0.001]]), "same": patients + wiggle}
    assert compare(arms, "baseline", settings)[0].verdict == "equivalent"
    assert compare(arms, "baseline", QUICK)[0].verdict == "within the noise"
    arms["same"] = arms["same"] + 0.05
    assert compare(arms, "baseline", settings)[0].verdict == "better"


def test_identical_arms() -> None:
    patients = np.linspace(0.5, 0.9, 10)[None].repeat(2, 0)
    (found,) = compare({"baseline": patients, "same": patients}, "baseline")
    assert (found.difference, found.low, found.high, found.p, found.verdict) == (0, 0, 0, 1, "within the noise")


def test_a_patient_without_a_value_leaves_its_pair() -> None:
    rng = np.random.default_rng(0)
    arms = simulated(rng, {"baseline": 0, "a": 0.01, "b": 0.01})
    arms["a"][1, 3] = math.nan
    a, b = compare(arms, "baseline", QUICK)
    assert (a.patients, b.patients) == (19, 20)
    without = {name: np.delete(x, 3, 1) for name, x in arms.items()}
    assert a.difference == pytest.approx(compare(without, "baseline", QUICK)[0].difference)


def test_the_claimed_winner_may_be_none() -> None:
    rng = np.random.default_rng(0)
    clear = simulated(rng, {"baseline": 0, "best": 0.1, "worst": -0.1})
    assert not_the_best(clear, QUICK)["best"] == 0
    assert not_the_best(clear, QUICK)["worst"] == 1
    alike = simulated(rng, {"baseline": 0, "a": 0, "b": 0}, seeds=4)
    assert 0.2 < min(not_the_best(alike, QUICK).values()) < 0.9
    assert sum(1 - p for p in not_the_best(alike, QUICK).values()) == pytest.approx(1)


def test_ranks_and_their_stability() -> None:
    rng = np.random.default_rng(0)
    clear = ranks(simulated(rng, {"baseline": 0, "best": 0.1, "worst": -0.1}), QUICK)
    assert clear.order == ("best", "baseline", "worst")
    assert (clear.tau, clear.low["best"], clear.high["worst"]) == (1, 1, 3)
    alike = ranks(simulated(rng, {"baseline": 0, "a": 0, "b": 0}), QUICK)
    assert alike.tau < 0.9
    assert alike.high["a"] > alike.low["a"]


def test_arms_that_are_all_alike_have_no_order() -> None:
    assert ranks({"a": np.ones((2, 8)), "b": np.ones((2, 8))}, QUICK).tau == 0


def test_tau_is_scipys() -> None:
    rng = np.random.default_rng(1)
    rows = stats.rankdata(rng.integers(0, 4, (200, 5)), axis=1)  # with ties
    for own in rows[:3]:
        np.testing.assert_allclose(taus(own, rows), [stats.kendalltau(own, row).statistic for row in rows], atol=1e-12)
    assert np.isnan(taus(rows[0], np.full((1, 5), 3.0))).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda arms: (arms, "other"), ValueError, "no arm is called 'other'; there are baseline, a"),
        (lambda arms: ({"baseline": arms["baseline"]}, "baseline"), ValueError, "no arm alongside the baseline"),
        (lambda arms: ({**arms, "a": arms["a"][:, :4]}, "baseline"), ValueError, "other numbers of patients"),
        (
            lambda arms: ({n: x[:, :5] for n, x in arms.items()}, "baseline"),
            TooFewError,
            "a: 5 patients .* fewer than 6",
        ),
        (lambda arms: ({**arms, "a": np.zeros((2, 3, 4))}, "baseline"), ValueError, "a: values must be"),
    ],
)
def test_what_cannot_be_compared(
    change: Callable[[dict[str, Array]], tuple[dict[str, Array], str]], error: type[Exception], message: str
) -> None:
    arms, baseline = change(simulated(np.random.default_rng(0), {"baseline": 0, "a": 0}))
    with pytest.raises(error, match=message):
        compare(arms, baseline, QUICK)


@pytest.mark.parametrize("wrong", [{"alpha": 0}, {"margin": -1}, {"margin": math.nan}, {"resamples": 10}])
def test_wrong_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("comparisons", [1, 2, 3, 7, 19])
def test_the_least_patients_that_can_reject(comparisons: int) -> None:
    """All patients on one side: with one patient less the corrected p is above 5 %."""
    for patients, rejects in ((least_patients(comparisons), True), (least_patients(comparisons) - 1, False)):
        p = stats.wilcoxon(np.arange(1, patients + 1)).pvalue
        assert (p * comparisons <= 0.05) == rejects
