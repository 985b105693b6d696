"""From runs to the table of cases: every class of every held-out case, at the common and at the run's own threshold."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.experiment import overlays, sources
from monai_segloss.experiment.measures import Options, bin_totals, calibration_errors, mean_over_classes, measure
from monai_segloss.experiment.sources import Source, SourceError
from monai_segloss.experiment.tables import HALF, MEAN, OWN, Tables
from monai_segloss.files import write_json, write_text

Array = NDArray[Any]
Row = dict[str, Any]
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
LOST = ("failed", "diverged")
"""States of runs without predictions."""
VERSION = 1
"""Of what a file of measured rows holds; another number makes it anew."""


@dataclass(frozen=True)
class Case:
    """One predicted case as read.

    Args:
        reference, prediction: labels, 2-D or 3-D.
        spacing: of a voxel in mm, in the order of the axes.
        probabilities: (classes or regions, *S), or None.
    """

    reference: Array
    prediction: Array
    spacing: tuple[float, ...]
    probabilities: Array | None


def measure_runs(
    runs: Sequence[Source],
    folder: Path,
    options: Options | None = None,
    patients: Mapping[str, str] | None = None,
    processes: int = 1,
    advance: Callable[[Source], None] = lambda source: None,
) -> Tables:
    """The tables of runs that are there, also written into ``folder`` with pictures of the cases in which arms differ most.

    What was measured before is not measured again.

    Args:
        runs: see `sources.find`.
        folder: of the comparison; ``measured`` in it keeps the rows of each run.
        options: of the measures.
        patients: case -> patient; a case that it lacks is its own patient.
        processes: that measure cases side by side.
        advance: called after each run.

    Raises:
        SourceError: a prediction without a label, or on another grid.
    """
    options = options or Options()
    for source in runs:
        if source.state not in LOST:
            _refuse(source)
    rows: dict[str, list[Row]] = {"cases": [], "bins": [], "curves": []}
    about = []
    with _pool(processes) if processes > 1 else contextlib.nullcontext() as pool:
        for source in runs:
            lost = {"cases": [], "bins": [], "curves": sources.curves(source)}
            whose = {case: (patients or {}).get(case, case) for case in source.cases}
            make = partial(_measured, source, options, whose, pool)
            found = lost if source.state in LOST else _kept(source, folder / "measured", options, whose, make)
            for name, each in found.items():
                rows[name] += each
            about.append(_run(source, rows["cases"]))
            advance(source)
    for name in ("cases", "bins"):
        for row in rows[name]:
            row["patient"] = (patients or {}).get(row["case"], row["case"])
    tables = Tables.of(about, rows["cases"], rows["bins"], rows["curves"])
    overlays.remove(folder)  # of other tables
    tables.write(folder / "tables")
    write_json(folder / "tables" / "options.json", asdict(options))
    overlays.write(folder, tables, runs)
    return tables


def _pool(processes: int) -> ProcessPoolExecutor:
    """Processes that share nothing with this one, and end when it was killed."""
    return ProcessPoolExecutor(processes, get_context("spawn"), _end_with, (os.getpid(),))


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _refuse(source: Source) -> None:
    if not source.cases:
        raise SourceError(f"{source.predictions} holds no files that end in {source.ending}.")
    missing = [case for case in source.cases if not (source.labels / f"{case}{source.ending}").is_file()]
    if missing:
        raise SourceError(f"{source.labels} has no label of {missing[0]!r}, which {source.predictions} predicts.")


def _run(source: Source, cases: Iterable[Row]) -> Row:
    """The row of a run; one that predicts no foreground anywhere, where there is some, has collapsed."""
    own = [row for row in cases if row["run"] == source.run and row["label"] != MEAN and row["point"] == HALF]
    nothing = any(row["reference_mm3"] for row in own) and not any(row["predicted_mm3"] for row in own)
    state = "collapsed" if nothing and source.state == "done" else source.state
    names = ("run", "arm", "dataset", "configuration", "fold", "seed")
    return {**{name: getattr(source, name) for name in names}, "state": state, **source.facts}


def _kept(
    source: Source,
    folder: Path,
    options: Options,
    whose: Mapping[str, str],
    make: Callable[[], dict[str, list[Row]]],
) -> dict[str, list[Row]]:
    """The rows of a run from its file, if that is of the same files, options and patients; else made and written."""
    files = [*source.predictions.iterdir(), *(source.labels / f"{case}{source.ending}" for case in source.cases)]
    facts = sorted(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
    about = json.dumps([VERSION, asdict(options), source.run, facts, whose])
    mark = sha256(about.encode()).hexdigest()
    file = folder / f"{sha256(source.run.encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["mark"] == mark:
            return {name: content[name] for name in ("cases", "bins", "curves")}
    found = make()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"mark": mark, **found}))
    return found


def _measured(
    source: Source, options: Options, whose: Mapping[str, str], pool: ProcessPoolExecutor | None
) -> dict[str, list[Row]]:
    work = partial(_measure_case, source, options)
    done = list(pool.map(work, source.cases) if pool else map(work, source.cases))
    cases = [row for found in done for row in found["half"]]
    own = _own_points(source, done, whose)
    if own:
        again = partial(_measure_at, source, options)
        second = [own[case] for case in source.cases]
        results = pool.map(again, source.cases, second) if pool else map(again, source.cases, second)
        cases += [row for rows in results for row in rows]
    bins = [row for found in done for row in found["bins"]]
    return {"cases": cases, "bins": bins, "curves": sources.curves(source)}


def read_case(source: Source, case: str) -> Case:
    """A case as nnU-Net's own reader gives it.

    Raises:
        SourceError: prediction, label and probabilities have other grids.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    with contextlib.redirect_stdout(io.StringIO()):
        reader = determine_reader_writer_from_dataset_json(dict(source.description), verbose=False)()
        reference, properties = reader.read_seg(str(source.labels / f"{case}{source.ending}"))
        prediction, other = reader.read_seg(str(source.predictions / f"{case}{source.ending}"))
    spacing = tuple(map(float, properties["spacing"]))
    if reference.shape != prediction.shape or not np.allclose(spacing, other["spacing"], rtol=1e-3):
        raise SourceError(
            f"case {case!r}: the prediction has the grid {prediction.shape[1:]} with spacing {tuple(other['spacing'])}, its "
            f"label {reference.shape[1:]} with {spacing}."
        )
    probabilities, file = None, source.predictions / f"{case}.npz"
    if file.is_file():
        with np.load(file) as content:
            probabilities = content["probabilities"]
        if probabilities.shape[1:] != reference.shape[1:]:
            raise SourceError(f"{file} has the grid {probabilities.shape[1:]}, its label {reference.shape[1:]}.")
    flat = 1 if reference.shape[1] == 1 else 0  # a 2-D image has one slice, of a spacing without meaning
    drop = (slice(None), 0) if flat else (slice(None),)
    return Case(
        reference[drop][0], prediction[drop][0], spacing[flat:], None if probabilities is None else probabilities[drop]
    )


