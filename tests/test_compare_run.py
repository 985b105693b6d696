"""What a comparison does around nnU-Net's programs: order, resuming, states, tables.  The programs are stand-ins here."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnunetv2.imageio.reader_writer_registry  # noqa: F401  (sets variables of the environment)
import pandas as pd
import pytest
from compare_programs import FAIL, PACE
from rich.console import Console
from typer.testing import CliRunner

import nnunet_trainers.trainers  # noqa: F401  (the same)
from monai_segloss.cli import app
from monai_segloss.demo import process
from monai_segloss.demo.generate import Size, make_dataset
from monai_segloss.demo.problem import DemoError, DiskFullError
from monai_segloss.demo.progress import Display
from monai_segloss.experiment import comparison, costs
from monai_segloss.experiment.analysis import analyze
from monai_segloss.experiment.comparison import Comparison
from monai_segloss.experiment.live import Watch, table, watching
from monai_segloss.experiment.matrix import matrix
from monai_segloss.experiment.tables import Tables, read

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="the stand-ins kill themselves by signals")]
HERE = str(Path(__file__).parent)
STAND_INS = f"import sys; sys.path.insert(0, {HERE!r}); import compare_programs; compare_programs.run()"
SIZE = Size(train=6, test=0, extent=(45.0, 20.0, 20.0))
CONTENT: dict[str, Any] = {
    "demo": True,
    "arms": ["dice_ce", {"name": "sum", "terms": {"dice": 1, "cross_entropy": 0.5}}],
    "epochs": 2,
    "iterations": 4,
    "lr": 0.05,
    "tolerance": 1.2,
    "baseline_seeds": 3,
}
RUNS = 5
Start = Callable[..., Comparison]


def stand_in(name: str) -> list[str]:
    return [sys.executable, "-c", STAND_INS, name]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Makes a comparison in one folder."""
    monkeypatch.setattr(process, "program", stand_in)
    monkeypatch.setattr(comparison, "DEMO_SIZE", SIZE)
    monkeypatch.delenv(FAIL, raising=False)

    def make(work: Path = tmp_path / "work", jobs: int = 1, **content: Any) -> Comparison:
        display = Display(Console(file=io.StringIO(), width=200))
        return Comparison(work, matrix({**CONTENT, **content}), display, jobs)

    return make


def run(made: Comparison) -> Tables:
    with made.open():
        made.run(made.prepare(), lambda at_work: None)
        return made.measure()


def starts(made: Comparison) -> dict[str, list[str]]:
    """The commands of each run, those of the two iterations aside."""
    logs = {each.parent.parent.name: each.read_text() for each in sorted(made.work.glob("runs/*/logs/train.log"))}
    return {
        key: [line for line in text.splitlines() if line.startswith("$ ")]
        for key, text in logs.items()
        if not key.startswith("smoke")
    }


