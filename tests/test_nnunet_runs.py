"""Runs of trainers on a tiny data set: seeds, resuming, records, refusing, states of a loss, workers."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_data import QUIET, SHORT, SPLITS, Workspace, assert_equal, run, tiny, weights
from torch import Tensor, nn

from monai_segloss.core.companions import Companions
from nnunet_trainers import building, recording
from nnunet_trainers.diverged import DivergedError
from nnunet_trainers.recording import OtherConfigurationError

pytest_plugins = "nnunet_fixtures"
pytestmark = [pytest.mark.slow, *QUIET]


def test_runs_with_a_seed_are_equal_to_the_last_bit(space: Workspace) -> None:
    first = weights(run(space.trainer("nnUNetTrainerDiceCE_seed1_2epochs_3iterations")))
    torch.manual_seed(99)
    np.random.seed(99)
    assert_equal(first, weights(run(space.trainer("nnUNetTrainerDiceCE_seed1_2epochs_3iterations"))))
    other = weights(run(space.trainer("nnUNetTrainerDiceCE_seed2_2epochs_3iterations")))
    assert not all(torch.equal(first[name], other[name]) for name in first)


class Killed(BaseException):
    """What ends the training in a test."""


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "nnUNetTrainerDiceCE_seed1_4epochs_2iterations"
    whole = weights(run(space.trainer(name)))
    for file in Path(space.model(name)).glob("fold_0/*"):
        file.unlink()

    broken = space.trainer(name)
    step, seen = broken.train_step, []

    def dying(batch: dict[str, Any]) -> dict[str, Any]:
        seen.append(broken.current_epoch)
        if seen.count(2) == 2:
            raise Killed
        return step(batch)  # type: ignore[no-any-return]

    monkeypatch.setattr(broken, "train_step", dying)
    with pytest.raises(Killed):
        broken.run_training()
    torch.manual_seed(99)

    resumed = space.trainer(name, resume=True)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 2
    assert_equal(whole, weights(run(resumed)))


def test_a_checkpoint_appears_whole_or_not_at_all(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run(space.trainer(f"nnUNetTrainerDice_{SHORT}"))
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    before, files = final.read_bytes(), sorted(final.parent.iterdir())

    def half(content: object, file: str) -> None:
        assert Path(file) != final
        Path(file).write_bytes(before[:100])
        raise Killed

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Killed):
        trainer.save_checkpoint(str(final))
    assert final.read_bytes() == before
    assert sorted(final.parent.iterdir()) == files


def test_the_configuration_is_kept_as_plain_json(space: Workspace) -> None:
    trainer = run(space.trainer("nnUNetTrainerFocalTversky_gamma2_seed1_1epochs_2iterations"))
    folder = Path(trainer.output_folder)
    record = json.loads((folder / "debug.json").read_text())["segloss"]
    assert record["loss"] == "focal_tversky"
    assert record["arguments"]["gamma"] == 2
    assert (record["lr"], record["seed"], record["epochs"], record["iterations"]) == (0.01, 1, 1, 2)
    assert set(record["versions"]) == {"monai-segloss", "nnunetv2", "torch"}
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)["segloss"]
    assert checkpoint["configuration"] == record
    (log,) = folder.glob("training_log_*.txt")
    assert json.dumps(record) in log.read_text()


def test_the_terms_of_a_loss_are_logged(space: Workspace) -> None:
    trainer = space.trainer("nnUNetTrainerDiceCE_1epochs_3iterations")
    seen: dict[str, float] = {}
    trainer.logger.loggers.append(Sink(seen))
    run(trainer)
    (log,) = Path(trainer.output_folder).glob("training_log_*.txt")
    assert "train_loss_terms {'dice': " in log.read_text()
    assert set(seen) == {"train_loss_terms/dice", "train_loss_terms/cross_entropy"}
    assert 0 < seen["train_loss_terms/dice"] < 1


def test_other_loggers_get_the_configuration(space: Workspace) -> None:
    name = "nnUNetTrainerTversky_alpha0p4_2epochs_2iterations"
    sinks = []
    for resume in (False, True):
        trainer = space.trainer(name, resume=resume)
        sinks.append(Sink({}))
        trainer.logger.loggers.append(sinks[-1])
        if resume:
            trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        record = train_for_an_epoch(trainer).configuration_record()
    assert sinks[0].config["segloss"] == record
    assert sinks[0].config["segloss"]["arguments"]["alpha"] == 0.4
    assert "segloss" not in sinks[1].config, "a resumed run of Weights & Biases takes no other value for a key"
    assert sinks[1].config["segloss_from_epoch_1"] == record


def train_for_an_epoch(trainer: Any) -> Any:
    """The trainer after an epoch at which it was killed."""
    end = trainer.on_epoch_end

    def dying() -> None:
        end()
        raise Killed

    trainer.on_epoch_end = dying
    with pytest.raises(Killed):
        trainer.run_training()
    return trainer


class Sink:
    """A logger of nnU-Net's that keeps the terms of the loss."""

    def __init__(self, seen: dict[str, float]) -> None:
        self.seen = seen
        self.config: dict[str, Any] = {}

    def log(self, key: str, value: float, step: int) -> None:
        if key.startswith("train_loss_terms"):
            self.seen[key] = value

    def update_config(self, config: dict[str, Any]) -> None:
        self.config.update(config)


