"""Tables of a comparison, and what is said from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from comparison_tables import ARMS, PATIENTS, SEEDS, rows

from monai_segloss.experiment.analysis import Analysis, analyze, with_strata
from monai_segloss.experiment.sections import points_section
from monai_segloss.experiment.statistics import Settings
from monai_segloss.experiment.tables import HALF, MEAN, TableError, Tables, read

QUICK = Settings(resamples=300)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables.of(*rows(ARMS, SEEDS))


@pytest.fixture(scope="module")
def analysis(tables: Tables) -> Analysis:
    return analyze(tables, settings=QUICK)


def row(analysis: Analysis, **where: str) -> pd.Series:
    found = analysis.comparisons
    for name, value in {"label": MEAN, "point": HALF, "stratum": "all", **where}.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_written_and_read(tables: Tables, tmp_path: Path) -> None:
    tables.write(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".csv", ".parquet"}
    again = read(tmp_path)
    pd.testing.assert_frame_equal(again.runs, tables.runs, check_dtype=False)
    pd.testing.assert_frame_equal(again.cases, tables.cases, check_dtype=False)
    assert again.bins.empty
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "cases.parquet"), tables.cases, check_dtype=False)


def test_the_baseline_is_the_arm_with_the_most_runs(analysis: Analysis) -> None:
    assert analysis.baseline == "dice_ce"
    assert row(analysis, measure="dice", arm="tversky")["baseline_seeds"] == 4


def test_each_measure_class_and_stratum(analysis: Analysis) -> None:
    better = row(analysis, measure="dice", arm="tversky")
    assert (better["verdict"], better["patients"], better["seeds"]) == ("better", PATIENTS, 2)
    assert better["difference"] == pytest.approx(0.06, abs=0.01)
    assert better["low"] < better["difference"] < better["high"]
    assert row(analysis, measure="dice", arm="tversky", label="lesion")["verdict"] == "better"
    assert row(analysis, measure="dice", arm="boundary")["verdict"] != "better"
    strata = analysis.comparisons[analysis.comparisons["label"] == "organ"]["stratum"]
    assert set(strata) == {"all"}  # thirds of 12 patients are too few


def test_where_smaller_is_better_a_difference_keeps_its_unit(analysis: Analysis) -> None:
    dice, distance = (row(analysis, measure=name, arm="tversky") for name in ("dice", "hd95"))
    assert distance["verdict"] == "better"
    assert distance["difference"] == pytest.approx(-20 * dice["difference"])
    assert distance["mean"] == pytest.approx(20 * (1 - dice["mean"]))
    assert (distance["low"], distance["high"]) == pytest.approx((-20 * dice["high"], -20 * dice["low"]), rel=0.2)


def test_ranks(analysis: Analysis) -> None:
    assert analysis.ranks["dice"].order[0] == analysis.ranks["hd95"].order[0] == "tversky"
    assert analysis.not_best["dice"]["tversky"] < 0.05


def test_strata_are_thirds_of_the_sizes_of_a_class(tables: Tables) -> None:
    found = with_strata(tables.joined())
    organ = found[(found["label"] == "organ") & (found["run"] == "dice_ce_seed0_fold0")]
    assert dict(zip(organ["patient"], organ["stratum"], strict=True)) == {
        "p00": "small", "p02": "small", "p04": "medium", "p06": "medium", "p08": "large", "p10": "large",
    }  # fmt: skip
    assert set(found[found["label"] == MEAN]["stratum"]) == {""}


def test_what_cannot_be_said_is_said() -> None:
    runs, cases = rows(ARMS, dict.fromkeys(ARMS, 1), (HALF,))
    runs[-1]["state"] = "diverged"
    for i, each in enumerate(runs):
        each["weights_hash"] = str(i)
    warnings = " ".join(analyze(Tables.of(runs, cases), "dice_ce", QUICK).warnings)
    for text in ("'dice_ce' has one seed", "one seed of tversky, boundary", "1 of 6 runs diverged: boundary_seed0_fold1",
                 "without probabilities", "differ in weights_hash"):  # fmt: skip
        assert text in warnings


def test_an_arm_without_values_is_left_out() -> None:
    runs, cases = rows(ARMS, SEEDS)
    kept = [each for each in cases if not each["run"].startswith("boundary")]
    found = analyze(Tables.of(runs, kept), settings=QUICK)
    assert set(found.comparisons["arm"]) == {"tversky"}


def test_a_patient_with_several_images_counts_once() -> None:
    runs, cases = rows(ARMS, SEEDS)
    again = [
        {**each, "case": each["case"] + "b", "dice": each["dice"] + 0.2} for each in cases if each["patient"] == "p00"
    ]
    found = row(analyze(Tables.of(runs, cases + again), settings=QUICK), measure="dice", arm="tversky")
    assert found["patients"] == PATIENTS


def test_operating_points_are_means_over_patients_too() -> None:
    """Two more images of one patient, of 0.2 more Dice, move the mean by 0.2 * 2 / 3 / 12 and not by 0.2 * 2 / 14."""
    runs, cases = rows(ARMS, SEEDS)
    again = [
        {**each, "case": each["case"] + new, "dice": each["dice"] + 0.2}
        for each in cases
        if each["patient"] == "p00"
        for new in "bc"
    ]
    shown = []
    for part in (cases, cases + again):
        tables = Tables.of(runs, part)
        section = points_section(tables, analyze(tables, settings=QUICK), tables.joined())
        shown.append([float(row[1].text) for row in section.tables[0].rows])
    assert np.subtract(shown[1], shown[0]) == pytest.approx(np.full(len(ARMS), 0.4 / 3 / PATIENTS), abs=1.1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs, cases: runs.append(runs[0]), "the run 'dice_ce_seed0_fold0' stands twice"),
        (lambda runs, cases: runs[0].pop("seed") and [each.pop("seed", 0) for each in runs], "runs has no column seed"),
        (lambda runs, cases: runs[0].update(state="lost"), "state of a run is one of done, .* got 'lost'"),
        (lambda runs, cases: cases[0].update(run="x"), "cases has rows of 'x', which is no run"),
        (lambda runs, cases: cases.append(cases[0]), "two rows for {'run': 'dice_ce_seed0_fold0', 'case': 'c00'"),
    ],
)
def test_tables_that_do_not_fit(change: Any, message: str) -> None:
    runs, cases = rows(ARMS, SEEDS)
    runs[0]["seed"] = 1 if "seed" in message else runs[0]["seed"]
    change(runs, cases)
    with pytest.raises(TableError, match=message):
        Tables.of(runs, cases)


def test_what_cannot_be_analyzed(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no arm is called 'x'; there are dice_ce, tversky, boundary"):
        analyze(tables, "x")
    runs, cases = rows({"dice_ce": 0.0}, SEEDS)
    with pytest.raises(ValueError, match="all runs are of the arm 'dice_ce'"):
        analyze(Tables.of(runs, cases))
    runs[0]["dataset"] = "E"
    with pytest.raises(ValueError, match="the data sets D, E"):
        analyze(Tables.of(runs, cases))
    with pytest.raises(TableError, match=r"runs\.csv is missing"):
        read(tmp_path)
