"""What a comparison says, in sentences: claims, noise, and what cannot be said."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from monai_segloss.experiment.analysis import ALL, Analysis
from monai_segloss.experiment.cells import digits, listed, plain, quoted
from monai_segloss.experiment.measures import MEASURES
from monai_segloss.experiment.statistics import Settings
from monai_segloss.experiment.tables import HALF, MEAN, OWN, Tables, measures_of

HEADLINE = ("dice", "nsd", "hd95", "cldice", "lesion_f1", "ece")
"""Measures that have figures; the first that is there is the one on which something is claimed."""


def headline(tables: Tables) -> list[str]:
    """The measures of `HEADLINE` that have values; else the first that has."""
    known = measures_of(tables.cases)
    return [name for name in HEADLINE if name in known] or known[:1]


def select(analysis: Analysis, measure: str, label: str = MEAN, point: str = HALF, stratum: str = ALL) -> pd.DataFrame:
    """The comparisons of one measure in one place; none where nothing could be compared."""
    found = analysis.comparisons
    if found.empty:
        return found
    keep = (found["measure"] == measure) & (found["label"] == label)
    return found[keep & (found["point"] == point) & (found["stratum"] == stratum)]


def arms(tables: Tables) -> list[str]:
    """In the order of the table of runs."""
    return list(dict.fromkeys(tables.runs["arm"]))


def summary(tables: Tables, analysis: Analysis, settings: Settings) -> list[str]:
    """Claimed differences, what is within the noise, and what the comparison does not show; a text for each."""
    names = headline(tables)
    found = select(analysis, names[0]) if names else pd.DataFrame()
    base = quoted(analysis.baseline)
    if found.empty:
        return [
            f"No difference to {base} can be claimed.",
            "No arm is known to be within the noise of the seed.",
            f"No arm could be compared with {base}: {_why_none(tables, analysis)}.",
        ]
    words = MEASURES[names[0]].words
    return [
        _claims(found, names[0], analysis),
        _noise(found, words, names[0], settings),
        _unsaid(found, words, tables, analysis),
    ]


def _why_none(tables: Tables, analysis: Analysis) -> str:
    measured = set(tables.joined()["arm"])
    if analysis.baseline not in measured:
        return "the baseline has no measured case"
    if measured == {analysis.baseline}:
        return "no other arm has a measured case"
    return "too few patients have a value in both"


def _claims(found: pd.DataFrame, measure: str, analysis: Analysis) -> str:
    base, words, places = quoted(analysis.baseline), MEASURES[measure].words, digits(measure)
    claimed = found[found["verdict"].isin(("better", "worse"))]
    if claimed.empty:
        return f"No difference in {words} to {base} can be claimed."
    parts = []
    for verdict in ("better", "worse"):
        part = claimed[claimed["verdict"] == verdict].sort_values("difference", key=lambda x: -x.abs(), kind="stable")
        shown = [
            f"{quoted(row['arm'])} ({plain(row['difference'], places, True)}, interval {plain(row['low'], places, True)} "
            f"to {plain(row['high'], places, True)})"
            for row in part.head(4).to_dict("records")
        ]
        if len(part) > len(shown):
            shown.append(f"and {len(part) - len(shown)} more")
        if shown:
            parts.append(f"{verdict} {'is' if len(part) == 1 else 'are'} {', '.join(shown)}")
    own = select(analysis, measure, point=OWN)
    holds = own[own["arm"].isin(claimed["arm"])].set_index("arm")["verdict"] if len(own) else pd.Series(dtype=str)
    kept = sum(holds.get(row["arm"]) == row["verdict"] for row in claimed.to_dict("records"))
    also = f" With own thresholds the verdict is the same for {kept} of {len(claimed)}."
    return f"In {words}, compared with {base}, {'; '.join(parts)}.{also if len(own) else ''}"


def _noise(found: pd.DataFrame, words: str, measure: str, settings: Settings) -> str:
    inside = list(found[found["verdict"] == "within the noise"]["arm"])
    same = list(found[found["verdict"] == "equivalent"]["arm"])
    noise = found["noise"].max()
    if pd.isna(noise):
        first = "The noise of the seed is not known, since the baseline has one seed"
    elif inside:
        first = (
            f"Within the noise of the seed (at most ±{plain(noise, digits(measure))} {words}) "
            f"{'is' if len(inside) == 1 else 'are'} {listed(inside)}"
        )
    else:
        first = f"No arm is within the noise of the seed (at most ±{plain(noise, digits(measure))} {words})"
    if same:
        first += f"; equivalent within ±{settings.margin:g} {'is' if len(same) == 1 else 'are'} {listed(same)}"
    return first + "."


def _unsaid(found: pd.DataFrame, words: str, tables: Tables, analysis: Analysis) -> str:
    open_ = list(found[found["verdict"] == "undecided"]["arm"])
    absent = [arm for arm in arms(tables) if arm not in set(found["arm"]) | {analysis.baseline}]
    parts = []
    if open_:
        parts.append(
            f"It is undecided whether {listed(open_)} {'differs' if len(open_) == 1 else 'differ'} in {words}."
        )
    if absent:
        parts.append(f"There are no values to compare of {listed(absent)}.")
    parts.append("The comparison says nothing about other data, longer training or other architectures.")
    return " ".join(parts)


def failures(tables: Tables) -> list[str]:
    """States of the runs other than done, in sentences."""
    runs = tables.runs
    lost = runs[runs["state"] != "done"]
    if lost.empty:
        return [f"All {len(runs)} runs finished."]
    return [
        f"{len(part)} of {len(runs)} runs {state}: {listed(list(part['run']), 12)}."
        for state, part in lost.groupby("state", sort=False)
    ]


def by_spread(tables: Tables) -> pd.DataFrame:
    """The first headline measure by case and arm, mean over classes and seeds; first the cases in which arms differ most."""
    names, cases = headline(tables), tables.joined()
    part = cases[(cases["label"] == MEAN) & (cases["point"] == HALF)]
    if not names or part.empty or part["arm"].nunique() < 2:
        return pd.DataFrame()
    table = part.pivot_table(names[0], "case", "arm", aggfunc="mean")
    spread = (table.max(axis=1) - table.min(axis=1)).sort_values(ascending=False, kind="stable")
    return table.loc[spread.index]


def highlighted(tables: Tables, analysis: Analysis, most: int) -> Sequence[str]:
    """The baseline and the arms that lead, for figures in which not all can have a color."""
    names = arms(tables)
    if len(names) <= most:
        return names
    order = next((list(ranks.order) for ranks in analysis.ranks.values()), names)
    return [analysis.baseline, *(name for name in order if name != analysis.baseline)][:most]
