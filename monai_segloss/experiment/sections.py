"""Parts of the report about the arms: differences, ranks, classes, sizes, operating points."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_segloss.experiment import figures
from monai_segloss.experiment.analysis import ALL, Analysis
from monai_segloss.experiment.cells import (
    DASH,
    Figure,
    Section,
    Shown,
    Table,
    capital,
    digits,
    number,
    percent,
    plain,
    quoted,
    words,
)
from monai_segloss.experiment.findings import arms, headline, select
from monai_segloss.experiment.measures import MEASURES
from monai_segloss.experiment.statistics import Settings
from monai_segloss.experiment.tables import HALF, MEAN, OWN, Tables

Array = NDArray[np.float64]
MOST_CLASSES, MOST_ROWS = 12, 200
"""Of figures, and of rows of a long table, that are shown; the files hold all."""


def classes_of(tables: Tables) -> list[str]:
    """Names of the classes, the mean left out."""
    return [label for label in dict.fromkeys(tables.cases["label"]) if label != MEAN]


def left_out(tables: Tables, rows: int) -> list[str]:
    """Sentences about what is in the files but not on the page."""
    classes = len(classes_of(tables))
    text = [f"Figures of the first {MOST_CLASSES} of {classes} classes."] if classes > MOST_CLASSES else []
    return text + ([f"The first {MOST_ROWS} of {rows} rows; the files hold all."] if rows > MOST_ROWS else [])


def alt(title: str, rows: Sequence[str], most: int = 8) -> str:
    """Text in place of a figure: its first rows, and where the others are."""
    left = len(rows) - most
    return f"{title}: {'; '.join(rows[:most])}{f'; and {left} more, which the tables hold' if left > 0 else ''}."


def differences(tables: Tables, analysis: Analysis, settings: Settings) -> Section:
    """Forest plots and tables of the mean over classes."""
    drawn, shown = [], []
    level = percent(1 - settings.alpha)
    for measure in headline(tables):
        rows = [dict(each) for each in select(analysis, measure).to_dict("records")]
        if not rows:
            continue
        places, name = digits(measure), words(measure)
        said = [
            f"{row['arm']} {plain(row['difference'], places, True)} ({plain(row['low'], places, True)} to "
            f"{plain(row['high'], places, True)}), {row['verdict']}"
            for row in rows
        ]
        caption = (
            f"Difference to {quoted(analysis.baseline)} with its {level} interval over patients. Gray bar: differences that "
            "other seeds of the baseline give. A filled point is a claimed difference."
        )
        if max(row["noise"] for row in rows) > 3 * max(abs(row[end]) for row in rows for end in ("low", "high")):
            caption += " A bar that fills the width goes on beyond it."
        better = MEASURES[measure].larger_is_better
        axis = f"difference in {name}" + {True: ", right is better", False: ", left is better", None: ""}[better]
        title = f"Differences in {name} to {analysis.baseline}"
        drawn.append(
            Figure(f"forest_{measure}", alt(title, said), caption, figures.forest(rows, axis, settings.margin))
        )
        shown.append(_table(tables, analysis, measure, rows, level))
    if not drawn:
        return Section("differences", "Differences to the baseline", ("There is no comparison to show.",))
    text = (
        "Means over the classes of a case at the common operating point.",
        "The unit is the patient: seeds, folds and images of a patient are averaged first.",
    )
    return Section("differences", "Differences to the baseline", text, drawn, shown)


def _table(tables: Tables, analysis: Analysis, measure: str, rows: Sequence[Mapping[str, Any]], level: str) -> Table:
    places = digits(measure)
    best = analysis.not_best.get(measure, {})
    found = [_comparison(row, places, best) for row in rows]
    mean = float(rows[0]["baseline_mean"])
    nothing = [Shown(DASH, "the baseline itself")] * 4
    own = [
        Shown(analysis.baseline),
        number(mean, places),
        *nothing,
        _share(best, analysis.baseline),
        Shown("baseline"),
    ]
    absent = [arm for arm in arms(tables) if arm not in {row["arm"] for row in rows} | {analysis.baseline}]
    found += [
        [Shown(arm), *[Shown(DASH, "no values that could be compared")] * 6, Shown("no verdict")] for arm in absent
    ]
    columns = ("arm", "mean", "difference", f"{level} interval", "p (Holm)", "noise ±", "P(not best)", "verdict")
    return Table(f"{capital(words(measure))}, mean over classes", columns, [own, *found])


def _comparison(row: Mapping[str, Any], places: int, best: Mapping[str, float]) -> list[Shown]:
    verdict = str(row["verdict"])
    tone = verdict if verdict in ("better", "worse") else ""
    return [
        Shown(str(row["arm"])),
        number(row["mean"], places),
        number(row["difference"], places, True, tone=tone),
        Shown(f"{plain(row['low'], places, True)} to {plain(row['high'], places, True)}"),
        number(row["p_holm"], 4 if row["p_holm"] < 0.01 else 3),
        number(row["noise"], places, reason="the baseline has one seed"),
        _share(best, str(row["arm"])),
        Shown(verdict, tone=tone),
    ]


def _share(best: Mapping[str, float], arm: str) -> Shown:
    return number(best.get(arm, math.nan), 2, reason="no patient has a value in every arm")


def rank_section(tables: Tables, analysis: Analysis) -> Section:
    """The order of the arms and how stable it is."""
    drawn, text = [], []
    for measure, ranks in analysis.ranks.items():
        if measure not in headline(tables):
            continue
        rows = [f"{name} {i + 1} ({ranks.low[name]:g} to {ranks.high[name]:g})" for i, name in enumerate(ranks.order)]
        wrong = analysis.not_best[measure][ranks.order[0]]
        text.append(
            f"{capital(MEASURES[measure].words)}: {quoted(ranks.order[0])} has the best mean; the probability that it is "
            f"not the best is {wrong:.2f}. Kendall's tau between this order and that of new samples is {ranks.tau:.2f}."
        )
        caption = f"Rank in {words(measure)} with the 95 % interval of samples of patients and seeds."
        drawn.append(
            Figure(f"rank_{measure}", alt(f"Ranks in {words(measure)}", rows), caption, figures.rank_plot(ranks))
        )
    return Section(
        "ranks", "Ranks", text or ("No patient has a value in every arm, so that there is no order.",), drawn
    )


def per_patient(cases: pd.DataFrame, measure: str, names: Sequence[str]) -> dict[str, Array]:
    """Arm -> the patients' means over seeds and images, in the unit of the measure; arms without values are left out."""
    found = cases.groupby(["arm", "patient"])[measure].mean().dropna()
    known = set(found.index.get_level_values("arm"))
    return {name: found.loc[name].to_numpy(float) for name in names if name in known}