# -- refusing -------------------------------------------------------------------------------------------------------


def test_another_configuration_does_not_resume_or_join_a_run(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"nnUNetTrainerTversky_{SHORT}"
    done = run(space.trainer(name))
    other = type(done)
    monkeypatch.setattr(other, "settings", other.settings.__class__("Tversky", {"alpha": 0.4}, epochs=1, iterations=2))
    resumed = space.trainer(name, resume=True)
    with pytest.raises(OtherConfigurationError, match=r"arguments\.alpha is 0\.3 there and 0\.4 here"):
        resumed.load_checkpoint(str(Path(done.output_folder) / "checkpoint_final.pth"))
    another_fold = space.trainer(name)
    another_fold.output_folder = str(Path(done.output_folder).with_name("fold_1"))
    with pytest.raises(OtherConfigurationError, match=r"fold_0 has another configuration: arguments\.alpha"):
        another_fold.initialize()
    space.trainer(name).initialize()


def test_a_run_of_a_version_that_had_fewer_arguments_goes_on(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"nnUNetTrainerTversky_{SHORT}"
    done = run(space.trainer(name))
    checkpoint = Path(done.output_folder) / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    del content[recording.KEY]["configuration"]["arguments"]["smooth_dr"]
    torch.save(content, checkpoint)
    space.trainer(name, resume=True).load_checkpoint(str(checkpoint))

    other = type(done)
    monkeypatch.setattr(
        other, "settings", other.settings.__class__("Tversky", {"smooth_dr": 1.0}, epochs=1, iterations=2)
    )
    with pytest.raises(OtherConfigurationError, match=r"arguments\.smooth_dr is 1e-05 there and 1\.0 here"):
        space.trainer(name, resume=True).load_checkpoint(str(checkpoint))


def test_earlier_records_of_a_sum_count_their_terms_by_name_or_loss() -> None:
    terms = {"dice": {"weight": 1.0, "batch": True}, "second": {"loss": "tversky", "weight": 2.0}}
    filled = building.with_defaults({"terms": terms, "seed": 3})
    assert filled["seed"] == 3
    assert (filled["terms"]["dice"]["batch"], filled["terms"]["dice"]["smooth_nr"]) == (True, 1e-5)
    assert (filled["terms"]["second"]["weight"], filled["terms"]["second"]["alpha"]) == (2.0, 0.5)


def test_a_checkpoint_of_others_is_refused(space: Workspace, tmp_path: Path) -> None:
    stock = space.trainer("nnUNetTrainer")
    stock.initialize()
    stock.save_checkpoint(str(tmp_path / "stock.pth"))
    with pytest.raises(OtherConfigurationError, match="was not written by a trainer of segloss"):
        space.trainer("nnUNetTrainerDice").load_checkpoint(str(tmp_path / "stock.pth"))


def test_the_second_stage_of_a_cascade_needs_the_first(space: Workspace) -> None:
    trainer = space.trainer("nnUNetTrainerDice", configuration="tiny_cascade")
    command = r"nnUNetv2_train Dataset001_labels tiny_low FOLD -tr nnUNetTrainerDice of each FOLD \(0, 1\)"
    with pytest.raises(FileNotFoundError, match=f"nnUNetTrainerDice has not been trained: run {command} first"):
        trainer.initialize()


ONE, TWO = (SPLITS[fold]["val"] for fold in (0, 1))
NONE: list[str] = ["case_00", "case_02"]
FIRST = "nnUNetv2_train Dataset001_labels tiny_low {} -tr nnUNetTrainerDice{}"


@pytest.mark.parametrize(
    ("trained", "predicted", "lack", "steps"),
    [
        (
            ["0", "1"],
            [],
            "has not predicted a single case",
            ["FIRST FOLD of each FOLD (0, 1) --val, which predicts again"],
        ),
        (["all"], [], "has not predicted a single case", ["FIRST all --val, which predicts again"]),
        (
            ["0"],
            [],
            "has not predicted a single case",
            ["FIRST 0 --val, which predicts", "FIRST 1 first (or of fold all"],
        ),
        (
            ["0", "1"],
            [*ONE, *NONE],
            "has not predicted 1 of 4 cases (case_01 first)",
            ["FIRST 1 --val, which predicts"],
        ),
        (["0"], [*ONE, *NONE], "has not predicted 1 of 4 cases", ["FIRST 1 first (or of fold all alone"]),
        (["0", "1"], [*ONE, *TWO], "has not predicted 2 of 4", ["FIRST all first (no fold validates case_00)"]),
        (["0", "all"], ONE, "has not predicted 3 of 4 cases", ["FIRST all --val, which predicts again"]),
    ],
)
def test_what_makes_the_predictions_of_the_first_stage_is_said(
    space: Workspace, trained: list[str], predicted: list[str], lack: str, steps: list[str]
) -> None:
    trainer = space.trainer("nnUNetTrainerDice", configuration="tiny_cascade")
    folder = Path(trainer.folder_with_segs_from_previous_stage)
    folder.mkdir(parents=True)
    for case in predicted:
        (folder / f"{case}.b2nd").touch()
    for fold in trained:
        (folder.parent.parent / f"fold_{fold}").mkdir()
        (folder.parent.parent / f"fold_{fold}" / "checkpoint_final.pth").touch()
    with pytest.raises(FileNotFoundError) as caught:
        trainer.run_training()
    assert lack in str(caught.value)
    said = str(caught.value).split(": ", 1)[1].split("; ")
    assert len(said) == len(steps)
    for found, wanted in zip(said, steps, strict=True):
        first, rest = wanted.removeprefix("FIRST ").split(" ", 1)
        assert found.startswith(f"run {FIRST.format(first, ' ' + rest)}")


# -- more epochs, and another plan ----------------------------------------------------------------------------------


def extended(space: Workspace, before: str, name: str, fold: int = 0) -> Any:
    """The trainer of a longer name on a copy of the folder of a shorter one, as ``--c`` makes it."""
    if not space.model(name).exists():
        shutil.copytree(space.model(before), space.model(name))
    return space.trainer(name, fold=fold, resume=True)


def test_a_finished_run_goes_on_for_more_epochs(space: Workspace) -> None:
    short, long = (f"nnUNetTrainerDiceCE_seed1_{epochs}epochs_2iterations" for epochs in (1, 3))
    run(space.trainer(short, fold=1))
    done = run(space.trainer(short))
    trainer = extended(space, short, long)
    trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert_equal(weights(done), weights(trainer))
    run(trainer)
    assert len(trainer.logger.get_value("train_losses", None)) == 3
    assert trainer.logger.get_value("lrs", 1) == pytest.approx(0.01 * (1 - 1 / 3) ** 0.9)
    record = json.loads((Path(trainer.output_folder) / "debug.json").read_text())["segloss"]
    assert record["epochs"] == 3
    assert record["continued"] == [{"trainer": short, "epochs": 1, "at_epoch": 1}]
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    assert torch.load(final, weights_only=False)["segloss"]["configuration"] == record

    again = space.trainer(long, resume=True)
    again.load_checkpoint(str(final))
    assert again.configuration_record() == record
    other_fold = extended(space, short, long, fold=1)
    other_fold.load_checkpoint(str(Path(other_fold.output_folder) / "checkpoint_final.pth"))
    assert other_fold.current_epoch == 1


@pytest.mark.parametrize(
    ("here", "resume", "differs"),
    [
        ("DiceCE_1epochs_2iterations", True, "epochs is 2 there and 1 here"),
        ("DiceCE_3epochs_2iterations", False, "go on with --c; or begin with its weights (-pretrained_weights"),
        ("DiceCE_lr1em3_3epochs_2iterations", True, "lr is 0.01 there and 0.001 here"),
        ("Dice_3epochs_2iterations", True, 'loss is "dice_ce" there and "dice" here'),
    ],
)
def test_a_copied_run_goes_on_for_more_epochs_only(space: Workspace, here: str, resume: bool, differs: str) -> None:
    before, name = "nnUNetTrainerDiceCE_2epochs_2iterations", f"nnUNetTrainer{here}"
    run(space.trainer(before))
    shutil.copytree(space.model(before), space.model(name))
    trainer = space.trainer(name, resume=resume)
    with pytest.raises(OtherConfigurationError, match=re.escape(differs)):
        trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))


