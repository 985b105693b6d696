"""What the demo refuses before any work, and how it reads the logs of nnU-Net."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import monai_segloss
from monai_segloss.cli import app
from monai_segloss.core.names import camel
from monai_segloss.demo import process
from monai_segloss.demo.dataset import link_dataset, nnunet_name, read_dataset, read_volume
from monai_segloss.demo.generate import make_dataset
from monai_segloss.demo.measure import measure
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.progress import Display, bar_listener, read_epochs, train_listener
from monai_segloss.demo.settings import QUICK, Settings, trainer_name
from nnunet_trainers import trainers

Edit = Callable[[Path], object]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "raw", 0, QUICK)
    return tmp_path / "raw"


def set_json(**entries: Any) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return edit


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["demo", *map(str, arguments)])


# -- data sets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda raw: (raw / "dataset.json").unlink(), r"is no nnU-Net raw data set: dataset\.json is missing in it"),
        (lambda raw: (raw / "imagesTr").rename(raw / "images"), "imagesTr is missing in it"),
        (lambda raw: (raw / "dataset.json").write_text("{"), r"dataset\.json is not valid JSON"),
        (lambda raw: (raw / "dataset.json").write_text("[]"), "must hold a JSON object, not list"),
        (set_json(channel_names=None), "needs 'channel_names' as a JSON object"),
        (set_json(file_ending=7), "needs 'file_ending' as text"),
        (set_json(file_ending=".png"), r"the demo reads volumes \(.*\), not '\.png'"),
        (set_json(labels={"organ": 1}), "needs the label 'background': 0"),
        (set_json(labels={"background": 0}), "names no class besides the background"),
        (set_json(labels={"background": 0, "organ": 2}), "must have consecutive labels from 0, got 0, 2"),
        (
            set_json(labels={"background": 0, "all": [1, 2]}),
            "needs 'regions_class_order', .* 1 regions .all., got None",
        ),
        (set_json(labels={"0": "background", "1": "organ"}), "maps numbers to names of labels as the Decathlon"),
        (set_json(dataset={}), "lists files itself"),
        (set_json(channel_names={"0": "CT", "1": "PET"}), r"case_000_0001\.nii\.gz is missing: it is the image of"),
        (lambda raw: (raw / "imagesTr" / "case_003_0000.nii.gz").unlink(), r"case_003_0000\.nii\.gz is missing"),
        (lambda raw: (raw / "imagesTs" / "test_001_0000.nii.gz").unlink(), r"test_001_0000\.nii\.gz is missing"),
        (lambda raw: (raw / "labelsTr" / "case_003.nii.gz").unlink(), "has 4 files .* five folds need at least 5"),
        (
            lambda raw: (raw / "imagesTr" / "case_003_0000.nii.gz").rename(raw / "imagesTr" / "x_0000.nii.gz"),
            r"case_003_0000\.nii\.gz is missing",
        ),
        (
            lambda raw: (raw / "imagesTr" / "x_0000.nii.gz").write_bytes(b""),
            r"labelsTr/x\.nii\.gz is missing: it is the label of .*x_0000\.nii\.gz",
        ),
        (
            lambda raw: [
                (raw / f"{kind}Ts" / f"test_000{end}").rename(raw / f"{kind}Ts" / f"case_000{end}")
                for kind, end in (("images", "_0000.nii.gz"), ("labels", ".nii.gz"))
            ],
            "case 'case_000' is in labelsTr and in labelsTs",
        ),
    ],
)
def test_a_wrong_data_set_is_named_in_one_sentence(raw: Path, edit: Edit, sentence: str) -> None:
    edit(raw)
    with pytest.raises(DemoError, match=sentence) as caught:
        read_dataset(raw)
    assert str(caught.value).count(". ") == 0


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"--data .*nowhere is not a folder"):
        read_dataset(tmp_path / "nowhere")


def test_regions_and_ignored_voxels(raw: Path) -> None:
    set_json(labels={"background": 0, "whole": [1, 2, 3], "lesion": [3], "ignore": 4}, regions_class_order=[1, 3])(raw)
    dataset = read_dataset(raw)
    assert dataset.classes == {"whole": (1, 2, 3), "lesion": (3,)}
    assert (dataset.regions, dataset.ignore_label) == (True, 4)
    label = raw / "labelsTs" / "test_000.nii.gz"
    image = nibabel.load(label)
    array = np.asarray(image.dataobj).copy()
    array[:, :, 0] = 4
    nibabel.save(nibabel.Nifti1Image(array, image.affine), label)
    other = array.copy()
    other[:, :, 0] = 1  # wrong only where it does not count
    (raw / "predicted").mkdir()
    nibabel.save(nibabel.Nifti1Image(other, image.affine), raw / "predicted" / "test_000.nii.gz")
    scores = measure(dataset, ["test_000"], raw / "predicted", 1.0)
    assert {each.dice for each in scores["test_000"].values()} == {1.0}


def test_a_missing_prediction_is_named(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="nnU-Net did not predict case test_001"):
        measure(read_dataset(raw), ["test_001"], tmp_path, 1.0)


def test_labels_that_nnunet_reads_as_plain_ones(raw: Path) -> None:
    set_json(labels={"background": 0, "organ": [1], "lesion": "2", "vessel": 3})(raw)
    dataset = read_dataset(raw)
    assert dataset.classes == {"organ": (1,), "lesion": (2,), "vessel": (3,)}
    assert (dataset.regions, dataset.ignore_label) == (False, None)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Dataset004_X", "Dataset004_X"), ("hippocampus_mr", "Dataset001_HippocampusMr"), ("é", "Dataset001_Data")],
)
def test_names_for_nnunet(folder: str, name: str) -> None:
    assert nnunet_name(Path(folder)) == name


def test_linking_corrects_the_count_and_leaves_the_source(raw: Path, tmp_path: Path) -> None:
    set_json(numTraining=99)(raw)
    link_dataset(read_dataset(raw), tmp_path / "linked")
    assert json.loads((tmp_path / "linked" / "dataset.json").read_text())["numTraining"] == 5
    assert json.loads((raw / "dataset.json").read_text())["numTraining"] == 99
    assert read_dataset(tmp_path / "linked").cases == read_dataset(raw).cases


@pytest.mark.parametrize("flips", [(1, 1), (-1, 1), (-1, -1)])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_volumes_are_read_in_one_orientation(tmp_path: Path, flips: tuple[int, int], ending: str) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)  # z to head, y to back, x to left
    path = tmp_path / f"volume{ending}"
    if ending == ".nrrd":
        import SimpleITK

        image = SimpleITK.GetImageFromArray(array[:, :: flips[1], :: flips[0]])
        image.SetSpacing((0.5, 0.7, 3.0))
        image.SetDirection((flips[0], 0, 0, 0, flips[1], 0, 0, 0, 1))
        SimpleITK.WriteImage(image, str(path))
    else:
        stored = array[:, :: flips[1], :: flips[0]].T
        affine = np.diag([-0.5 * flips[0], -0.7 * flips[1], 3.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(stored, affine), path)
    read, spacing = read_volume(path)
    np.testing.assert_array_equal(read, array)
    assert spacing == pytest.approx((3.0, 0.7, 0.5))


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--loss", "focal_tverski"), "focal_tversky"),
        (("--device", "tpu"), "--device must be one of cpu, cuda, mps, got 'tpu'."),
        (("--data", "/nowhere"), "--data /nowhere is not a folder."),
        (("--quick", "--data", "/nowhere"), "--quick is about the generated volumes, it cannot go with --data."),
        (
            ("--loss", "dice_ce", "--baseline"),
            "--baseline trains dice_ce alongside the loss, so --loss must be another one.",
        ),
    ],
)
def test_wrong_input_gets_one_sentence_and_leaves_nothing(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = demo("--out", tmp_path / "out", *arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", [info.key for info in monai_segloss.list_losses()])
def test_every_loss_has_a_trainer_that_the_demo_can_name(key: str) -> None:
    settings = Settings(key, None, "cpu", 6, 25, 0.05, 1, 0, None, False)
    name = trainer_name(settings, key)
    assert name == f"nnUNetTrainer{camel(key)}_lr5em2_seed1_6epochs_25iterations"
    trainer = trainers.find(name)
    assert (trainer.key, trainer.settings.epochs, trainer.settings.lr) == (key, 6, 0.05)


def test_a_loss_without_a_trainer_is_refused_by_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: each for name, each in trainers.plain().items() if each.key == "dice"}
    monkeypatch.setattr(trainers, "plain", lambda: known)
    settings = Settings("tversky", None, "cpu", 6, 25, None, 1, 0, None, False)
    with pytest.raises(
        DemoError, match=r"--loss tversky: there is no nnU-Net trainer for it, because .*; use one of dice$"
    ):
        trainer_name(settings, "tversky")


def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = demo("--out", tmp_path / "out", "--device", "cuda")
    assert result.stderr.strip() == "--device cuda: torch finds no usable NVIDIA GPU here; use --device cpu."


def test_without_nnunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None if name == "nnunetv2" else name)
    result = demo("--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.strip() == "the demo needs nnunetv2: pip install 'monai-segloss[nnunet]'."


def test_numbers_out_of_range_are_wrong_usage(tmp_path: Path) -> None:
    for arguments in (("--epochs", 0), ("--fold", 5), ("--seed", -1)):
        assert demo("--out", tmp_path / "out", *arguments).exit_code == 2


# -- logs -----------------------------------------------------------------------------------------------------------

LOG = """
This is nnU-Net
2026-01-02 03:04:05.000000: Epoch 0
2026-01-02 03:04:05.000000: Current learning rate: 0.01
2026-01-02 03:04:06.000000: train_loss -0.25
2026-01-02 03:04:06.000000: val_loss 0.5
2026-01-02 03:04:06.000000: Pseudo dice [np.float32(0.25), np.float32(nan), np.float32(1e-05)]
2026-01-02 03:04:06.000000: Epoch time: 12.5 s
2026-01-02 03:04:06.000000: Epoch 1
2026-01-02 03:04:06.000000: train_loss 0.125
2026-01-02 03:04:06.000000: val_loss 0.4
2026-01-02 03:04:06.000000: Pseudo dice [0.5, nan, 0.0]
2026-01-02 03:04:06.000000: Epoch time: 11 s
2026-01-02 03:04:06.000000: Epoch 2
2026-01-02 03:04:06.000000: train_loss 0.1
"""


def test_epochs_are_read_from_the_log() -> None:
    first, second = read_epochs(LOG.splitlines())
    assert dataclasses.astuple(first)[:3] == (0, -0.25, 0.5)
    assert first.dice[0::2] == (0.25, 1e-05)
    assert math.isnan(first.dice[1])
    assert (second.dice[0], second.seconds) == (0.5, 11.0)


def test_an_epoch_that_was_repeated_counts_once() -> None:
    again = "Epoch 1\ntrain_loss 0.5\nval_loss 0.5\nPseudo dice [0.75]\nEpoch time: 9 s\n"
    found = read_epochs((LOG + again).splitlines())
    assert [epoch.number for epoch in found] == [0, 1]
    assert found[1].dice == (0.75,)


def test_progress_of_a_training_arrives_in_pieces() -> None:
    steps: list[tuple[float, float, str]] = []
    listen = train_listener(lambda *values: steps.append(values), 5, ["a", "b", "c"])  # type: ignore[arg-type]
    for start in range(0, len(LOG), 7):
        listen(LOG[start : start + 7])
    assert steps[0] == (0, 5, "starting")
    assert steps[-1] == (2, 5, "epoch 2/5, loss 0.125, Dice a 0.50, b nan, c 0.00")


def test_progress_of_bars() -> None:
    steps: list[tuple[float, float]] = []
    listen = bar_listener(lambda *values: steps.append(values), 20)  # type: ignore[arg-type]
    listen("\rPreprocessing cases:  50%|█████ | 10/20 [00:04<00:01,  5.83it/s]\rPreprocessing cases:  65%|██████")
    listen("▌   | 13/20 [00:04<00:00]\r  0%|  | 1/3 [00:00<00:00]")
    assert steps[:1] == [(10, 20)]
    listen("\rPreprocessing cases:  65%|███| 13/20 [00:04<00:00]")
    assert steps[-1] == (13, 20)


def test_display_without_a_terminal_prints_lines() -> None:
    display = Display(Console(file=io.StringIO(), width=100))
    with display.stage("train [x]") as step:
        step(0, 2)
        step(1, 2, "epoch 1/2")
        step(1, 2, "epoch 1/2")
    assert display.console.file.getvalue() == "... train [x]\n    epoch 1/2\n"  # type: ignore[attr-defined]


def test_display_on_a_terminal_shows_a_bar() -> None:
    display = Display(Console(file=io.StringIO(), width=100, force_terminal=True))
    with display.stage("train") as step:
        step(1, 2, "epoch 1/2")
    assert "epoch 1/2" in display.console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "log", "sentence"),
    [
        (-9, "", "was ended from outside (signal 9, often for lack of memory); the same command continues"),
        (-15, "Epoch 3", "was ended from outside (signal 15); the same command continues"),
        (1, "Traceback\n  raise\nRuntimeError: bad plans.\n", "failed: RuntimeError: bad plans ("),
        (1, "torch.OutOfMemoryError: CUDA out of memory", "failed: torch.OutOfMemoryError: CUDA out of memory"),
        (1, "OSError: [Errno 28] No space left on device", "the disk is full"),
        (1, "There is no trainer 'x'.\n\n", "failed: There is no trainer 'x' ("),
        (1, "", "failed: no output"),
    ],
)
def test_a_failure_is_explained(code: int, log: str, sentence: str) -> None:
    assert sentence in str(process.explain("nnUNetv2_train", code, log, Path("x.log")))
