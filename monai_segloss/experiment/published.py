"""Part of the report: our values beside those of a published comparison, and what differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from monai_segloss.experiment.cells import Section, Shown, Table, capital, digits, listed, number
from monai_segloss.experiment.measures import MEASURES
from monai_segloss.experiment.protocol import Protocol, with_rate
from monai_segloss.experiment.tables import HALF, MEAN, Tables

Values = Mapping[str, Sequence[float]]
"""Arm of the protocol -> one value per measure."""
SHORT = {"nsd": "NSD", "hd95": "HD95", "assd": "ASSD"}
"""Of measures, in columns."""


def section(protocol: Protocol, tables: Tables, comparison: Mapping[str, Any]) -> Section:
    """Our values and the published ones of each loss.

    Args:
        protocol: that the comparison followed.
        tables: what was measured.
        comparison: its matrix as plain data.
    """
    losses = [arm if isinstance(arm, str) else str(arm["name"]) for arm in protocol.matrix["arms"]]
    ours, missing = {arm: _ours(protocol, tables, arm) for arm in losses}, "not trained here"
    published = protocol.published
    words = [SHORT.get(measure, capital(MEASURES[measure].words)) for measure in protocol.measures]
    columns, rows = ["loss", *(f"{each}, here" for each in words)], []
    for name in published.values if published else ():
        columns += [f"{each}, {name}" for each in words]
    for arm in losses:
        cells = [number(x, digits(m), reason=missing) for x, m in zip(ours[arm], protocol.measures, strict=True)]
        for values in published.values.values() if published else ():
            known = values.get(arm, [math.nan] * len(words))
            cells += [
                number(x, max(digits(m), 4), reason="not reported")
                for x, m in zip(known, protocol.measures, strict=True)
            ]
        rows.append([Shown(arm), *cells])
    further = [arm for arm in dict.fromkeys(tables.runs["arm"]) if not any(arm in protocol.rates_of(x) for x in losses)]
    text = [
        f"Protocol {protocol.name}: {protocol.paper}.",
        protocol.facts,
        *([f"Published values: {published.source}."] if published else []),
        *(_agreement(ours, published.values, words[0]) if published else []),
        *protocol.differs,
        *protocol.other_settings(comparison),
        *([f"Not of the protocol: {listed(further)}."] if further else []),
    ]
    caption = f"Means over classes and patients{' beside the published values' if published else ''}"
    return Section("protocol", "Beside the published comparison", text, (), (Table(caption, columns, rows),))


def _ours(protocol: Protocol, tables: Tables, arm: str) -> list[float]:
    """Mean over patients of each measure; of a grid, each patient has the rate that is best on the other patients."""
    cases = tables.joined()
    names = [arm] if arm in set(cases["arm"]) else [with_rate(arm, rate) for rate in protocol.rates]
    part = cases[(cases["label"] == MEAN) & (cases["point"] == HALF) & cases["arm"].isin(names)]
    if part.empty:
        return [math.nan] * len(protocol.measures)
    values = {m: part.pivot_table(m, "patient", "arm", aggfunc="mean") for m in protocol.measures if m in part}
    first = values[protocol.measures[0]]
    chosen = _best_on_others(first)
    return [_mean_at(values[m], chosen) if m in values else math.nan for m in protocol.measures]


def _best_on_others(table: pd.DataFrame) -> dict[str, str]:
    """Patient -> the column with the best mean over the other patients."""
    if len(table) < 2:
        return dict.fromkeys(table.index, table.columns[0])
    return {patient: str(table.drop(patient).mean().idxmax()) for patient in table.index}


def _mean_at(table: pd.DataFrame, chosen: Mapping[str, str]) -> float:
    found = [table.at[p, arm] for p, arm in chosen.items() if p in table.index and arm in table.columns]
    known = [value for value in found if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _agreement(ours: Values, published: Mapping[str, Values], words: str) -> list[str]:
    """Kendall's tau between the order of the losses here and in each published data set."""
    found, count = [], 0
    for name, values in published.items():
        pairs = [(ours[arm][0], values[arm][0]) for arm in ours if arm in values and not math.isnan(ours[arm][0])]
        if len(pairs) > 2:
            here, there = zip(*pairs, strict=True)
            count = len(pairs)
            found.append(f"{stats.kendalltau(here, there).statistic:.2f} ({name})")
    if not found:
        return []
    return [f"Kendall's tau between the order of {count} losses in {words} here and there: {', '.join(found)}."]