def change_plan(space: Workspace, **more: object) -> None:
    content = json.loads(space.plans().read_text())
    content["configurations"]["tiny"].update(more)
    space.plans().write_text(json.dumps(content))


PLANS_OF_ANOTHER_DAY = [{"batch_dice": True}, tiny("3d_fullres", (16, 16, 16), strides=(1, 2)), {"spacing": [2, 1, 1]}]


@pytest.mark.parametrize("change", PLANS_OF_ANOTHER_DAY, ids=["batch_dice", "architecture", "spacing"])
def test_after_another_plan_the_folders_to_remove_are_named(space: Workspace, change: dict[str, object]) -> None:
    name = f"nnUNetTrainerDice_{SHORT}"
    run(space.trainer(name))
    run(space.trainer(name, fold=1))
    change_plan(space, **change)
    with pytest.raises(OtherConfigurationError, match=r"planned again since .*: remove fold_0, fold_1 there to train"):
        space.trainer(name, fold=2).initialize()
    for fold in (0, 1):
        shutil.move(space.model(name) / f"fold_{fold}", space.root / f"fold_{fold}")
    resumed = space.trainer(name, resume=True)
    with pytest.raises(OtherConfigurationError, match=r"planned again since.*: remove \S*fold_0 to train it anew"):
        resumed.load_checkpoint(str(space.root / "fold_0" / "checkpoint_final.pth"))
    run(space.trainer(name))


