"""Parts of the report about runs and cases: calibration, learning curves, cost, disagreement, failures, what was matched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from monai_segloss.experiment import figures
from monai_segloss.experiment.analysis import Analysis
from monai_segloss.experiment.cells import (
    DASH,
    Figure,
    Section,
    Shown,
    Table,
    capital,
    digits,
    number,
    plain,
    quoted,
    words,
)
from monai_segloss.experiment.findings import arms, by_spread, failures, headline, highlighted
from monai_segloss.experiment.measures import calibration_errors
from monai_segloss.experiment.sections import MOST_CLASSES, MOST_ROWS, alt, left_out
from monai_segloss.experiment.tables import HALF, MEAN, RUN, Tables

MOST_CASES = 10
"""That are shown of those in which the arms differ."""


def calibration(tables: Tables, analysis: Analysis) -> Section:
    """Reliability diagrams of each class, with the two calibration errors."""
    title = "Calibration"
    if tables.bins.empty:
        why = "No run has probabilities. nnU-Net keeps those of its validation with --npz."
        return Section("calibration", title, (why,))
    bins = tables.bins.merge(tables.runs[["run", "arm"]], on="run")
    count = int(bins["bin"].max()) + 1
    drawn, rows = [], []
    colored = highlighted(tables, analysis, len(figures.COLORS))
    for i, (label, part) in enumerate(bins.groupby("label", sort=False)):
        values, said = {}, []
        for arm in arms(tables):
            own = part[part["arm"] == arm].groupby("bin")[["voxels", "confidence", "positives"]].sum()
            errors = calibration_errors(own.reindex(range(count), fill_value=0.0).to_numpy(float).T)
            why = "its runs have no probabilities"
            rows.append([
                Shown(str(label)), Shown(arm), number(errors["ece"], 4, reason=why), number(errors["ace"], 3, reason=why)
            ])  # fmt: skip
            if len(own):
                values[arm] = tuple((own[name] / own["voxels"]).to_numpy(float) for name in ("confidence", "positives"))
                said.append(f"{arm} ECE {plain(errors['ece'], 4)}, ACE {plain(errors['ace'], 3)}")
        if i < MOST_CLASSES:
            names = (f"mean probability of {figures.short(str(label), 30)}", "share of voxels of the class")
            svg = figures.lines(values, names, colored, diagonal=True)
            caption = f"{quoted(str(label))}: on the dashed line probabilities are what they say."
            drawn.append(Figure(f"reliability_{i}", alt(f"Reliability of {label}", said), caption, svg))
    columns = ("class", "arm", "ECE", "ACE")
    text = (
        "Voxels of all cases and seeds together. ECE weighs a bin by its voxels, ACE counts all bins alike.",
        "Errors per case are in the tables.",
        *left_out(tables, len(rows)),
    )
    table = Table("Calibration errors", columns, rows[:MOST_ROWS], names=2)
    return Section("calibration", title, text, drawn, (table,))


def learning(tables: Tables, analysis: Analysis) -> Section:
    """Online Dice and training loss by epoch, each arm's mean over its runs."""
    title = "Learning curves"
    curves = tables.curves.merge(tables.runs[["run", "arm"]], on="run")
    known = [name for name in ("dice", "train_loss") if name in curves.columns and curves[name].notna().any()]
    if not known:
        return Section("curves", title, ("The runs left no learning curves.",))
    drawn = []
    colored = highlighted(tables, analysis, len(figures.COLORS))
    for name in known:
        table = curves.pivot_table(name, "epoch", "arm", aggfunc="mean")
        values, said = {}, []
        for arm in (each for each in arms(tables) if each in table.columns):
            series = table[arm].dropna()
            y = series.to_numpy(float)
            if name == "train_loss":
                y = (y - y.min()) / (np.ptp(y) or 1.0)
            values[arm] = (series.index.to_numpy(float) + 1, y)
            said.append(f"{arm} ends at {plain(float(series.iloc[-1]))} after {len(series)} epochs")
        if name == "dice":
            axis, caption = "Dice on validation patches", "The Dice of random validation patches during training."
        else:
            axis = "training loss, 0 its lowest"
            caption = "Each loss between its lowest (0) and highest (1) value, since losses have different scales."
        drawn.append(
            Figure(
                f"curve_{name}", alt(f"{axis} by epoch", said), caption, figures.lines(values, ("epoch", axis), colored)
            )
        )
    return Section("curves", title, ("Means over the runs of an arm. They show whether a training had ended.",), drawn)


def facts_of(runs: pd.DataFrame) -> list[str]:
    """Columns of the runs with numbers alongside those that all have: minutes, memory and the like."""
    others = [name for name in runs.columns if name not in RUN and not name.endswith("_hash")]
    return [name for name in others if pd.api.types.is_numeric_dtype(runs[name]) and runs[name].notna().any()]


