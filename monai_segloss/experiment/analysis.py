"""From the tables of a comparison to what can be said: each arm against the baseline, by measure and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from monai_segloss.experiment.measures import MEASURES
from monai_segloss.experiment.ranking import Ranks, not_the_best, ranks
from monai_segloss.experiment.statistics import LEAST_PATIENTS, Array, Settings, TooFewError, compare, least_patients
from monai_segloss.experiment.tables import HALF, MEAN, OWN, Tables, measures_of

STRATA = ("small", "medium", "large")
ALL = "all"


@dataclass(frozen=True)
class Analysis:
    """What the tables say.

    Args:
        baseline: the arm that the others are compared with.
        comparisons: a row per measure, class, operating point, stratum and arm, see `statistics.Comparison`; values in the
            units of the measure, differences with its sign.
        ranks: by measure: the order of the arms in the mean over classes at the common operating point.
        not_best: by measure: for each arm the probability that it is not the best.
        warnings: what cannot be said, and why, in sentences.
    """

    baseline: str
    comparisons: pd.DataFrame
    ranks: dict[str, Ranks]
    not_best: dict[str, dict[str, float]]
    warnings: tuple[str, ...]


def analyze(tables: Tables, baseline: str | None = None, settings: Settings | None = None) -> Analysis:
    """Compare every arm with the baseline.

    Args:
        tables: of one data set.
        baseline: an arm; None: the one with the most runs, the first of them.
        settings: of the statistics.

    Raises:
        ValueError: no such arm, one arm alone, or several data sets.
    """
    settings = settings or Settings()
    names = sorted(set(tables.runs["dataset"]))
    if len(names) > 1:
        raise ValueError(f"the tables hold the data sets {', '.join(names)}; analyze them one by one.")
    arms = list(dict.fromkeys(tables.runs["arm"]))
    counts = tables.runs["arm"].value_counts()
    baseline = baseline or max(arms, key=lambda arm: counts[arm])
    if baseline not in arms:
        raise ValueError(f"baseline: no arm is called {baseline!r}; there are {', '.join(arms)}.")
    if len(arms) < 2:
        raise ValueError(f"there is nothing to compare: all runs are of the arm {baseline!r}.")
    joined = with_strata(tables.joined())
    rows: list[dict[str, object]] = []
    too_few: dict[str, list[str]] = {}
    found_ranks: dict[str, Ranks] = {}
    found_best: dict[str, dict[str, float]] = {}
    for measure in measures_of(joined):
        for (label, point), part in joined.groupby(["label", "point"], sort=False):
            for stratum in (ALL, *STRATA) if label != MEAN else (ALL,):
                chosen = part if stratum == ALL else part[part["stratum"] == stratum]
                values = arrays(chosen, measure, arms)
                if baseline not in values or len(values) < 2:
                    continue
                try:
                    found = compare(values, baseline, settings)
                except TooFewError:
                    if stratum == ALL:
                        too_few.setdefault(MEASURES[measure].words, []).append(str(label))
                    continue
                place = {"measure": measure, "label": label, "point": point, "stratum": stratum}
                rows += [{**place, **_in_units(asdict(each), measure)} for each in found]
                if (label, point, stratum) == (MEAN, HALF, ALL):
                    found_ranks[measure] = ranks(values, settings)
                    found_best[measure] = not_the_best(values, settings)
    warnings = _warnings(tables, baseline, settings)
    if too_few:
        parts = [f"{words} ({', '.join(dict.fromkeys(labels))})" for words, labels in too_few.items()]
        warnings.append(
            f"fewer than {LEAST_PATIENTS} patients have a value in an arm and in the baseline, so that nothing is said of "
            f"{'; '.join(parts)}."
        )
    return Analysis(baseline, pd.DataFrame(rows), found_ranks, found_best, tuple(warnings))


def arrays(cases: pd.DataFrame, measure: str, arms: Sequence[str]) -> dict[str, Array]:
    """(seeds, patients) of each arm that has all its patients in every seed; larger is better.

    Images of a patient are averaged.  A fold is part of a run, so that a patient has one value per seed.
    """
    oriented = cases.assign(value=oriented_values(cases[measure].to_numpy(float), measure))
    table = oriented.pivot_table("value", ["arm", "seed"], "patient", aggfunc="mean", dropna=False)
    table = table.dropna(axis=0, how="all").sort_index()
    found = {}
    for arm in arms:
        if arm in table.index.get_level_values("arm"):
            found[arm] = table.loc[arm].to_numpy(float)
    return found


def oriented_values(values: Array, measure: str) -> Array:
    """The values with a sign with which larger is better."""
    direction = MEASURES[measure].larger_is_better
    return values if direction else -values if direction is False else -np.abs(values)


def with_strata(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases with a column for the third of its sizes in which the reference of a class is: small, medium or large.

    Rows without a reference, and those of means, are in none.
    """
    found = cases.assign(stratum="")
    if "reference_mm3" not in cases.columns:
        return found
    for _, part in cases[(cases["label"] != MEAN) & (cases["reference_mm3"] > 0)].groupby("label"):
        sizes = part.drop_duplicates("case")["reference_mm3"]
        edges = np.quantile(sizes, [1 / 3, 2 / 3])
        which = np.digitize(part["reference_mm3"], edges)
        found.loc[part.index, "stratum"] = np.array(STRATA)[which]
    return found