# -- a loss that is lost --------------------------------------------------------------------------------------------


class Lost(Companions, nn.Module):
    """A loss that is NaN in some steps; its gradient is 0 unless it is not to be."""

    def __init__(self, steps: range, spoils: bool) -> None:
        super().__init__()
        self.steps, self.spoils, self.calls = steps, spoils, 0

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None, spacing: object, **_: object) -> Tensor:
        value = (output.float() ** 2).mean()
        if output.requires_grad:
            self.calls += 1
            if self.calls in self.steps:
                value = value * float("nan") if self.spoils else value.detach() * float("nan") + 0 * value
        self.last = {"part": value.detach()}
        return value


LAST = "nnUNetTrainerDice_4epochs_2iterations"


def lost(space: Workspace, monkeypatch: pytest.MonkeyPatch, steps: range, spoils: bool) -> Any:
    loss = Lost(steps, spoils)
    trainer = space.trainer(LAST)
    trainer.enable_deep_supervision = False
    monkeypatch.setattr(building, "create_loss", lambda config, data: loss)
    monkeypatch.setattr(building, "refuse", lambda *arguments: None)
    return trainer


@pytest.mark.parametrize(("spoils", "steps", "sentence"), [
    (False, range(5, 7), "in 2 of 2 iterations. checkpoint_latest.pth is from before"),
    (True, range(5, 6), "in 2 of 2 iterations, and so are weights of the network. checkpoint_latest.pth"),
    (True, range(6, 7), "in 1 of 2 iterations, and so are weights of the network. checkpoint_latest.pth"),
    (True, range(1, 2), "and so are weights of the network. This run has written no checkpoint"),
])  # fmt: skip
def test_a_lost_training_ends_and_keeps_what_was_good(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, spoils: bool, steps: range, sentence: str
) -> None:
    trainer = lost(space, monkeypatch, steps, spoils)
    epoch = (steps.start - 1) // 2
    with pytest.raises(DivergedError, match=re.escape(sentence)) as caught:
        trainer.run_training()
    assert str(caught.value).startswith(f"Epoch {epoch} of {LAST} (part): the loss is NaN or infinite in")
    (log,) = Path(trainer.output_folder).glob("training_log_*.txt")
    assert str(caught.value) in log.read_text()
    kept = sorted(Path(trainer.output_folder).glob("*.pth"))
    assert [file.name for file in kept] == (["checkpoint_best.pth", "checkpoint_latest.pth"] if epoch else [])
    for file in kept:
        found = torch.load(file, weights_only=False)
        assert all(torch.isfinite(each).all() for each in found["network_weights"].values())
        assert found["current_epoch"] <= epoch


