"""What the demo does around the programs of nnU-Net: stages, resuming, refusals.  The programs are stand-ins here."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from demo_programs import FAIL
from rich.console import Console

from monai_segloss.demo import figures, process
from monai_segloss.demo.dataset import read_dataset
from monai_segloss.demo.generate import make_dataset
from monai_segloss.demo.pipeline import Demo, check_space
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.progress import Display
from monai_segloss.demo.settings import QUICK, Arm, Settings

pytestmark = pytest.mark.slow
STAND_INS = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import demo_programs; demo_programs.run()"
SETTINGS = Settings("focal_tversky", None, "cpu", 2, 2, None, 0, 0, None, True)
LOSS, BASELINE = Arm("focal_tversky", "nnUNetTrainerX"), Arm("dice_ce", "nnUNetTrainerY", "-baseline")
Start = Callable[..., Demo]


def stand_in(name: str) -> list[str]:
    return [sys.executable, "-c", STAND_INS, name]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Makes a run in one folder, with its output kept in ``display.console.file``."""
    monkeypatch.setattr(process, "program", stand_in)
    # Drawn for real in test_demo_report.py; it takes longer than everything else here.
    monkeypatch.setattr(figures, "overlay", lambda *_: b"picture")
    monkeypatch.setattr(figures, "curves", lambda *_: b"picture")

    def make(settings: Settings = SETTINGS, arms: tuple[Arm, ...] = (LOSS,), fresh: bool = False) -> Demo:
        source = read_dataset(Path(settings.data)) if settings.data else None
        display = Display(Console(file=io.StringIO(), width=200))
        return Demo(tmp_path / "work", settings, arms, "segloss demo", source, display, fresh)

    return make


def said(demo: Demo) -> str:
    return demo.display.console.file.getvalue()  # type: ignore[attr-defined]


def commands(demo: Demo, stage: str) -> list[str]:
    log = (demo.work / "logs" / f"{stage}.log").read_text().splitlines()
    return [line for line in log if line.startswith("$ ")]


def test_a_run_leaves_report_scores_and_times(start: Start) -> None:
    demo = start(arms=(LOSS, BASELINE))
    page = demo.run().read_text(encoding="utf-8")
    scores = json.loads((demo.work / "scores.json").read_text())["trainers"]
    assert set(scores) == {"nnUNetTrainerX", "nnUNetTrainerY"}
    assert scores["nnUNetTrainerX"]["test_000"]["organ"]["dice"] == 1.0
    assert page.count("data:image/png;base64,") == 3
    for stage in ("data", "plan", "train", "predict", "train-baseline", "predict-baseline"):
        assert demo.stages.done(stage)
        assert f"<td>{stage}</td>" in page
    assert "epoch 2/2, loss 0.800, Dice organ 0.60, vessel nan, lesion 0.00" in said(demo)


def test_what_is_done_is_not_done_again(start: Start) -> None:
    start().run()
    again = start()
    again.run()
    assert said(again).count("(done earlier)") == 4
    assert len(commands(again, "train")) == 1


def test_a_missing_product_is_made_again(start: Start) -> None:
    demo = start()
    demo.run()
    (demo.predictions(LOSS) / "test_001.nii.gz").unlink()
    again = start()
    again.run()
    assert (len(commands(again, "train")), len(commands(again, "predict"))) == (1, 2)


def test_a_baseline_can_be_added_later(start: Start) -> None:
    start().run()
    demo = start(arms=(LOSS, BASELINE))
    demo.run()
    assert len(commands(demo, "train")) == 1
    assert len(commands(demo, "train-baseline")) == 1


def test_another_tolerance_only_makes_another_report(start: Start) -> None:
    assert "at 1.2 mm" in start().run().read_text(encoding="utf-8")
    demo = start(dataclasses.replace(SETTINGS, tolerance=3.0))
    assert "at 3 mm" in demo.run().read_text(encoding="utf-8")
    assert len(commands(demo, "predict")) == 1


@pytest.mark.parametrize(("name", "value"), [("loss", "dice"), ("seed", 1), ("epochs", 3), ("device", "cuda")])
def test_other_settings_are_refused(start: Start, name: str, value: object) -> None:
    start().run()
    old = getattr(SETTINGS, name)
    with pytest.raises(DemoError, match=f"other settings \\(--{name} {old!r} there, {value!r} now\\).*--out.*--fresh"):
        start(dataclasses.replace(SETTINGS, **{name: value})).run()


def test_fresh_starts_again_with_other_settings(start: Start) -> None:
    first = start()
    first.run()
    old = (first.raw / "imagesTr" / "case_000_0000.nii.gz").read_bytes()
    demo = start(dataclasses.replace(SETTINGS, seed=1), fresh=True)
    demo.run()
    assert (demo.raw / "imagesTr" / "case_000_0000.nii.gz").read_bytes() != old
    assert len(commands(demo, "train")) == 1


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_others_is_left_alone(start: Start, fresh: bool) -> None:
    demo = start(fresh=fresh)
    demo.work.mkdir()
    (demo.work / "thesis.tex").write_text("mine")
    with pytest.raises(DemoError, match=r"holds thesis\.tex, which is not from segloss demo: choose another --out"):
        demo.run()
    assert (demo.work / "thesis.tex").read_text() == "mine"
    assert [path.name for path in demo.work.iterdir()] == ["thesis.tex"]