def _in_units(row: dict[str, object], measure: str) -> dict[str, object]:
    """Differences as the measure has them: an error that shrank is negative."""
    if MEASURES[measure].larger_is_better:
        return row
    mean, base, difference, low, high = (
        float(str(row[name])) for name in ("mean", "baseline_mean", "difference", "low", "high")
    )
    return {**row, "mean": -mean, "baseline_mean": -base, "difference": -difference, "low": -high, "high": -low}


def _warnings(tables: Tables, baseline: str, settings: Settings) -> list[str]:
    runs, found = tables.runs, list[str]()
    others, patients = runs["arm"].nunique() - 1, tables.cases["patient"].nunique()
    if LEAST_PATIENTS <= patients < (least := least_patients(others, settings.alpha)):
        found.append(
            f"{patients} patients are too few to claim a difference of one of {others} arms, since Holm's correction "
            f"multiplies the smallest p of the signed-rank test: it takes {least}."
        )
    seeds = runs.groupby("arm", sort=False)["seed"].nunique()
    if seeds[baseline] < 2:
        found.append(
            f"the baseline {baseline!r} has one seed: how much a training differs from its repetition is not known, so that "
            "no difference can be claimed."
        )
    single = [arm for arm, count in seeds.items() if count < 2 and arm != baseline]
    if single:
        found.append(f"one seed of {', '.join(map(str, single))}: a single training may be a lucky one.")
    for state in ("failed", "diverged", "collapsed"):
        lost = runs[runs["state"] == state]
        if len(lost):
            found.append(f"{len(lost)} of {len(runs)} runs {state}: {', '.join(map(str, lost['run']))}.")
    points = set(tables.cases["point"])
    if OWN not in points and len(tables.cases):
        found.append(
            "predictions without probabilities: all arms are compared at the largest probability, so that a part of a "
            "difference may be a shift of the operating point."
        )
    configurations = sorted(set(runs["configuration"]))
    if len(configurations) > 1:
        found.append(f"the runs have other configurations ({', '.join(configurations)}): more than the loss differs.")
    for column in ("splits_hash", "plans_hash", "weights_hash"):
        if (
            column in runs.columns
            and runs[runs["state"] != "failed"].groupby(["fold", "seed"])[column].nunique().max() > 1
        ):
            found.append(f"runs of one fold and seed differ in {column}: they are not matched.")
    return found
