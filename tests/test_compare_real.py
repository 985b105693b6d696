"""A comparison with the real programs of nnU-Net on tiny volumes: two arms, killed and started again, to the tables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monai_segloss.experiment.tables import read

pytestmark = [pytest.mark.real, pytest.mark.nightly]
DRIVER = """
import sys
from monai_segloss.cli import main
from monai_segloss.demo.generate import Size
from monai_segloss.experiment import comparison
comparison.DEMO_SIZE = Size(6, 0, (45.0, 20.0, 20.0))
main()
"""
CONTENT = {
    "demo": True,
    "arms": ["dice_ce", {"name": "sum", "terms": {"dice": 1, "cross_entropy": 0.5}}],
    "epochs": 2,
    "iterations": 2,
    "seeds": 2,
    "baseline_seeds": 2,
}


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_killed_and_started_again_it_ends_with_matched_runs(tmp_path: Path) -> None:
    file, work = tmp_path / "losses.json", tmp_path / "work"
    file.write_text(json.dumps(CONTENT))
    command = [sys.executable, "-c", DRIVER, "compare", "run", "--config", str(file), "-o", str(work), "--jobs", "2"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not any(work.glob("nnUNet_results/*/*/fold_0/checkpoint_latest.pth")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = read(work / "tables")
    assert len(tables.runs) == 4
    assert not set(tables.runs["state"]) & {"failed", "diverged"}
    for seed, runs in tables.runs.groupby("seed"):
        for column in ("splits_hash", "plans_hash", "weights_hash"):
            assert runs[column].nunique() == 1, (seed, column)
    assert tables.runs["weights_hash"].nunique() == 2
    assert set(tables.cases["point"]) == {"half", "own"}
    assert tables.curves.groupby("run")["epoch"].count().tolist() == [2] * 4
    logs = [each.read_text() for each in work.glob("runs/*-fold0/logs/train.log")]
    starts = [[line for line in log.splitlines() if line.startswith("$ ")] for log in logs]
    assert sorted(map(len, starts))[:2] == [1, 1]
    again = [each[-1] for each in starts if len(each) > 1]  # an orphan may have trained to its end meanwhile
    assert any(option in command for command in again for option in ("--c", "--val"))
    assert "time" in done.stdout
    assert "tables in" in done.stdout