def test_fresh_removes_only_what_the_demo_made(start: Start) -> None:
    start().run()
    demo = start(fresh=True)
    (demo.work / "notes.txt").write_text("mine")
    demo.run()
    assert (demo.work / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("disk", "nnUNetv2_train stopped because the disk is full"),
        ("error", "nnUNetv2_train failed: .*the loss is NaN"),
    ],
)
def test_a_failed_program_is_explained_and_continued(
    start: Start, monkeypatch: pytest.MonkeyPatch, how: str, sentence: str
) -> None:
    monkeypatch.setenv(FAIL, f"train:{how}")
    with pytest.raises(DemoError, match=sentence):
        start().run()
    monkeypatch.delenv(FAIL)
    demo = start()
    page = demo.run().read_text(encoding="utf-8")
    first, second = commands(demo, "train")
    assert ("--c" in first, "--c" in second) == (False, True)
    assert "(2 attempts)" in page


def test_half_a_prediction_is_not_kept(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAIL, "predict:error")
    with pytest.raises(DemoError, match="nnUNetv2_predict failed"):
        start().run()
    monkeypatch.delenv(FAIL)
    demo = start()
    (demo.predictions(LOSS) / "test_000.nii.gz").write_bytes(b"half")
    demo.run()
    assert json.loads((demo.work / "scores.json").read_text())["trainers"]["nnUNetTrainerX"]["test_000"]


RUNNER = """
import sys
from pathlib import Path
from rich.console import Console
from monai_segloss.demo import figures, process
from monai_segloss.demo.pipeline import Demo
from monai_segloss.demo.progress import Display
from monai_segloss.demo.settings import Arm, Settings
process.program = lambda name: [sys.executable, "-c", sys.argv[2], name]
settings = Settings("focal_tversky", None, "cpu", 2, 2, None, 0, 0, None, True)
Demo(Path(sys.argv[1]), settings, [Arm("focal_tversky", "nnUNetTrainerX")], "segloss demo", None, Display(Console())).run()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows hands no locks down to processes")
def test_after_sigkill_the_orphan_is_ended_and_the_training_continues(start: Start) -> None:
    demo = start()
    killed = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(demo.work), STAND_INS], env={**os.environ, FAIL: "train:hang"}
    )
    orphan = wait_for_orphan(demo)
    with pytest.raises(DemoError, match=f"another run \\(process {killed.pid} on .*\\) is at work"):
        start().run()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    os.kill(orphan, 0)  # it survived
    demo.run()
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)
    first, second = commands(demo, "train")
    assert ("--c" in first, "--c" in second) == (False, True)
    assert demo.stages.attempts("train") == 2


COMMAND = """
import sys
from monai_segloss.cli import app
from monai_segloss.demo import process
process.program = lambda name: [sys.executable, "-c", sys.argv[2], name]
app(["demo", "--quick", "--out", sys.argv[1]])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_ends_the_program_and_says_so(start: Start, number: int) -> None:
    demo = start()
    stopped = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(demo.work), STAND_INS],
        env={**os.environ, FAIL: "train:hang"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore SIGINT, and all that it starts in turn.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    program = wait_for_orphan(demo)
    stopped.send_signal(number)
    _, said = stopped.communicate(timeout=120)
    assert (stopped.returncode, said.strip()) == (130, "Stopped. The same command continues.")
    with pytest.raises(ProcessLookupError):
        os.kill(program, 0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_asked_to_stop_while_a_program_starts_it_ends_that_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def interrupted(file: Path, content: dict[str, int]) -> None:
        started.append(content["program"])
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(process, "write_json", interrupted)
    monkeypatch.setattr(process, "program", lambda name: [sys.executable, "-c", "import time; time.sleep(600)"])
    with process.sigterm_as_keyboard_interrupt(), pytest.raises(KeyboardInterrupt):
        process.Programs(tmp_path, {}).run(["sleep"], "train", lambda text: None)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def wait_for_orphan(demo: Demo) -> int:
    log = demo.work / "logs" / "train.log"
    for _ in range(1200):
        if log.exists() and "hanging" in log.read_text():
            return int(json.loads((demo.work / ".running.json").read_text())["program"])
        time.sleep(0.1)
    raise AssertionError("the training never began")


def test_a_data_set_is_linked_and_its_validation_cases_are_predicted(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "Dataset042_Mine"
    make_dataset(data, 0, dataclasses.replace(QUICK, test=0))
    for path in sorted(data.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    demo = start(dataclasses.replace(SETTINGS, data=str(data), quick=False))
    page = demo.run().read_text(encoding="utf-8")
    assert demo.name == "Dataset042_Mine"
    assert demo.cases() == ["case_000"]
    assert "validation cases of the fold" in page
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before
    start(dataclasses.replace(SETTINGS, data=str(data), quick=False), fresh=True).run()
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_changed_data_is_refused(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "mine"
    make_dataset(data, 0, QUICK)
    settings = dataclasses.replace(SETTINGS, data=str(data), quick=False)
    start(settings).run()
    make_dataset(data, 1, QUICK)
    with pytest.raises(DemoError, match="files of --data"):
        start(settings).run()


def test_a_full_disk_is_seen_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"needs 2\.0 GB of free disk space and has 0\.5 GB"):
        check_space(tmp_path / "not" / "there", 2 * 10**9, lambda path: 5 * 10**8)


def test_the_users_own_trainers_stay_in_front(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nnunet_trainers import VARIABLE, discovery_dir

    monkeypatch.setenv(VARIABLE, "/mine")
    found = process.environment(tmp_path, "cpu", 1)
    assert found[VARIABLE] == os.pathsep.join(["/mine", discovery_dir()])
    assert found["nnUNet_results"] == str(tmp_path / "nnUNet_results")
