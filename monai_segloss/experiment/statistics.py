"""Whether one arm is better than another: paired by patient, corrected for the number of arms, against the noise of seeds.

An arm is a loss with its settings; each of its runs has a seed.  All functions take the values of one measure and class as
an array (seeds, patients), in which larger is better.  A patient is the unit: what several seeds, or several images, say
about one is averaged first.

Three things must agree before a difference is claimed: the bootstrap interval of the paired difference excludes 0, the
signed-rank test with Holm's correction over the arms rejects, and the difference is larger than what other seeds of the
baseline would give.  The first two are about patients, the third about training again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
LEAST_PATIENTS = 6
"""With fewer the signed-rank test cannot reject at 5 %, whatever the values are."""
LEAST_SEEDS = 2
VERDICTS = ("better", "worse", "equivalent", "within the noise", "undecided")


class TooFewError(ValueError):
    """Too few patients or seeds for what is asked."""


@dataclass(frozen=True)
class Settings:
    """How much is asked before a difference is claimed.

    Args:
        alpha: share of reports that may claim a difference where there is none.
        margin: differences below it do not matter, in units of the measure; 0: equivalence is not looked for.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    alpha: float = 0.05
    margin: float = 0.0
    resamples: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, got {self.alpha!r}.")
        if not self.margin >= 0:
            raise ValueError(f"margin must be at least 0, got {self.margin!r}.")
        if self.resamples < 100:
            raise ValueError(f"resamples must be at least 100, got {self.resamples!r}.")


DEFAULT = Settings()


def least_patients(comparisons: int, alpha: float = DEFAULT.alpha) -> int:
    """How many patients it takes so that one of several comparisons can be rejected after Holm's correction.

    The signed-rank test of n patients has no p below 2^(1 - n), which Holm multiplies by the number of comparisons.

    Example:
        >>> from monai_segloss.experiment.statistics import least_patients
        >>> least_patients(1), least_patients(7)
        (6, 9)
    """
    return 1 + math.ceil(math.log2(comparisons / alpha))


@dataclass(frozen=True)
class Comparison:
    """One arm against the baseline.

    Args:
        arm: its name.
        patients: that both have.
        seeds, baseline_seeds: runs behind the means.
        mean, baseline_mean: over patients and seeds.
        difference: mean of the paired differences.
        low, high: its bias-corrected and accelerated bootstrap interval over patients.
        p: of the signed-rank test over patients; 1 where all differences are 0.
        p_holm: the same after Holm's correction over the arms.
        noise: largest difference that other seeds of the baseline would give, corrected for the number of arms; NaN with
            fewer than two seeds.
        verdict: one of `VERDICTS`.
    """

    arm: str
    patients: int
    seeds: int
    baseline_seeds: int
    mean: float
    baseline_mean: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    noise: float
    verdict: str


