"""The demo itself, with the real programs of nnU-Net, on tiny volumes: killed half-way, started again, to the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.nightly]
COMMAND = [sys.executable, "-c", "from monai_segloss.cli import main; main()", "demo", "--quick", "--out"]
TRAINER = "nnUNetTrainerFocalTversky_lr5em2_seed0_2epochs_2iterations"


def wait_for(log: Path, text: str, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if log.exists() and text in log.read_text(errors="replace"):
            return
        time.sleep(0.05)
    raise AssertionError(f"the demo ended before its log said {text!r}: {process.communicate()}")


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_killed_and_started_again_it_ends_with_the_report(tmp_path: Path) -> None:
    work = tmp_path / "demo"
    first = subprocess.Popen([*COMMAND, str(work)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = work / "logs" / "train.log"
    wait_for(log, "Epoch time", first)  # the first epoch is over, its checkpoint is about to be written
    fold = work / "nnUNet_results" / "Dataset001_SeglossDemo" / f"{TRAINER}__nnUNetPlans__3d_fullres" / "fold_0"
    while not (fold / "checkpoint_best.pth").exists():
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (work / "report.html").exists()

    done = subprocess.run([*COMMAND, str(work)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("(done earlier)") == 2
    first_command, second_command = [line for line in log.read_text().splitlines() if line.startswith("$ ")]
    assert "--c" not in first_command
    assert second_command.endswith("--c")
    assert f"nnUNetv2_train 1 3d_fullres 0 -tr {TRAINER} -device cpu" in second_command
    page = (work / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert TRAINER in page
    scores = json.loads((work / "scores.json").read_text())["trainers"][TRAINER]
    assert sorted(scores) == ["test_000", "test_001", "test_002"]
    assert {name for case in scores.values() for name in case} == {"organ", "vessel", "lesion"}