def class_section(tables: Tables, analysis: Analysis, cases: pd.DataFrame) -> Section:
    """Distributions over patients of each class, and the differences by class and size."""
    names = headline(tables)
    if not names:
        return Section("classes", "Classes", ("No case was measured.",))
    measure, drawn = names[0], []
    known = classes_of(tables)
    for i, label in enumerate(known[:MOST_CLASSES]):
        part = cases[(cases["label"] == label) & (cases["point"] == HALF)]
        values = per_patient(part, measure, arms(tables))
        if not values:
            continue
        said = [f"{arm} median {np.median(x):.3f} of {len(x)} patients" for arm, x in values.items()]
        title = f"{capital(words(measure))} of {label} by arm"
        bounded = measure not in ("hd95",)
        svg = figures.distributions(values, f"{words(measure)} of {figures.short(label, 30)}", bounded)
        caption = f"{quoted(label)}: quartiles and median over patients; whiskers reach 1.5 times the box."
        drawn.append(Figure(f"distribution_{i}", alt(title, said), caption, svg))
    found = analysis.comparisons
    if found.empty:
        return Section("classes", "Classes", left_out(tables, 0), drawn)
    rows = found[(found["measure"] == measure) & (found["label"] != MEAN) & (found["point"] == HALF)]
    text = left_out(tables, len(rows))
    columns = ("class", "size", "arm", "mean", "difference", "interval", "p (Holm)", "noise ±", "verdict")
    shown = []
    for row in rows.head(MOST_ROWS).to_dict("records"):
        arm, *middle, _, verdict = _comparison(row, digits(measure), {})
        shown.append([Shown(row["label"]), Shown(row["stratum"]), arm, *middle, verdict])
    caption = f"{capital(words(measure))} by class; sizes are thirds of the volumes of the references"
    table = Table(caption, columns, shown, names=3)
    if set(rows["stratum"]) <= {ALL}:
        text.append("Too few patients for a comparison by size of the reference.")
    return Section("classes", "Classes", text, drawn, (table,) if shown else ())


