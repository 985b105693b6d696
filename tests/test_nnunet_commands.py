"""nnU-Net's own commands as a user types them: train, kill, resume, validate, predict, ensemble, cascade, export."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from environments import Environment
from nnunet_data import Workspace

import monai_segloss
from monai_segloss.core.names import camel
from nnunet_trainers import VARIABLE
from nnunet_trainers.export import ExportError, export

pytest_plugins = "nnunet_fixtures"
pytestmark = pytest.mark.real

NAME = "nnUNetTrainerFocalTversky_seed1_6epochs_10iterations"
OTHER = "nnUNetTrainerDiceCE_2epochs_5iterations"
PREDICT = "from nnunetv2.inference.predict_from_raw_data import {} as f; f()"


@pytest.fixture(scope="module")
def site(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One nnU-Net installation for this module; its tests build on each other."""
    root = tmp_path_factory.mktemp("commands") / "nnunet"
    shutil.copytree(prepared.root, root)
    return Workspace(root)


@pytest.fixture(scope="module")
def trained(site: Workspace) -> Path:
    """The model of a training that was killed three times, each time at a random moment, and went on with --c."""
    chance = random.Random()
    fold = site.model(NAME) / "fold_0"
    for attempt in range(3):
        process = start_training(site, *(["--c"] if attempt else []))
        moment = wait_and_kill(process, fold, attempt, chance)
        print(f"killed attempt {attempt} {moment}")
        assert not (fold / "validation" / "summary.json").exists()
        for file in fold.glob("*.pth"):
            assert torch.load(file, weights_only=False)["trainer_name"] == NAME
    site.run("nnUNetv2_train", "1", "tiny", "0", "-tr", NAME, "-device", "cpu", "--c", "--npz")
    return site.model(NAME)


def start_training(site: Workspace, *options: str, name: str = NAME) -> subprocess.Popen[bytes]:
    program = str(Path(sys.executable).with_name("nnUNetv2_train"))
    command = [program, "1", "tiny", "0", "-tr", name, "-device", "cpu", *options]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=site.env, cwd=site.root, stdout=quiet, stderr=quiet, start_new_session=True)


def wait_and_kill(process: subprocess.Popen[bytes], fold: Path, attempt: int, chance: random.Random) -> str:
    """Kill a training and all that it started, a random while after a random epoch began."""
    epoch, pause = chance.randint(attempt, attempt + 2), chance.uniform(0, 1.5)
    deadline = time.monotonic() + 600
    while f"Epoch {epoch}" not in newest_log(fold):
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < deadline, "the training did not get there"
        time.sleep(0.02)
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f"{pause:.2f} s after epoch {epoch} began"


def newest_log(fold: Path) -> str:
    logs = sorted(fold.glob("training_log_*.txt"), key=lambda file: file.stat().st_mtime)
    return logs[-1].read_text() if logs else ""


def prediction(folder: Path) -> np.ndarray:
    (file,) = folder.glob("*.nii.gz")
    return np.asarray(nibabel.load(file).dataobj)


@pytest.fixture(scope="module")
def images(site: Workspace) -> str:
    """One image to predict."""
    folder = site.root / "imagesTs"
    folder.mkdir()
    shutil.copy(site.root / "raw" / "Dataset001_labels" / "imagesTr" / "case_03_0000.nii.gz", folder)
    return str(folder)


@pytest.fixture(scope="module")
def predicted(site: Workspace, trained: Path, images: str) -> np.ndarray:
    """What a new shell predicts after ``segloss nnunet enable``, with no variable for trainers set."""
    environment = Environment(site.root / "enabled")
    environment.segloss("enable")
    variables = {name: value for name, value in site.variables.items() if name != VARIABLE}
    options = ["-d", "1", "-c", "tiny", "-f", "0", "-tr", NAME, "-i", images, "-o", str(site.root / "out")]
    environment.ask(
        PREDICT.format("predict_entry_point"), *options, "-device", "cpu", "-npp", "1", "-nps", "1", **variables
    )
    return prediction(site.root / "out")