def test_single_steps_without_a_finite_loss_end_nothing(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed precision leaves them out; nor does a mask that the network holds."""
    trainer = lost(space, monkeypatch, range(4, 6), spoils=True)
    trainer.initialize()
    trainer.network.register_buffer("mask", torch.full((1,), float("-inf")))
    trainer.grad_scaler = torch.amp.GradScaler("cpu")  # nnU-Net has that of CUDA
    run(trainer)
    assert np.isnan(trainer.logger.get_value("train_losses", 1))
    assert np.isnan(trainer.logger.get_value("train_losses", 2))
    assert np.isfinite(trainer.logger.get_value("train_losses", 3))


# -- losses with a state of their own ---------------------------------------------------------------------------------


class Learnable(Companions, nn.Module):
    """A loss with a weight to learn and something to remember."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, output: Tensor, target: Tensor, mask: Tensor | None, spacing: object, **_: object) -> Tensor:
        self.calls += 1
        return (output.float().mean() - 1) ** 2 * self.scale.exp() + self.scale**2


def test_the_state_of_a_loss_is_learned_saved_and_restored(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunet_trainers import building

    monkeypatch.setattr(building, "create_loss", lambda config, data: Learnable())
    name = f"nnUNetTrainerDice_{SHORT}"
    trainer = run(space.trainer(name))
    assert trainer.loss.loss.scale.item() != 1
    assert not any("scale" in key for key in trainer.network.state_dict())
    fresh = space.trainer(name, resume=True)
    fresh.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert torch.equal(fresh.loss.loss.scale, trainer.loss.loss.scale)
    assert fresh.loss.loss.calls == trainer.loss.loss.calls > 0
    assert len(fresh.optimizer.param_groups) == 2
    assert fresh.optimizer.state[fresh.loss.loss.scale]["momentum_buffer"] != 0


# -- workers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def spawn() -> Iterator[None]:
    """Start worker processes as macOS and Windows do; they unpickle what they need."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.real
def test_spawned_workers(space: Workspace, monkeypatch: pytest.MonkeyPatch, spawn: None) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer = run(space.trainer(f"nnUNetTrainerDiceCE_{SHORT}"))
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))


def test_workers_have_seeds_of_their_own(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer = run(space.trainer(f"nnUNetTrainerDiceCE_seed3_{SHORT}"))
    seeds = [trainer.dataloader_train.seeds, trainer.dataloader_val.seeds]
    assert all(isinstance(each, int) for (each,) in seeds)
    assert seeds[0] != seeds[1]
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))