def sizes_section(tables: Tables, cases: pd.DataFrame, edges: Sequence[float], settings: Settings) -> Section:
    """Share of the reference's components that were found, by size class, with intervals over patients."""
    count = sum(bool(re.fullmatch(r"lesions_size_\d+", name)) for name in cases.columns)
    title = "Recall by lesion size"
    if not count:
        return Section("sizes", title, ("No size classes were measured; --sizes gives their edges in mm³.",))
    names = size_names(edges, count)
    drawn, tables_ = [], []
    for i, label in enumerate(classes_of(tables)[:MOST_CLASSES]):
        part = cases[(cases["label"] == label) & (cases["point"] == HALF)]
        found = {arm: _recalls(part[part["arm"] == arm], count, settings) for arm in arms(tables)}
        rows = [
            [Shown(arm)]
            + [
                Shown(f"{plain(v[0])} ({plain(v[1])} to {plain(v[2])})")
                if math.isfinite(v[0])
                else Shown(DASH, "no lesion of that size")
                for v in each
            ]
            for arm, each in found.items()
        ]
        tables_.append(Table(f"Recall of the components of {label}, with 95 % interval", ("arm", *names), rows))
        known = {arm: each for arm, each in found.items() if np.isfinite([v[0] for v in each]).any()}
        if known:
            said = [f"{arm} {', '.join(plain(v[0], 2) for v in each)}" for arm, each in known.items()]
            svg = figures.groups(known, names, f"share of components of {figures.short(label, 24)} found", True)
            words_ = alt(f"Recall of {label} by size ({'; '.join(names)})", said)
            drawn.append(Figure(f"recall_{i}", words_, f"{quoted(label)}: found components by volume.", svg))
    text = (
        "A component is found where the prediction shares a voxel with it. Components of all seeds are pooled.",
        *left_out(tables, 0),
    )
    return Section("sizes", title, text, drawn, tables_)


def size_names(edges: Sequence[float], count: int) -> list[str]:
    """Of the size classes, by their edges where these are known."""
    if len(edges) + 1 != count:
        return [f"size class {i + 1}" for i in range(count)]
    middle = [f"{low:g} to {high:g} mm³" for low, high in itertools.pairwise(edges)]
    return [f"under {edges[0]:g} mm³", *middle, f"from {edges[-1]:g} mm³"]


def _recalls(cases: pd.DataFrame, count: int, settings: Settings) -> list[figures.Interval]:
    """Recall of each size class over all components, with the bootstrap over patients."""
    rng = np.random.default_rng(settings.seed)
    names = [f"lesions{found}_size_{i}" for found in ("", "_found") for i in range(count)]
    sums = cases.groupby("patient")[names].sum().to_numpy(float)
    if not len(sums):
        return [(math.nan,) * 3] * count
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), settings.resamples) @ sums
    out = list[figures.Interval]()
    for i in range(count):
        there, found = sums[:, i].sum(), sums[:, count + i].sum()
        if not there:
            out.append((math.nan,) * 3)
            continue
        some = drawn[:, i] > 0
        low, high = np.percentile(drawn[some, count + i] / drawn[some, i], [2.5, 97.5])
        out.append((float(found / there), float(low), float(high)))
    return out


def points_section(tables: Tables, analysis: Analysis, cases: pd.DataFrame) -> Section:
    """Each arm at the common operating point and at thresholds of its own."""
    title = "Operating point"
    if OWN not in set(cases["point"]) or "dice" not in cases.columns:
        why = "No run has probabilities, so that all arms are compared at the largest probability (1/2 of a region)."
        return Section("points", title, (why,))
    each = cases[cases["label"] == MEAN].groupby(["arm", "point", "patient"])["dice"].mean()
    mean = each.groupby(["arm", "point"]).mean()
    chosen = cases[cases["point"] == OWN]
    thresholds = chosen.groupby("arm")["threshold"].median() if "threshold" in chosen.columns else {}
    verdicts = {row["arm"]: row["verdict"] for row in select(analysis, "dice", point=OWN).to_dict("records")}
    rows, values = [], {}
    why = "its runs have no probabilities"
    for arm in arms(tables):
        half, own = (float(mean.get((arm, point), math.nan)) for point in (HALF, OWN))
        verdict = Shown("baseline") if arm == analysis.baseline else Shown(verdicts.get(arm, DASH))
        if verdict.text == DASH:
            verdict = Shown(DASH, "no comparison")
        rows.append([
            Shown(arm), number(half, reason="no measured case"), number(own, reason=why),
            number(own - half, signed=True, reason=why),
            number(float(thresholds.get(arm, math.nan)), 2, reason="no threshold was kept"), verdict,
        ])  # fmt: skip
        if math.isfinite(half) or math.isfinite(own):
            values[arm] = [(half, math.nan, math.nan), (own, math.nan, math.nan)]
    columns = ("arm", "Dice, common", "Dice, own", "gain", "median threshold", "verdict, own")
    said = [f"{arm} {plain(v[0][0])} and {plain(v[1][0])}" for arm, v in values.items()]
    svg = figures.groups(values, ("common point", "own thresholds"), "Dice, mean over classes")
    caption = "A large gain means that a part of a difference was a shift of the operating point."
    figure = Figure("points", alt("Dice at the common point and at own thresholds", said), caption, svg)
    text = (
        "Means over patients.",
        "Own thresholds are chosen per class on the other patients, never on the patient that they are applied to.",
    )
    return Section("points", title, text, (figure,), (Table("Dice at both operating points", columns, rows),))
