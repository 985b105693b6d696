"""The examples run on tiny data, as a reader starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TRAINER = "nnUNetTrainerFocalTversky_seed0_1epochs_2iterations"
TESTED = {"own_loss", "train_nnunet", "bundle_dicom", "vessel_topology", "compare_losses", "losses_in_a_notebook"}


def run(*command: str | Path, **more: str) -> str:
    """What a Python program prints."""
    quiet = {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **quiet},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def example(name: str, folder: Path, *options: str) -> str:
    """What an example prints; it says what to look at, which must be there."""
    text = run(EXAMPLES / f"{name}.py", folder, *options)
    last = text.strip().splitlines()[-1]
    found = [Path(word.strip(".:,")) for word in last.split() if word.startswith(str(folder))]
    assert last.startswith("Look at ")
    assert found
    assert all(path.exists() for path in found), last
    return text


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")} == TESTED


@pytest.mark.slow
def test_own_loss(tmp_path: Path) -> None:
    text = example("own_loss", tmp_path / "out", "--steps", "2")
    assert "F2Loss keeps the contract." in text
    assert "perfect_prediction_is_the_minimum on labels_3d: a worse prediction scores lower" in text


@pytest.mark.slow
def test_vessel_topology(tmp_path: Path) -> None:
    example("vessel_topology", tmp_path / "out", "--steps", "2", "--edge", "48")
    found = json.loads((tmp_path / "out" / "betti.json").read_text())
    assert list(found) == [
        "label",
        "before",
        *(f"after {k}" for k in ("dice_ce", "dice_cldice", "dice_ce_skeleton_recall")),
    ]
    assert (found["label"]["dice"], found["label"]["b0"]) == (1, 1)
    assert len({json.dumps(each) for each in found.values()}) == len(found)


@pytest.mark.slow
def test_compare_losses(tmp_path: Path) -> None:
    text = example("compare_losses", tmp_path / "out", "--cases", "6")
    assert text.count("worse") > 3
    assert "better" not in text


@pytest.mark.slow
def test_losses_in_a_notebook() -> None:
    cells = json.loads((EXAMPLES / "losses_in_a_notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    text = run("-c", code, STEPS="2")
    values = [line.split()[1] for line in text.splitlines() if line.startswith(("MONAI ", "ours "))]
    assert len(values) == 2
    assert float(values[0]) == pytest.approx(float(values[1]), abs=1e-6)
    assert text.count("Dice") == 6


@pytest.mark.real
def test_train_nnunet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = example("train_nnunet", out, "--trainer", TRAINER, "--extent", "45", "20", "20")
    assert text.count(": Dice ") == 6
    assert sorted(path.name for path in (out / "predictions").glob("*.nii.gz")) == [
        "test_000.nii.gz",
        "test_001.nii.gz",
    ]


@pytest.mark.real
def test_bundle_dicom(tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = example("bundle_dicom", out, "--epochs", "2", "--edge", "24")
    assert "The prediction is on the grid of the series: True." in text
    assert len(list((out / "new" / "patient").iterdir())) == 12
    predicted = np.asarray(nibabel.load(out / "bundle" / "predictions" / "patient.nii.gz").dataobj)
    assert predicted.shape == (24, 24, 12)