def compare(arms: Mapping[str, Array], baseline: str, settings: Settings = DEFAULT) -> list[Comparison]:
    """Every other arm against the baseline, in the order given.

    Args:
        arms: name -> (seeds, patients), the same patients in the same order; a NaN leaves its patient out for that pair of
            arms.
        baseline: one of them.
        settings: see there.

    Raises:
        ValueError: no such baseline, nothing to compare it with, or other numbers of patients.
        TooFewError: fewer than `LEAST_PATIENTS` patients in common.

    Example:
        >>> import numpy as np
        >>> patients = np.linspace(0.6, 0.9, 12)
        >>> noise = np.array([[0.002], [-0.001], [0.0], [-0.001]])
        >>> arms = {"dice_ce": patients + noise, "tversky": patients + 0.03 + noise[:2]}
        >>> (found,) = compare(arms, "dice_ce")
        >>> found.verdict, round(found.difference, 4), round(found.noise, 4)
        ('better', 0.0305, 0.0039)
    """
    if baseline not in arms:
        raise ValueError(f"no arm is called {baseline!r}; there are {', '.join(arms)}.")
    others = [name for name in arms if name != baseline]
    if not others:
        raise ValueError("there is no arm alongside the baseline.")
    tables = {name: table(name, x) for name, x in arms.items()}
    sizes = {name: x.shape[1] for name, x in tables.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the arms have other numbers of patients: {sizes}.")
    drafts = {name: _paired(tables[name], tables[baseline], name, settings) for name in others}
    corrected = holm([float(draft["p"]) for draft in drafts.values()])
    found = []
    for (name, draft), p in zip(drafts.items(), corrected, strict=True):
        band = noise_band(tables[baseline], tables[name].shape[0], settings.alpha / len(others))
        verdict = _verdict(draft, p, band, settings)
        facts = {key: draft[key] for key in ("mean", "baseline_mean", "difference", "low", "high", "p")}
        found.append(
            Comparison(
                name,
                int(draft["patients"]),
                tables[name].shape[0],
                tables[baseline].shape[0],
                **facts,
                p_holm=p,
                noise=band,
                verdict=verdict,
            )
        )
    return found


def noise_band(baseline: Array, seeds: int, alpha: float = 0.05) -> float:
    """Largest difference between the means of two groups of runs that differ in nothing but their seeds.

    t(1 - alpha / 2, S - 1) s sqrt(1 / S + 1 / seeds): s is the standard deviation, over the S seeds of the baseline, of the
    mean over patients.  NaN with one seed.

    Args:
        baseline: (S, patients).
        seeds: of the arm that is compared.
        alpha: share of pairs of such groups that differ by more.
    """
    runs = baseline.shape[0]
    if runs < LEAST_SEEDS:
        return math.nan
    spread = float(np.nanmean(baseline, 1).std(ddof=1))
    return float(stats.t.ppf(1 - alpha / 2, runs - 1) * spread * math.sqrt(1 / runs + 1 / seeds))


def interval(differences: Array, level: float, settings: Settings = DEFAULT) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of the mean over patients."""
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    found = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=level,
        n_resamples=settings.resamples,
        method="BCa",
        vectorized=True,
        rng=np.random.default_rng(settings.seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def signed_rank(differences: Array) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, zeros ranked and left out (Pratt); 1 where all are 0."""
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's correction of p values for their number.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(values, kind="stable")
    found, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        found[i] = largest
    return found


def table(name: str, values: Array) -> Array:
    """Values (seeds, patients) as such a table; raises ValueError where they are not."""
    found = np.atleast_2d(np.asarray(values, dtype=float))
    if found.ndim != 2 or not found.size:
        raise ValueError(f"{name}: values must be (seeds, patients), got shape {np.shape(values)}.")
    return found


def per_patient(values: Array) -> Array:
    """The mean over seeds; NaN where any seed is."""
    return np.asarray(values.mean(0))


def _paired(arm: Array, baseline: Array, name: str, settings: Settings) -> dict[str, float]:
    both = np.stack([per_patient(arm), per_patient(baseline)])
    both = both[:, np.isfinite(both).all(0)]
    patients = both.shape[1]
    if patients < LEAST_PATIENTS:
        raise TooFewError(
            f"{name}: {patients} patients have values in both arms; with fewer than {LEAST_PATIENTS} no difference can be "
            "told from chance."
        )
    differences = both[0] - both[1]
    low, high = interval(differences, 1 - settings.alpha, settings)
    inner = interval(differences, 1 - 2 * settings.alpha, settings) if settings.margin else (-math.inf, math.inf)
    return {
        "patients": patients,
        "mean": float(both[0].mean()),
        "baseline_mean": float(both[1].mean()),
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "p": signed_rank(differences),
        "equivalent": float(-settings.margin < inner[0] and inner[1] < settings.margin),
    }


def _verdict(draft: Mapping[str, float], p: float, noise: float, settings: Settings) -> str:
    apart = not draft["low"] <= 0 <= draft["high"] and p < settings.alpha
    known = not math.isnan(noise)
    if apart and known and abs(draft["difference"]) > noise:
        return "better" if draft["difference"] > 0 else "worse"
    if draft["equivalent"]:
        return "equivalent"
    return "within the noise" if known and abs(draft["difference"]) <= noise else "undecided"