def test_a_killed_training_ends(trained: Path) -> None:
    final = torch.load(trained / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == 6
    assert len(final["logging"]["train_losses"]) == 6
    assert not list(trained.rglob("*.tmp"))
    epochs = [
        int(epoch)
        for log in sorted((trained / "fold_0").glob("training_log_*.txt"))
        for epoch in re.findall(r"Epoch (\d+)", log.read_text())
    ]
    assert set(epochs) == set(range(6))
    assert len(epochs) < 6 * 4
    summary = json.loads((trained / "fold_0" / "validation" / "summary.json").read_text())
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1


def test_validation_alone(site: Workspace, trained: Path) -> None:
    validation = trained / "fold_0" / "validation"
    before = prediction(validation)
    shutil.rmtree(validation)
    site.run("nnUNetv2_train", "1", "tiny", "0", "-tr", NAME, "-device", "cpu", "--val", "--npz")
    assert (prediction(validation) == before).all()


def test_a_new_shell_predicts_what_the_validation_did(trained: Path, predicted: np.ndarray) -> None:
    assert (predicted == prediction(trained / "fold_0" / "validation")).all()
    assert set(np.unique(predicted)) <= {0, 1, 2}


@pytest.mark.usefixtures("nnunet")
def test_an_exported_model_predicts_without_this_package(
    site: Workspace, trained: Path, images: str, predicted: np.ndarray, tmp_path: Path
) -> None:
    said = site.run("segloss", "nnunet", "export", str(trained))
    exported = trained / "exported" / "nnUNetTrainer__nnUNetPlans__tiny"
    assert str(exported) in said
    checkpoint = torch.load(exported / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["segloss"]["exported_from"] == NAME
    assert checkpoint["segloss"]["configuration"]["loss"] == "focal_tversky"
    bare = Environment(tmp_path / "bare", ours=False)
    assert bare.ask("import importlib.util as u; print(u.find_spec('nnunetv2') is not None)") == "True"
    with pytest.raises(AssertionError, match="No module named 'monai_segloss'"):
        bare.ask("import monai_segloss")
    options = ["-m", str(exported), "-i", images, "-o", str(tmp_path / "out"), "-f", "0", "-device", "cpu"]
    bare.ask(PREDICT.format("predict_entry_point_modelfolder"), *options, "-npp", "1", "-nps", "1")
    assert (prediction(tmp_path / "out") == predicted).all()
    with pytest.raises(ExportError, match="exists; remove it"):
        export(trained)


FAMILIES = {info.family: info for info in reversed(monai_segloss.list_losses()) if "labels" in info.support}


@pytest.mark.parametrize(
    "info",
    [
        pytest.param(info, marks=[] if family == "boundary" else pytest.mark.nightly, id=f"{family}-{info.key}")
        for family, info in FAMILIES.items()
    ],
)
def test_a_loss_of_each_family(site: Workspace, images: str, info: monai_segloss.LossInfo) -> None:
    """Trained with nnU-Net's worker processes, which make what the loss needs, and predicted by another command."""
    name = f"nnUNetTrainer{camel(info.key)}_2epochs_3iterations"
    site.run("nnUNetv2_train", "1", "tiny", "0", "-tr", name, "-device", "cpu", nnUNet_n_proc_DA="2")
    out = site.root / info.key
    options = ["-d", "1", "-c", "tiny", "-f", "0", "-tr", name, "-device", "cpu", "-npp", "1", "-nps", "1"]
    site.run("nnUNetv2_predict", "-i", images, "-o", str(out), *options)
    assert (prediction(out) == prediction(site.model(name) / "fold_0" / "validation")).all()


def test_a_killed_schedule_goes_on(site: Workspace, images: str) -> None:
    """Each epoch has its weights, whichever process trained it, and the model predicts."""
    name = "nnUNetTrainerDiceBoundary_4epochs_5iterations"
    fold = site.model(name) / "fold_0"
    print("killed", wait_and_kill(start_training(site, name=name), fold, 0, random.Random()))
    site.run("nnUNetv2_train", "1", "tiny", "0", "-tr", name, "-device", "cpu", "--c")
    found: dict[int, str] = {}
    for log in sorted(fold.glob("training_log_*.txt"), key=lambda file: file.stat().st_mtime):
        entries = re.findall(r"Epoch (\d+)|train_loss_weights (\{.*\})", log.read_text())
        for (epoch, _), (_, weights) in pairwise(entries):
            if epoch and weights:
                found[int(epoch)] = weights
    assert found == {
        e: str({"dice": round(0.99 - 0.01 * e, 4), "boundary": round(0.01 * (e + 1), 4)}) for e in range(4)
    }
    out = site.root / "schedule"
    options = ["-d", "1", "-c", "tiny", "-f", "0", "-tr", name, "-device", "cpu", "-npp", "1", "-nps", "1"]
    site.run("nnUNetv2_predict", "-i", images, "-o", str(out), *options)
    assert (prediction(out) == prediction(fold / "validation")).all()


def test_the_best_configuration_and_an_ensemble(site: Workspace, trained: Path) -> None:
    site.run("nnUNetv2_train", "1", "tiny", "0", "-tr", OTHER, "-device", "cpu", "--npz")
    said = site.run("nnUNetv2_find_best_configuration", "1", "-c", "tiny", "-f", "0", "-np", "1", "-tr", NAME, OTHER)
    assert f"{NAME}__nnUNetPlans__tiny: " in said
    assert f"ensemble___{NAME}__nnUNetPlans__tiny___{OTHER}__nnUNetPlans__tiny___0: " in said
    best = json.loads((trained.parent / "inference_information.json").read_text())
    assert len(best["all_results"]) == 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_cascade(space: Workspace) -> None:
    name = "nnUNetTrainerDiceCE_1epochs_2iterations"
    first = space.trainer(name, configuration="tiny_low", fold="all")
    first.run_training()
    first.perform_actual_validation()
    second = space.trainer(name, configuration="tiny_cascade")
    second.run_training()
    assert second.num_input_channels == 1 + 2
    assert np.isfinite(second.logger.get_value("train_losses", 0))


def test_wrong_settings_and_misspelt_names_of_trainers_are_said(site: Workspace) -> None:
    arguments = ("nnUNetv2_train", "1", "tiny", "0", "-device", "cpu", "-tr")
    said = site.run(*arguments, "nnUNetTrainerFocalTversky_alpha0.3", fails=True).splitlines()
    assert said[-1].endswith("must be written 'nnUNetTrainerFocalTversky_alpha0p3'.")
    said = site.run(*arguments, "nnUNetTrainerFocalTversy", fails=True).splitlines()
    assert "did you mean 'nnUNetTrainerFocalTversky'?" in "".join(said)
    assert "Could not find requested nnunet trainer nnUNetTrainerFocalTversy" in said[-1]


def test_doctor_finds_everything(site: Workspace) -> None:
    for name in ("raw", "preprocessed", "results"):
        (site.root / name).mkdir(exist_ok=True)
    said = site.run("segloss", "doctor", COLUMNS="200")
    assert "failed" not in said
    for check in ("torchvision", "discovery by nnU-Net", "pickling of a trainer", "nnUNet_results", "GPU"):
        assert check in said
