"""Comparisons that train with the bundle: what they write, refuse and record, and one through the real programs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nnunetv2.imageio.reader_writer_registry  # noqa: F401  (sets variables of the environment)
import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import nnunet_trainers.trainers  # noqa: F401  (the same)
from monai_segloss.bundle import bundle_path, settings
from monai_segloss.cli import app
from monai_segloss.cli.compare_run import _matrix
from monai_segloss.core.hashing import weights_hash
from monai_segloss.datalist import Labels, read
from monai_segloss.demo.generate import Size, make_dataset
from monai_segloss.demo.problem import DemoError, DivergedError, explain
from monai_segloss.demo.progress import Display
from monai_segloss.engine import SaveProbabilitiesd, TrainingRecord
from monai_segloss.experiment import backends, comparison, tables
from monai_segloss.experiment.backends.bundle import BundleTask, described, inference, training
from monai_segloss.experiment.comparison import Comparison
from monai_segloss.experiment.costs import Cost
from monai_segloss.experiment.matrix import MatrixError, matrix
from monai_segloss.experiment.measuring import read_case
from monai_segloss.files import read_json, write_json

SIZE = Size(train=6, test=0, extent=(45.0, 20.0, 20.0))
CONTENT: dict[str, Any] = {
    "demo": True,
    "backend": "bundle",
    "arms": ["dice_ce", {"name": "sum", "terms": {"dice": 1, "cross_entropy": 0.5}}],
    "epochs": 8,
    "iterations": 2,
    "baseline_seeds": 2,
    "batch_size": 2,
    "patch_size": [16, 16, 16],
    "features": 4,
}
CONFIGS = {name: read_json(bundle_path() / "configs" / f"{name}.json") for name in ("train", "inference")}


def made(work: Path, **content: Any) -> Comparison:
    return Comparison(work, matrix({**CONTENT, **content}), Display(Console(file=io.StringIO(), width=200)))


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--configuration", "2d"], "--configuration 2d is nnU-Net's: the bundle has one network, of three dimensions"),
        (["--patch-size", "20,16,16"], "the bundle takes three edges, multiples of 8 from 16, along x, y and z"),
        (["--patch-size", "16,16"], "--patch-size [16, 16]: the bundle takes three edges"),
        (
            ["--loss", "dice", "--loss", "nnUNetTrainerDiceCE"],
            "is a trainer of nnU-Net: give --backend bundle its loss",
        ),
        (
            ["--loss", "dice", "--loss", 'x={"loss": "dice_ce", "soft_labels": true}'],
            "'x' is trained on soft labels, which",
        ),
        (["--backend", "monai"], "Backend: Input should be 'nnunet' or 'bundle'"),
        (["--protocol", "jadon2020"], "--configuration 2d is nnU-Net's"),
    ],
)
def test_what_the_bundle_has_not_is_refused_before_any_work(tmp_path: Path, arguments: list[str], message: str) -> None:
    start = ["compare", "run", "--demo", "-o", str(tmp_path / "out")]
    start += [] if "--backend" in arguments else ["--backend", "bundle"]
    result = CliRunner().invoke(app, [*start, *arguments])
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_files_that_the_bundle_does_not_predict_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_dataset(data, 0, SIZE)
    for file in (*data.glob("*Tr/*.nii.gz"),):
        file.rename(file.with_name(file.name.replace(".nii.gz", ".nrrd")))
    write_json(data / "dataset.json", {**read_json(data / "dataset.json"), "file_ending": ".nrrd"})
    with pytest.raises(DemoError, match=r"compares \.nii\.gz files, as it predicts them; --data has \.nrrd"):
        made(tmp_path / "work", demo=False, data=str(data))


def test_a_folder_of_another_backend_is_refused(tmp_path: Path) -> None:
    with made(tmp_path / "work").open():
        pass
    with (
        pytest.raises(
            DemoError, match=r"other settings \(--backend 'bundle' there, None now\): choose another --output"
        ),
        made(tmp_path / "work", backend="nnunet").open(),
    ):
        pass


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "ignite" else name)
    with pytest.raises(DemoError, match=r"--backend bundle needs ignite: pip install 'monai-segloss\[bundle\]'"):
        made(tmp_path / "work")


def test_the_same_training_twice_is_refused_with_any_backend() -> None:
    with pytest.raises(MatrixError, match="two arms are the same training"):
        matrix({**CONTENT, "arms": ["dice", {"name": "again", "loss": "dice"}]})


def test_each_backend_has_a_rate_of_its_own_for_the_demo() -> None:
    rates = [_matrix(None, {"demo": True, "backend": name}).lr for name in (None, "nnunet", "bundle")]
    assert rates == [0.05, 0.05, 0.003]


# -- what is written --------------------------------------------------------------------------------------------------


def test_all_runs_share_configurations_and_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "DEMO_SIZE", SIZE)
    own = {"name": "slow", "loss": "tversky", "lr": 0.001, "arguments": {"alpha": 0.2}}
    found = made(tmp_path / "work", arms=[*CONTENT["arms"], own])
    with found.open():
        found._data()
        found.backend.plan(found)
    place = found.work / "bundle"
    arms = {file.stem: read_json(file) for file in (place / "arms").iterdir()}
    assert arms["slow"]["learning_rate"] == 0.001
    assert (arms["slow"]["loss"]["_target_"], arms["slow"]["loss"]["alpha"]) == ("monai_segloss.TverskyLoss", 0.2)
    assert "learning_rate" not in arms["sum"]
    assert arms["sum"]["loss"]["_target_"] == "monai_segloss.WeightedSum"
    assert read_json(place / "configs" / "train.json") == training(CONFIGS["train"], found.matrix)
    for number, split in enumerate(found.held_out()):
        items = read(place / "folds" / f"fold_{number}")
        for side, listed in (("train", items.train_items()), ("val", items.val_items())):
            assert [Path(each["label"]).name.removesuffix(".nii.gz") for each in listed] == split[side]
            assert all(Path(file).exists() for each in listed for file in (*each["image"], each["label"]))
        assert [each["image"] for each in items.test_items()] == [each["image"] for each in items.val_items()]
    changed = made(tmp_path / "work", arms=[CONTENT["arms"][0], {**own, "arguments": {}}])
    with pytest.raises(DemoError, match=r"arm 'slow': .*slow\.json exists with other content"), changed.open():
        changed.backend.plan(changed)


def test_only_what_is_asked_for_is_changed() -> None:
    plain = matrix({"demo": True, "backend": "bundle", "arms": ["dice", "dice_ce"], "epochs": 7, "iterations": 3})
    found = training(CONFIGS["train"], plain)
    changed = {key for key in found if found[key] != CONFIGS["train"].get(key)}
    assert changed == {"epochs", "iterations", "device", "val_interval", "surface_metrics", "train"}
    assert (found["epochs"], found["iterations"]) == (7, 3)
    parts = {key for key in found["train"] if found["train"][key] != CONFIGS["train"]["train"][key]}
    assert parts == {"dataloader", "handlers"}
    handlers = [each["_target_"].rpartition(".")[2] for each in found["train"]["handlers"]]
    assert (
        handlers.index("ValidationHandler") < handlers.index("TrainingRecord") < handlers.index("ResumableCheckpoint")
    )
    predicts = inference(CONFIGS["inference"], plain)
    assert {key for key in predicts if predicts[key] != CONFIGS["inference"][key]} == {"device"}
    assert described(found) == "patch of 32 x 32 x 32 voxels, batch of 4, 16 to 128 channels"


def test_options_reach_training_and_inference() -> None:
    asked = matrix({**CONTENT, "lr": 0.01, "optimizer": "adam", "batch_size": 3, "device": "cuda"})
    found, predicts = (adapt(CONFIGS[name], asked) for adapt, name in ((training, "train"), (inference, "inference")))
    assert (found["learning_rate"], found["optimizer"]["_target_"]) == (0.01, "torch.optim.Adam")
    assert found["optimizer"]["params"] == CONFIGS["train"]["optimizer"]["params"]
    assert (found["batch_size"], found["num_samples"]) == (3, 1)
    for each in (found, predicts):
        assert each["network_def"]["channels"] == [4, 8, 16, 32]
        assert each["patch_size"] == [16, 16, 16]
        assert each["device"] == "$torch.device('cuda')"
    assert described(found) == "patch of 16 x 16 x 16 voxels, batch of 3, 4 to 32 channels"


def test_what_is_left_of_a_run(tmp_path: Path) -> None:
    run = matrix(CONTENT).runs()[0]
    task = BundleTask(tmp_path, {}, run, "Dataset001_X", "segloss_segmentation")
    assert run.trainer == "dice_ce_seed0_8epochs_2iterations"
    assert pickle.loads(pickle.dumps(task)) == task  # another machine gets it so
    assert [name for name, _ in task.commands()] == ["train", "predict"]
    begun = {"first_weights": "a", "settings": "b", "epochs": [], "finished": False}
    write_json(task.fold / "models" / "record.json", begun)
    commands = dict(task.commands())
    assert commands["train"][-1] == "True"
    assert commands["train"][-2] == "--resume"
    assert commands["predict"][commands["predict"].index("--ckpt_path") + 1].endswith("models/last.pt")
    row = {"epoch": 0, "train_loss": 1.5, "dice": None, "seconds": 90.0, "validation_seconds": 30.0}
    write_json(task.fold / "models" / "record.json", {**task.record(), "epochs": [row], "finished": True})
    assert [name for name, _ in task.commands()] == ["predict"]
    assert [(each.number, each.train_loss, each.dice, each.seconds) for each in task.epochs()] == [(0, 1.5, (), 90.0)]
    assert task.curves() == [{"epoch": 0, "train_loss": 1.5, "dice": None}]


def test_time_of_a_run_with_validations() -> None:
    cost = Cost(start=10, iteration=2, case=3, checkpoint=100, volume=7, patches=0.0, validation=0.5)
    assert cost.seconds(epochs=25, iterations=4, cases=6) == 10 + 25 * 4 * 2 + 12 * 6 * 0.5 + 6 * 3


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("The run has ended: the loss is nan in epoch 3, iteration 17 of 40, on case_04", DivergedError),
        ("The configuration is wrong: epochs must be a whole number from 1, got 'ten'.", DemoError),
        ("The data are wrong: case.nii.gz holds 12 of 99 values that are NaN", DemoError),
    ],
)
def test_what_the_bundle_says_is_the_reason(line: str, kind: type[Exception]) -> None:
    found = explain("monai.bundle", 1, f"2026 - INFO - > epochs: 1\n\n{line}\nsomething at exit\n", Path("train.log"))
    assert type(found) is kind
    assert f"monai.bundle failed: {line.rstrip('.')} (" in str(found)


# -- what a training records ------------------------------------------------------------------------------------------


def trained(record: TrainingRecord, losses: list[float], first: int = 0, dice: float | None = None) -> None:
    """An engine that has one iteration in each epoch, with these losses."""
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*IterationEvents)
    engine.state.rank = 0  # type: ignore[attr-defined]
    record.attach(engine)
    if record.validator is not None:
        record.validator.state = SimpleNamespace(epoch=1, metrics={"val": dice}, key_metric_name="val")

    @engine.on(Events.ITERATION_STARTED)
    def run() -> None:
        engine.state.output = {"loss": torch.tensor(losses[engine.state.epoch - 1])}
        engine.fire_event(IterationEvents.LOSS_COMPLETED)

    engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "epoch", first))
    engine.run([0], max_epochs=len(losses))


def test_a_record_keeps_what_is_not_repeated(tmp_path: Path) -> None:
    network, file = nn.Linear(2, 1), tmp_path / "record.json"
    first = weights_hash(network)
    trained(TrainingRecord(file, network, SimpleNamespace(), "abc"), [3.0, 2.0], dice=0.25)
    found = read_json(file)
    rows = [(each["epoch"], each["train_loss"], each["dice"]) for each in found["epochs"]]
    assert rows == [(0, 3.0, 0.25), (1, 2.0, None)]
    assert all(each["seconds"] >= each["validation_seconds"] >= 0 for each in found["epochs"])
    assert (found["first_weights"], found["settings"], found["finished"]) == (first, "abc", True)
    trained(TrainingRecord(file, network), [3.0, 5.0, 4.0], first=1)
    assert [each["train_loss"] for each in read_json(file)["epochs"]] == [3.0, 5.0, 4.0]
    trained(TrainingRecord(file, network), [1.0])
    assert [each["train_loss"] for each in read_json(file)["epochs"]] == [1.0]


def test_a_training_that_fails_has_not_finished(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        trained(TrainingRecord(tmp_path / "record.json", nn.Linear(2, 1)), [1.0, "broken"])  # type: ignore[list-item]
    found = read_json(tmp_path / "record.json")
    assert (len(found["epochs"]), found["finished"]) == (1, False)


def test_the_settings_of_two_arms_have_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(**config: Any) -> str:
        flow = SimpleNamespace(parser=SimpleNamespace(get=lambda: {**CONFIGS["train"], **config}))
        monkeypatch.setattr(settings, "_workflow", lambda: flow)
        return settings.settings_hash()

    start = hashed()
    assert hashed(seed=3, resume=True, dataset_dir="x", loss={"_target_": "y"}, learning_rate=0.5) == start
    assert len({start, hashed(patch_size=[8, 8, 8]), hashed(epochs=3), hashed(batch_size=9)}) == 4


@pytest.mark.parametrize("regions", [False, True])
def test_probabilities_lie_as_nnunet_has_them(tmp_path: Path, regions: bool) -> None:
    labels = Labels(("a", "b"), ((1, 2), (2,)), (1, 2)) if regions else Labels(("a",))
    logits = torch.randn(2, 3, 4, 5)
    given = MetaTensor(logits, meta={"filename_or_obj": "somewhere/case_7_0000.nii.gz"})
    out = SaveProbabilitiesd("pred", labels, tmp_path / "new")({"pred": given})
    assert torch.equal(out["pred"], given)
    with np.load(tmp_path / "new" / "case_7.npz") as file:
        found = file["probabilities"]
    wanted = logits.sigmoid() if regions else logits.softmax(0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, 4, 3, 2], wanted[:, 2, 3, 4].numpy())
    assert found.shape == (2, 5, 4, 3)


# -- the real programs ------------------------------------------------------------------------------------------------

DRIVER = f"""
from monai_segloss.cli import main
from monai_segloss.demo.generate import Size
from monai_segloss.experiment import comparison
comparison.DEMO_SIZE = Size(*{dataclasses.astuple(SIZE)!r})
main()
"""


def command(folder: Path) -> list[str]:
    write_json(folder / "losses.json", CONTENT)
    options = ["--config", str(folder / "losses.json"), "-o", str(folder / "work"), "--jobs", "2"]
    return [sys.executable, "-c", DRIVER, "compare", "run", *options]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a comparison that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    done = subprocess.run(command(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 runs to do" in done.stdout
    return folder / "work"


@pytest.mark.real
@pytest.mark.nightly
def test_a_comparison_of_two_arms(whole: Path) -> None:
    found = tables.read(whole / "tables")
    assert found.runs["state"].tolist() == ["done"] * 4
    assert set(found.runs["configuration"]) == {"segloss_segmentation"}
    assert found.runs["splits_hash"].nunique() == found.runs["plans_hash"].nunique() == 1
    assert (found.runs.groupby("seed")["weights_hash"].nunique() == 1).all()
    assert found.runs["weights_hash"].nunique() == 2
    assert set(found.cases["point"]) == {"half", "own"}
    assert len(found.cases) == 4 * 2 * 4 * 2  # runs, cases, classes and their mean, operating points
    assert len(found.bins)
    assert found.curves.groupby("run")["epoch"].apply(list).tolist() == [[*range(8)]] * 4
    losses = found.curves[found.curves["epoch"] == 0].groupby("run")["train_loss"].first()
    assert losses.nunique() == 4
    assert "All runs have the same plans" in (whole / "report.md").read_text(encoding="utf-8")
    assert (whole / "report.html").exists()
    assert not list((whole / "smoke").rglob("*.pt"))
    cases = 0
    for task in made(whole, lr=0.003).tasks():
        for case in task.source().cases:
            read = read_case(task.source(), case)
            assert read.probabilities is not None
            np.testing.assert_array_equal(read.probabilities.argmax(0), read.prediction)
            cases += 1
    assert cases == 8


@pytest.mark.real
@pytest.mark.nightly
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL on Windows")
def test_killed_in_the_middle_it_ends_with_the_same_tables(whole: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    driver = subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not any(work.glob("bundle_results/*/fold_0/models/last.pt")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    for program in work.glob("runs/*/.program"):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):  # it has just ended, or begun
            os.killpg(int(program.read_text()), signal.SIGKILL)
    driver.communicate()
    files = [json.loads(file.read_text()) for file in work.glob("bundle_results/*/fold_0/models/record.json")]
    assert not all(each["finished"] for each in files)
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("Resumed from" in log.read_text() for log in work.glob("runs/*-fold0/logs/train.log"))
    here, there = tables.read(work / "tables"), tables.read(whole / "tables")
    for name in ("cases", "bins", "curves"):
        pd.testing.assert_frame_equal(getattr(here, name), getattr(there, name))
    pd.testing.assert_frame_equal(here.runs.drop(columns="minutes"), there.runs.drop(columns="minutes"))
