"""The tables in which the parts of a comparison meet: runs, cases, bins of probabilities, curves.

Whoever makes a training, reads one of somebody else, measures it or writes about it does so by these tables alone.  Each is
a CSV file, and a Parquet file next to it where pyarrow is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from monai_segloss.experiment.measures import MEASURES
from monai_segloss.files import atomic

HALF, OWN = "half", "own"
"""Operating points: the largest probability (or 1/2 of a region), and a threshold per class chosen on other patients."""
MEAN = "mean"
"""The class of rows that are means over the classes of a case."""
STATES = ("done", "failed", "diverged", "collapsed")
"""Of a run: finished; ended by an error; by a loss that is no number; finished with no foreground predicted anywhere."""

RUN = {
    "run": "name of the run, once per table",
    "arm": "the loss with its settings",
    "dataset": "name of the data set",
    "configuration": "of nnU-Net's plans, or the bundle's name",
    "fold": "held-out fold",
    "seed": "of weights, batches and augmentation",
    "state": "one of done, failed, diverged, collapsed",
}
"""Columns that the table of runs has at least; further ones are facts of a run, such as minutes or hashes."""
CASE = {
    "run": "name of the run",
    "case": "name of the image",
    "patient": "whose image it is; that of the case where nothing else is known",
    "label": "name of the class, or 'mean'",
    "point": "operating point, 'half' or 'own'",
}
BIN = {"run": "", "case": "", "patient": "", "label": "", "bin": "", "voxels": "", "confidence": "", "positives": ""}
CURVE = {"run": "", "epoch": "counted from 0"}


class TableError(ValueError):
    """A table that cannot be what it should."""


@dataclass(frozen=True)
class Tables:
    """What a comparison has measured.

    Args:
        runs: one row per run, see `RUN`.
        cases: one row per run, case, class and operating point, see `CASE`, with a column per measure.
        bins: one row per run, case, class and bin of probabilities, see `BIN`; may be empty.
        curves: one row per run and epoch, see `CURVE`; may be empty.
    """

    runs: pd.DataFrame
    cases: pd.DataFrame
    bins: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def of(
        cls,
        runs: Iterable[Mapping[str, Any]],
        cases: Iterable[Mapping[str, Any]] = (),
        bins: Iterable[Mapping[str, Any]] = (),
        curves: Iterable[Mapping[str, Any]] = (),
    ) -> Tables:
        """Tables of rows.

        Raises:
            TableError: a column is missing, a run stands twice, or a case belongs to no run.
        """
        made = {"runs": runs, "cases": cases, "bins": bins, "curves": curves}
        frames = {name: _frame(name, list(rows)) for name, rows in made.items()}
        return cls(**frames).checked()

    def checked(self) -> Tables:
        """The tables themselves, if they fit together.

        Raises:
            TableError: they do not.
        """
        for name, columns in COLUMNS.items():
            absent = [each for each in columns if each not in getattr(self, name).columns]
            if absent:
                raise TableError(f"the table of {name} has no column {', '.join(absent)}.")
        twice = self.runs["run"][self.runs["run"].duplicated()].tolist()
        if twice:
            raise TableError(f"the run {twice[0]!r} stands twice in the table of runs.")
        wrong = sorted(set(self.runs["state"]) - set(STATES))
        if wrong:
            raise TableError(f"the state of a run is one of {', '.join(STATES)}, got {wrong[0]!r}.")
        for name in ("cases", "bins", "curves"):
            unknown = sorted(set(getattr(self, name)["run"]) - set(self.runs["run"]))
            if unknown:
                raise TableError(f"the table of {name} has rows of {unknown[0]!r}, which is no run.")
        keys = ["run", "case", "label", "point"]
        again = self.cases[self.cases.duplicated(keys)]
        if len(again):
            raise TableError(f"the table of cases has two rows for {again.iloc[0][keys].to_dict()}.")
        return self

    def write(self, folder: Path) -> None:
        """Write all of them; each file is whole or absent."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in COLUMNS:
            frame: pd.DataFrame = getattr(self, name)
            with atomic(folder / f"{name}.csv") as part:
                frame.to_csv(part, index=False)
            if find_spec("pyarrow") is not None:
                with atomic(folder / f"{name}.parquet") as part:
                    frame.to_parquet(part, index=False)

    def joined(self) -> pd.DataFrame:
        """The cases with the facts of their runs."""
        facts = self.runs[[*RUN]]
        return self.cases.merge(facts, on="run", how="left", validate="many_to_one")


COLUMNS: Mapping[str, Mapping[str, str]] = {"runs": RUN, "cases": CASE, "bins": BIN, "curves": CURVE}
TEXT = ("run", "arm", "dataset", "configuration", "fold", "state", "case", "patient", "label", "point")


def read(folder: Path) -> Tables:
    """The tables of a folder, from their CSV files.

    Raises:
        TableError: a file is missing or not what it should be.
    """
    frames = {}
    for name in COLUMNS:
        file = folder / f"{name}.csv"
        if not file.is_file():
            raise TableError(
                f"{file} is missing; it is written by `segloss compare run` and `segloss compare existing`."
            )
        try:
            frames[name] = pd.read_csv(file, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""])
        except (ValueError, OSError) as error:
            raise TableError(f"{file} cannot be read: {error}.") from None
    return Tables(**frames).checked()


def measures_of(cases: pd.DataFrame) -> list[str]:
    """The measures that have a value somewhere, in the order of `MEASURES`."""
    return [name for name in MEASURES if name in cases.columns and cases[name].notna().any()]


def _frame(name: str, rows: list[Mapping[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*COLUMNS[name]])
    for column in TEXT:
        if column in frame.columns:
            frame[column] = frame[column].astype(str)
    return frame