def cost(tables: Tables) -> Section:
    """What the runs of each arm took."""
    runs, title = tables.runs, "Cost"
    names = facts_of(runs)
    if not names:
        return Section("cost", title, ("The runs say nothing about their time or memory.",))
    rows = []
    for arm in arms(tables):
        own = runs[(runs["arm"] == arm) & (runs["state"] != "failed")]
        means = [float(own[name].mean()) if len(own) else math.nan for name in names]
        reason = "no run finished" if own.empty else "not recorded"
        rows.append([Shown(arm), Shown(str(len(own))), *(number(x, _places(x), reason=reason) for x in means)])
    columns = ("arm", "runs", *(name.replace("_", " ") for name in names))
    return Section("cost", title, ("Means over the runs of an arm.",), (), (Table("Cost per run", columns, rows),))


def _places(value: float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def disagreement(tables: Tables, drawn: Sequence[Figure]) -> Section:
    """The cases in which the arms differ most, with the pictures that there are of them."""
    title = "Where the arms disagree most"
    table = by_spread(tables).head(MOST_CASES)
    if table.empty:
        return Section("disagreement", title, ("Fewer than two arms have values of a case.",))
    measure = headline(tables)[0]
    places, rows = digits(measure), []
    for case in table.index:
        each = table.loc[case].dropna()
        low, high = each.idxmin(), each.idxmax()
        value = each[high] - each[low]
        cells = (
            Shown(low),
            number(each[low], places),
            Shown(high),
            number(each[high], places),
            number(value, places),
        )
        rows.append([Shown(str(case)), *cells])
    columns = ("case", "lowest arm", "value", "highest arm", "value", "spread")
    text = ("Means over seeds.", *([] if drawn else ["There are no pictures, which are made when cases are measured."]))
    caption = f"{capital(words(measure))}, mean over classes"
    return Section("disagreement", title, text, drawn, (Table(caption, columns, rows),))


def failed(tables: Tables, cases: pd.DataFrame) -> Section:
    """Runs that did not do what they should, and predictions without the class."""
    runs = tables.runs
    classes = cases[(cases["label"] != MEAN) & (cases["point"] == HALF)]
    counted = {"reference_mm3", "predicted_mm3"} <= set(classes.columns)
    losses = tables.curves.merge(runs[["run", "arm"]], on="run")
    rows = []
    for arm in arms(tables):
        own = runs[runs["arm"] == arm]
        cells = [Shown(str(int((own["state"] == state).sum()))) for state in ("failed", "diverged", "collapsed")]
        part = classes[classes["arm"] == arm]
        empty = Shown(DASH, "volumes were not recorded" if len(part) else "no measured case")
        if counted and len(part):
            there = part[part["reference_mm3"] > 0]
            empty = Shown(f"{int((there['predicted_mm3'] == 0).sum())} of {len(there)}")
        curve = losses[losses["arm"] == arm]
        broken = Shown(DASH, "no learning curve")
        if "train_loss" in curve.columns and len(curve):
            broken = Shown(str(int((~np.isfinite(curve["train_loss"].to_numpy(float))).sum())))
        rows.append([Shown(arm), Shown(str(len(own))), *cells, empty, broken])
    columns = ("arm", "runs", "failed", "diverged", "collapsed", "empty predictions", "epochs without a loss")
    text = (
        *failures(tables),
        "An empty prediction has no voxel of a class that the reference has. It counts in every measure and is not dropped.",
    )
    return Section("failures", "What failed", text, (), (Table("Failures by arm", columns, rows),))


def design(tables: Tables) -> Section:
    """Which runs there are, and whether they differ in more than the loss."""
    runs = tables.runs
    described = [name for name in ("trainer", "loss", "settings", "device") if name in runs.columns]
    rows = []
    for arm in arms(tables):
        own = runs[runs["arm"] == arm]
        cells = [Shown(str(len(own))), Shown(_some(own["seed"])), Shown(_some(own["fold"]))]
        cells += [Shown(_some(own[name].dropna())) for name in described]
        rows.append([Shown(arm), *[each if each.text else Shown(DASH, "not recorded") for each in cells]])
    columns = ("arm", "runs", "seeds", "folds", *described)
    text = matching(tables)
    return Section("design", "Runs", text, (), (Table("Runs by arm", columns, rows),))


def _some(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(each) for each in values))


def matching(tables: Tables) -> list[str]:
    """For splits, plans and first weights: whether runs of one fold and seed have the same."""
    runs = tables.runs[tables.runs["state"] != "failed"]
    told = {
        "splits_hash": ("held-out cases", ["fold"]),
        "plans_hash": ("plans", ["dataset"]),
        "weights_hash": ("first weights", ["fold", "seed"]),
    }
    out = []
    for column, (what, keys) in told.items():
        if column not in runs.columns or runs[column].isna().all():
            out.append(f"Whether all arms have the same {what} was not recorded.")
            continue
        same = runs.groupby(keys)[column].nunique(dropna=False).max() == 1
        unit = f" in each {' and '.join(keys)}" if keys != ["dataset"] else ""
        out.append(
            f"All runs have the same {what}{unit}, by their hashes."
            if same
            else f"The runs do not have the same {what}{unit}: more than the loss differs."
        )
    return out