def _measure_case(source: Source, options: Options, case: str) -> dict[str, Any]:
    read = read_case(source, case)
    counted = ~np.isin(read.reference, source.ignored) if source.ignored else None
    found, bins, overlaps = {}, list[Row](), {}
    for i, (name, members) in enumerate(source.classes.items()):
        truth = np.isin(read.reference, members)
        found[name] = measure(truth, np.isin(read.prediction, members), read.spacing, options, counted)
        if read.probabilities is None:
            continue
        probability = read.probabilities[i if source.regions else members[0]]
        totals = bin_totals(truth, probability, options.bins, counted)
        found[name] |= calibration_errors(totals)
        names = ("voxels", "confidence", "positives")
        for which, values in enumerate(totals.T.tolist()):
            if values[0]:
                about = {"run": source.run, "case": case, "label": name, "bin": which}
                bins.append({**about, **dict(zip(names, values, strict=True))})
        overlaps[name] = _dice_at_thresholds(truth, probability, counted)
    return {"case": case, "half": _rows(source, case, HALF, found), "bins": bins, "overlaps": overlaps}


def _rows(source: Source, case: str, point: str, found: Mapping[str, Mapping[str, float]]) -> list[Row]:
    about = {"run": source.run, "case": case, "point": point}
    rows = [{**about, "label": name, **values} for name, values in found.items()]
    return [*rows, {**about, "label": MEAN, **mean_over_classes({name: dict(x) for name, x in found.items()})}]


def _dice_at_thresholds(truth: Array, probability: Array, counted: Array | None) -> list[float]:
    if counted is not None:
        truth, probability = truth & counted, np.where(counted, probability, 0)
    edges = np.array([*THRESHOLDS, np.inf])
    above = np.digitize(probability.ravel(), edges[:-1])  # how many thresholds a voxel reaches
    predicted = np.bincount(above, minlength=len(edges))[::-1].cumsum()[::-1][1:]
    common = np.bincount(above[truth.ravel()], minlength=len(edges))[::-1].cumsum()[::-1][1:]
    total = predicted + truth.sum()
    return list(map(float, np.where(total > 0, 2 * common / np.maximum(total, 1), 1.0)))


def _own_points(
    source: Source, done: Sequence[Mapping[str, Any]], whose: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Case -> class -> threshold with the best mean Dice over the cases of the other patients.

    Nothing without probabilities, or with one patient.
    """
    patients = np.array([whose[found["case"]] for found in done])
    if len(set(patients)) < 2 or not all(found["overlaps"] for found in done):
        return {}
    chosen: dict[str, dict[str, float]] = {found["case"]: {} for found in done}
    for name in source.classes:
        table = np.array([found["overlaps"][name] for found in done])
        for found, patient in zip(done, patients, strict=True):
            others = table[patients != patient].mean(0)
            best = np.flatnonzero(others >= others.max() - 1e-12)
            middle = best[np.abs(np.array(THRESHOLDS)[best] - 0.5).argmin()]  # of several the nearest to 1/2
            chosen[found["case"]][name] = THRESHOLDS[int(middle)]
    return chosen


def _measure_at(source: Source, options: Options, case: str, points: Mapping[str, float]) -> list[Row]:
    read = read_case(source, case)
    assert read.probabilities is not None
    counted = ~np.isin(read.reference, source.ignored) if source.ignored else None
    found = {}
    for i, (name, members) in enumerate(source.classes.items()):
        probability = read.probabilities[i if source.regions else members[0]]
        truth = np.isin(read.reference, members)
        values = measure(truth, probability >= points[name], read.spacing, options, counted)
        found[name] = {**values, "threshold": points[name]}
    rows = _rows(source, case, OWN, found)
    return [{**row, "threshold": row.get("threshold", math.nan)} for row in rows]
