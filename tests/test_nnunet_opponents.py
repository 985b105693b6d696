"""Losses with an opponent as trainers of nnU-Net: what is logged, kept, resumed, shared and refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from nnunet_data import Workspace, assert_equal, run, weights
from test_nnunet_ddp import WORLD, cpu_trainer, fixed_batch, joined

from nnunet_trainers.diverged import DivergedError

pytest_plugins = "nnunet_fixtures"
pytestmark = [
    pytest.mark.slow,
    # nnU-Net means over classes of which it has seen no voxel.
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
    # A file of nnU-Net's data loader stays open until it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CRITIC = "nnUNetTrainerMultiScaleL1_seed1_3epochs_2iterations"
NAME = "nnUNetTrainerAdversarial_seed1_3epochs_3iterations"


def opponent(trainer: Any) -> Any:
    (found,) = trainer.loss.loss.opponents.values()
    return found


class Killed(BaseException):
    """What ends the training in a test."""


@pytest.mark.parametrize("name", [CRITIC, "nnUNetTrainerAdversarial_seed1_3epochs_2iterations"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(space: Workspace, name: str) -> None:
    whole = run(space.trainer(name))
    for file in Path(space.model(name)).glob("fold_0/*"):
        file.unlink()
    broken = space.trainer(name)
    step, seen = broken.train_step, []

    def dying(batch: dict[str, Any]) -> Any:
        seen.append(broken.current_epoch)
        if seen.count(1) == 2:
            raise Killed
        return step(batch)

    broken.train_step = dying
    with pytest.raises(Killed):
        broken.run_training()
    torch.manual_seed(99)
    resumed = space.trainer(name, resume=True)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 1
    assert opponent(resumed).steps == 2
    run(resumed)
    assert opponent(resumed).steps == 6
    assert_equal(weights(whole), weights(resumed))
    assert_equal(opponent(whole).network.state_dict(), opponent(resumed).network.state_dict())
    first, second = (each.optimizer.state_dict()["state"] for each in (opponent(whole), opponent(resumed)))
    for number, state in first.items():
        assert_equal(state, second[number])


def test_it_is_beside_the_network_and_in_the_log(space: Workspace) -> None:
    trainer = run(space.trainer("nnUNetTrainerAdversarial_1epochs_5iterations"))
    theirs = {id(p) for p in opponent(trainer).network.parameters()}
    assert not theirs & {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert opponent(trainer).steps == 5, "one step per training step, none in validation"
    (log,) = Path(trainer.output_folder).glob("training_log_*.txt")
    assert "train_loss_opponents {'discriminator': 0." in log.read_text()
    assert "segloss tap image: 1 channels" in log.read_text()


@pytest.mark.parametrize("name", ["nnUNetTrainerAdversarial", "nnUNetTrainerMultiScaleL1"])
@pytest.mark.parametrize(
    ("kind", "configuration"), [("regions_ignore", "tiny"), ("labels", "tiny_2d"), ("labels", "tiny_one_scale")]
)
def test_every_kind_of_data(space: Workspace, name: str, kind: str, configuration: str) -> None:
    trainer = run(space.trainer(f"{name}_1epochs_2iterations", kind, configuration))
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))
    assert opponent(trainer).steps == 2


def test_warm_up_by_name(space: Workspace) -> None:
    trainer = run(space.trainer("nnUNetTrainerAdversarial_warmup2_3epochs_2iterations"))
    assert opponent(trainer).steps == 2
    (log,) = Path(trainer.output_folder).glob("training_log_*.txt")
    assert log.read_text().count("train_loss_opponents") == 1


def test_a_discriminator_that_diverges_ends_the_run_and_the_last_checkpoint_is_whole(space: Workspace) -> None:
    name = "nnUNetTrainerAdversarial_seed1_3epochs_2iterations"
    trainer = space.trainer(name)
    step, steps = trainer.train_step, []

    def spoiling(batch: dict[str, Any]) -> Any:
        steps.append(1)
        if len(steps) == 4:
            with torch.no_grad():
                next(opponent(trainer).network.parameters()).fill_(torch.nan)
        return step(batch)

    trainer.train_step = spoiling
    said = (
        r"Epoch 1 of nnUNetTrainerAdversarial\w+: the LabelDiscriminator that is trained against the network has diverged "
        r"after 3 steps: its loss is nan .* checkpoint_latest\.pth is from before; --c goes on from there\."
    )
    with pytest.raises(DivergedError, match=said):
        trainer.run_training()
    (log,) = Path(trainer.output_folder).glob("training_log_*.txt")
    assert "has diverged after 3 steps" in log.read_text()
    resumed = space.trainer(name, resume=True)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    assert opponent(run(resumed)).steps == 6


def test_the_second_stage_of_a_cascade_shows_it_the_image_alone(space: Workspace) -> None:
    name = "nnUNetTrainerAdversarial_1epochs_2iterations"
    run(space.trainer(name, configuration="tiny_low", fold="all")).perform_actual_validation()
    second = run(space.trainer(name, configuration="tiny_cascade"))
    assert second.num_input_channels == 3
    classes, image = 3, 1
    assert next(opponent(second).network.parameters()).shape[1] == classes + image
    assert opponent(second).steps == 2


def share(rank: int, root: str, configuration: str) -> None:
    """One process: two steps on its half of a fixed batch, from a random state of its own."""
    with joined(rank, root, configuration) as space:
        torch.manual_seed(rank)
        trainer = cpu_trainer(space, configuration, NAME.replace("_seed1", ""))
        trainer.initialize()
        batch, part = fixed_batch(trainer), slice(rank, rank + 1)
        trainer.network.train()
        start = {name: x.clone() for name, x in opponent(trainer).network.state_dict().items()}
        for _ in range(2):
            trainer.train_step({"data": batch["data"][part], "target": [target[part] for target in batch["target"]]})
        network = trainer.network.module.state_dict()
        torch.save(
            {"start": start, "end": opponent(trainer).network.state_dict(), "network": network}, f"{root}/gan_{rank}.pt"
        )


def test_two_processes_share_it(space: Workspace) -> None:
    mp.spawn(share, (str(space.root), "tiny"), nprocs=WORLD)
    first, second = (torch.load(space.root / f"gan_{rank}.pt") for rank in range(WORLD))
    for which in ("start", "end", "network"):
        assert_equal(first[which], second[which])
    assert any(not torch.equal(first["start"][name], first["end"][name]) for name in first["start"])


@pytest.mark.real
def test_trained_killed_resumed_exported_and_predicted_by_commands(space: Workspace, tmp_path: Path) -> None:
    """As a user types them; the killed run ends with the weights of one that was not, to the last bit."""
    command = ["nnUNetv2_train", "1", "tiny", "0", "-tr", NAME, "-device", "cpu"]
    fold = space.model(NAME) / "fold_0"
    space.run(*command)
    whole = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    shutil.rmtree(space.model(NAME))
    kill_after_the_first_checkpoint(space, command, fold)
    space.run(*command, "--c")
    resumed = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert len(list(fold.glob("training_log_*.txt"))) == 2
    assert_equal(whole["network_weights"], resumed["network_weights"])
    mine, theirs = (
        each["segloss"]["loss_state"]["loss._extra_state"]["opponents"]["discriminator"] for each in (whole, resumed)
    )
    assert_equal(mine["network"], theirs["network"])
    assert mine["steps"] == theirs["steps"] == 9
    assert not [name for name in resumed["network_weights"] if "discriminator" in name]

    space.run("segloss", "nnunet", "export", str(space.model(NAME)))
    exported = space.model(NAME) / "exported" / "nnUNetTrainer__nnUNetPlans__tiny"
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(space.root / "raw" / "Dataset001_labels" / "imagesTr" / "case_03_0000.nii.gz", images)
    options = ["-i", str(images), "-o", str(tmp_path / "out"), "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1"]
    space.run("nnUNetv2_predict_from_modelfolder", "-m", str(exported), *options, nnUNet_extTrainer="")
    (found,), (expected,) = (list(folder.glob("case_03.nii.gz")) for folder in (tmp_path / "out", fold / "validation"))
    assert np.array_equal(*(np.asarray(nibabel.load(file).dataobj) for file in (found, expected)))


def kill_after_the_first_checkpoint(space: Workspace, command: list[str], fold: Path) -> None:
    program = str(Path(sys.executable).with_name(command[0]))
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [program, *command[1:]], env=space.env, cwd=space.root, stdout=quiet, stderr=quiet, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (fold / "checkpoint_latest.pth").exists():
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (fold / "checkpoint_final.pth").exists()