def same(one: Tables, other: Tables) -> bool:
    """Whether two tables are equal, but for how long a run took."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("cases", "bins", "curves")]
    facts = [each.runs.drop(columns="minutes") for each in (one, other)]
    for a, b in [*pairs, tuple(facts)]:
        pd.testing.assert_frame_equal(a, b)
    return True


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of a comparison that nobody interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "program", stand_in)
        patch.setattr(comparison, "DEMO_SIZE", SIZE)
        patch.delenv(FAIL, raising=False)
        display = Display(Console(file=io.StringIO()))
        return run(Comparison(tmp_path_factory.mktemp("whole"), matrix(CONTENT), display))


def test_the_tables_of_a_comparison(whole: Tables) -> None:
    runs = whole.runs
    assert runs["state"].tolist() == ["done"] * RUNS
    assert sorted(zip(runs["arm"], runs["seed"], strict=True)) == [
        ("dice_ce", 0), ("dice_ce", 1), ("dice_ce", 2), ("sum", 0), ("sum", 1),
    ]  # fmt: skip
    assert set(runs["configuration"]) == {"3d_fullres"}
    for column in ("splits_hash", "plans_hash"):
        assert runs[column].nunique() == 1, column
    assert (runs.groupby("seed")["weights_hash"].nunique() == 1).all()
    assert runs["weights_hash"].nunique() == 3
    assert set(whole.cases["point"]) == {"half", "own"}
    assert len(whole.cases) == RUNS * 2 * 4 * 2  # cases, classes and their mean, operating points
    assert len(whole.curves) == RUNS * 2
    assert not any("not matched" in each or "configurations" in each for each in analyze(whole, "dice_ce").warnings)


def test_two_at_a_time_give_the_same_tables(start: Start, whole: Tables) -> None:
    assert same(run(start(jobs=2)), whole)


def test_what_is_done_is_not_done_again(start: Start, whole: Tables) -> None:
    run(start())
    made = start()
    assert same(run(made), whole)
    assert {key: len(each) for key, each in starts(made).items()} == dict.fromkeys(starts(made), 1)
    more = start(seeds=3, arms=[*CONTENT["arms"], "dice"])
    assert len(run(more).runs) == 9
    assert all(len(each) == 1 for each in starts(more).values())
    assert len(starts(more)) == 9


def test_every_arm_is_tried_before_the_first_run(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAIL, "SegLoss_lr5em2_seed0_1epochs:train:nan")
    made = start()
    with pytest.raises(DemoError, match=r"arm 'sum' fails in two iterations, before any run has begun: .*loss is NaN"):
        run(made)
    assert starts(made) == {}
    monkeypatch.delenv(FAIL)
    assert set(run(start()).runs["state"]) == {"done"}


@pytest.mark.parametrize(("how", "state"), [("nan", "diverged"), ("error", "failed")])
def test_runs_that_end_by_an_error_are_counted(
    start: Start, whole: Tables, monkeypatch: pytest.MonkeyPatch, how: str, state: str
) -> None:
    monkeypatch.setenv(FAIL, f"SegLoss_lr5em2_seed1_2epochs:checkpoint:{how}")
    made = start()
    tables = run(made)
    lost = tables.runs[tables.runs["state"] != "done"].to_dict("records")
    assert [(each["run"], each["state"]) for each in lost] == [("sum seed 1 fold 0", state)]
    assert ("loss is NaN" if how == "nan" else "no such kernel") in lost[0]["reason"]
    assert "sum seed 1 fold 0" not in set(tables.cases["run"])
    assert len(tables.curves[tables.curves["run"] == "sum seed 1 fold 0"]) == 1
    assert any(f"1 of 5 runs {state}" in each for each in analyze(tables, "dice_ce").warnings)
    monkeypatch.delenv(FAIL)
    again = run(start())
    assert len(starts(made)["sum-seed1-fold0"]) == (1 if state == "diverged" else 2)
    if state == "failed":  # it went on, and is like one that never failed
        assert "--c" in starts(made)["sum-seed1-fold0"][1]
        assert same(again, whole)


def test_predictions_without_foreground_are_a_state(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAIL, "Empty:nowhere:")
    assert set(run(start()).runs["state"]) == {"collapsed"}


@pytest.mark.parametrize("place", ["train", "checkpoint", "validation"])
def test_a_killed_program_is_started_again(start: Start, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv(FAIL, f"DiceCE_lr5em2_seed1_2epochs:{place}:kill")
    made = start()
    tables = run(made)
    killed = starts(made)["dice_ce-seed1-fold0"]
    assert len(killed) == 3 if place != "checkpoint" else 2
    assert [("--c" in each, "--val" in each) for each in killed[1:]] == {
        "train": [(False, False)] * 2, "checkpoint": [(True, False)], "validation": [(False, True)] * 2,
    }[place]  # fmt: skip
    states = tables.runs.set_index("run")["state"]
    assert states["dice_ce seed 1 fold 0"] == ("done" if place == "checkpoint" else "failed")


def test_a_full_disk_ends_the_queue_and_counts_nothing_as_done(
    start: Start, whole: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAIL, "DiceCE_lr5em2_seed1_2epochs:validation:disk")
    made = start()
    with pytest.raises(DiskFullError, match="the disk is full: make room and start the same command again"):
        run(made)
    assert "dice_ce-seed2-fold0" not in starts(made)
    monkeypatch.delenv(FAIL)
    assert same(run(start()), whole)


def test_too_little_room_is_said_before_the_queue(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "free", lambda folder: 10)
    made = start()
    with pytest.raises(DemoError, match=r"needs .* GB of free disk space for the runs that are not done"):
        run(made)
    assert starts(made) == {}


def test_time_and_disk(start: Start) -> None:
    made = start()
    with made.open():
        expected = made.prepare()
        assert list(expected.seconds) == [task.run.name for task in made.tasks()]
        assert expected.bytes > 0
        known = json.loads((made.work / "smoke" / "costs.json").read_text()).values()
        assert {each["case"] for each in known} == {3.0}
        assert all(each["iteration"] == pytest.approx(1.5 / (2 + 1 / 3)) for each in known)
        made.run(expected, lambda at_work: None)
        assert made.prepare().seconds == {}
    cost = costs.Cost(start=10, iteration=2, case=3, checkpoint=100, volume=7)
    assert cost.seconds(epochs=4, iterations=30, cases=5) == pytest.approx(10 + 4 * 2 * (30 + 6 / 3) + 15)
    assert cost.bytes(5) == 235
    assert not list((made.work / "smoke").rglob("*.pth"))


def test_another_comparison_is_refused(start: Start, tmp_path: Path) -> None:
    made = start()
    with made.open():
        pass
    with (
        pytest.raises(DemoError, match=r"other settings \(--epochs 2 there, 3 now\): choose another --output"),
        start(epochs=3).open(),
    ):
        pass
    changed = [CONTENT["arms"][0], {"name": "sum", "terms": {"dice": 2}}]
    run(start())
    with pytest.raises(DemoError, match=r"arm 'sum': configuration '3d_fullres_sum' exists with other content"):
        run(start(arms=changed))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with (
        pytest.raises(DemoError, match=r"holds thesis\.tex, which is not from segloss compare"),
        start(tmp_path / "other").open(),
    ):
        pass


def test_data_of_a_user(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "Dataset042_Mine"
    make_dataset(data, 0, dataclasses.replace(SIZE, train=4))
    made = start(demo=False, data=str(data))
    tables = run(made)
    assert set(tables.runs["dataset"]) == {"Dataset042_Mine"}
    splits = json.loads((made.preprocessed / "splits_final.json").read_text())
    assert [len(each["val"]) for each in splits] == [1, 1, 1, 1, 1]
    assert sorted(each["val"][0] for each in splits[:4]) == [f"case_{i:03}" for i in range(4)]
    assert splits[4] == splits[0]  # of the two iterations
    (data / "labelsTr" / "case_003.nii.gz").write_bytes(b"")
    with pytest.raises(DemoError, match=r"other settings .files of --data"), start(demo=False, data=str(data)).open():
        pass


def test_the_plan_counts_patients_where_they_are_given(start: Start, tmp_path: Path) -> None:
    """Six held-out cases of three patients: as cases they would be enough."""
    data, patients, file = tmp_path / "Dataset042_Mine", tmp_path / "patients.json", tmp_path / "losses.json"
    make_dataset(data, 0, SIZE)
    patients.write_text(json.dumps({f"case_{i:03}": f"p{i // 2}" for i in range(6)}))
    whole = {**CONTENT, "demo": False, "data": str(data), "splits": 3, "folds": [0, 1, 2]}
    for folds, said in (
        ([0, 1, 2], "3 patients are held out: with fewer than 6 no difference can be claimed"),
        ([0], "1 patient is held out: with fewer than 6"),
    ):
        file.write_text(json.dumps({**whole, "folds": folds, "patients": str(patients)}))
        result = CliRunner().invoke(app, ["compare", "plan", "--config", str(file), "-o", str(tmp_path / "patients")])
        assert result.exit_code == 0, (result.output, result.exception)
        assert said in " ".join(result.output.split())
    file.write_text(json.dumps(whole))
    result = CliRunner().invoke(app, ["compare", "plan", "--config", str(file), "-o", str(tmp_path / "cases")])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "held out" not in result.output


def test_there_are_no_more_folds_than_patients(start: Start, tmp_path: Path) -> None:
    """Six cases of three patients, of whom five folds are asked for; nnU-Net would split them into five."""
    data, patients, file = tmp_path / "Dataset042_Mine", tmp_path / "patients.json", tmp_path / "losses.json"
    make_dataset(data, 0, SIZE)
    whose = {f"case_{i:03}": f"p{i // 2}" for i in range(6)}
    patients.write_text(json.dumps(whose))
    asked = {"demo": False, "data": str(data), "patients": str(patients), "folds": [2]}
    file.write_text(json.dumps({**CONTENT, **asked}))
    result = CliRunner().invoke(app, ["compare", "plan", "--config", str(file), "-o", str(tmp_path / "plan")])
    assert result.exit_code == 0, (result.output, result.exception)
    said = "--splits 5 asks for 5 folds and the data set has 3 patients"
    assert f"note {said}, so that there are as many folds." in " ".join(result.output.split())
    made = start(tmp_path / "plan", **asked)
    assert sorted(sorted(whose[case] for case in fold["val"]) for fold in made.splits()) == [
        [f"p{i}"] * 2 for i in range(3)
    ]
    with pytest.raises(DemoError, match=f"--fold 3: the 3 folds are 0 to 2, since {said}"):
        start(**{**asked, "folds": [3]})
    with pytest.raises(DemoError, match=r"--fold 3: the 3 folds are 0 to 2$"):
        start(**{**asked, "folds": [3], "splits": 3})
    with pytest.raises(DemoError, match=r"--fold 6: .* asks for 7 folds and the data set has 6 cases"):
        start(**{**asked, "folds": [6], "splits": 7, "patients": None})
    patients.write_text(json.dumps(dict.fromkeys(whose, "p0")))
    message = "needs two folds or more: there is 1, since --splits 5 asks for 5 folds and the data set has 1 patient$"
    with pytest.raises(DemoError, match=message):
        start(**asked)


def test_arms_on_soft_labels(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "Dataset042_Mine"
    make_dataset(data, 0, dataclasses.replace(SIZE, train=4))
    arms = ["dice_ce", {"name": "raters", "loss": "dice_ce", "soft_labels": True}]
    with pytest.raises(
        DemoError, match=r"arm 'raters' is trained on soft labels, and .* has neither labelsTr_raters nor"
    ):
        start(demo=False, data=str(data), arms=arms)
    with pytest.raises(DemoError, match="and the generated volumes have neither"):
        start(arms=arms)
    shutil.copytree(data / "labelsTr", data / "labelsTr_raters" / "first")
    with pytest.raises(DemoError, match="arm 'x': loss 'lovasz_softmax' does not support soft labels"):
        start(
            demo=False, data=str(data), arms=["dice_ce", {"name": "x", "loss": "lovasz_softmax", "soft_labels": True}]
        )
    made = start(demo=False, data=str(data), arms=arms)
    assert set(run(made).runs["state"]) == {"done"}
    assert len(list((made.preprocessed / "soft_labels").glob("first/*"))) == 4
    (data / "labelsTr_raters" / "first" / "case_000.nii.gz").write_bytes(b"")
    with (
        pytest.raises(DemoError, match=r"other settings .files of --data"),
        start(demo=False, data=str(data), arms=arms).open(),
    ):
        pass


def test_the_table_of_the_runs(start: Start, tmp_path: Path) -> None:
    made = start()
    console = Console(file=io.StringIO(), width=200)
    with made.open():
        expected = made.prepare()
        with watching(console, made.tasks(), 2, tmp_path / "runs.html") as show:
            made.run(expected, show)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count(": done") == RUNS
    page = (tmp_path / "runs.html").read_text()
    assert "sum seed 1 fold 0" in page
    assert "5 done" in page
    rows = Watch(made.tasks(), 2).rows(set())
    assert (rows[0].epoch, rows[0].loss, rows[0].dice) == ("2/2", 0.8, 0.3)
    console.print(table(rows))
    assert "5 done" in console.file.getvalue()  # type: ignore[attr-defined]


DRIVER = f"""
import sys
from monai_segloss.cli import app
from monai_segloss.demo import process
from monai_segloss.demo.generate import Size
from monai_segloss.experiment import comparison
process.program = lambda name: [sys.executable, "-c", {STAND_INS!r}, name]
comparison.DEMO_SIZE = Size(6, 0, (45.0, 20.0, 20.0))
app(["compare", "run", "--config", sys.argv[1], "--output", sys.argv[2], "--jobs", "2"])
"""
PLACES = {
    "while it plans": lambda work: (work / "stages" / "plan.json").exists(),
    "in the two iterations": lambda work: (work / "stages" / "smoke-sum.json").exists(),
    "in the first run": lambda work: any(work.glob("nnUNet_results/*/*/fold_0/checkpoint_latest.pth")),
    "in a validation": lambda work: any(work.glob("nnUNet_results/*/*/fold_0/validation/case_000.nii.gz")),
    "while it measures": lambda work: any(work.glob("measured/*")),
}


FURTHER = ("while it plans", "in the two iterations", "in a validation")


@pytest.mark.parametrize("place", [pytest.param(x, marks=pytest.mark.nightly if x in FURTHER else []) for x in PLACES])
def test_killed_anywhere_it_ends_with_the_same_tables(
    start: Start, whole: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    file, work = tmp_path / "losses.json", tmp_path / "work"
    file.write_text(json.dumps(CONTENT))
    slow = {**os.environ, PACE: "0.5"}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(file), str(work)], env=slow, stdout=subprocess.DEVNULL)
    while not PLACES[place](work):
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    made = start(jobs=2)
    assert same(run(made), whole)
    assert same(read(work / "tables"), read_again(whole, tmp_path / "whole"))
    assert all(len(each) <= 2 for each in starts(made).values())
    assert sum(len(each) == 2 for each in starts(made).values()) <= 2  # those that were at work


def read_again(tables: Tables, folder: Path) -> Tables:
    tables.write(folder)
    return read(folder)


def test_the_command(start: Start, tmp_path: Path) -> None:
    file, work = tmp_path / "losses.json", tmp_path / "work"
    file.write_text(json.dumps(CONTENT))
    for which in ("plan", "run"):
        result = CliRunner().invoke(app, ["compare", which, "--config", str(file), "-o", str(work)])
        assert result.exit_code == 0, (result.output, result.exception)
        text = " ".join(result.output.split())
        assert "5 runs to do" in text
        assert "2 cases are held out: with fewer than 6 no difference can be claimed" in text
        assert (work / "tables" / "runs.csv").exists() == (which == "run")
    assert f"tables in {work}" in text
