"""Priors of nnU-Net's trainings: whose labels they see, and a trainer that makes what its loss wants."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from nnunet_data import LABELS, SPLITS, Workspace, assert_equal, dataset, run, weights
from test_nnunet_ddp import WORLD, cpu_trainer, fixed_batch, joined

from monai_segloss.core.prior import PriorError, read_prior
from monai_segloss.prior import objectives, supply

pytest_plugins = "nnunet_fixtures"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:nnunetv2"),
]
NAME = "nnUNetTrainerLatentShape_1epochs_3iterations"
FILE = "prior_autoencoder.safetensors"


def train(space: Workspace, file: str, *options: str, **more: Any) -> str:
    options = (*options, "--configuration", "tiny", "--steps", "30", "--output", str(space.root / file))
    return space.run("segloss", "prior", "train", "1", "--kind", "autoencoder", *options, **more)


def relabel(space: Workspace, case: str) -> None:
    """Change the preprocessed label of a case."""
    import blosc2

    file = space.plans().parent / "nnUNetPlans_3d_fullres" / f"{case}_seg.b2nd"
    content = blosc2.open(str(file), mode="r")[:]
    file.unlink()
    blosc2.asarray(np.ascontiguousarray(np.roll(content, 3, 1)), urlpath=str(file))


def test_the_prior_of_a_fold_sees_its_training_cases_alone(space: Workspace) -> None:
    said = train(space, "first.safetensors")
    assert "reconstruction Dice" in said
    header = read_prior(space.root / "first.safetensors").header
    assert sorted((*header.cases, *header.held_back)) == SPLITS[0]["train"]
    assert (header.kind, header.classes, header.patch, header.spacing) == (
        "autoencoder",
        3,
        (16, 16, 16),
        (1.5, 1.0, 1.0),
    )
    assert not (space.root / "results").exists()
    before = (space.root / "first.safetensors").read_bytes()
    (validated,) = SPLITS[0]["val"]
    relabel(space, validated)
    train(space, "second.safetensors")
    assert (space.root / "second.safetensors").read_bytes() == before
    relabel(space, header.cases[0])
    train(space, "third.safetensors")
    assert (space.root / "third.safetensors").read_bytes() != before


def test_what_the_command_refuses(space: Workspace) -> None:
    assert "'encoder' is none of autoencoder" in space.run(
        "segloss", "prior", "train", "1", "--kind", "encoder", fails=True
    )
    assert "has no configuration 'none'" in space.run(
        "segloss", "prior", "train", "1", "--kind", "autoencoder", "--configuration", "none", fails=True
    )
    assert "must be a number or 'all', got 'first'" in train(space, "a.safetensors", "--fold", "first", fails=True)
    assert "there is no file" in space.run("segloss", "prior", "show", "none.safetensors", fails=True)


def test_a_trainer_makes_the_prior_once(space: Workspace) -> None:
    trainer = run(space.trainer(NAME))
    file = Path(trainer.output_folder) / FILE
    made = file.read_bytes()
    header = read_prior(file).header
    assert sorted((*header.cases, *header.held_back)) == SPLITS[0]["train"]
    assert header.training["steps"] == 30
    (log,) = Path(trainer.output_folder).glob("training_log_*.txt")
    for text in ("the loss wants one; it is trained on the labels of 3", "20 more steps, about", "reconstruction Dice"):
        assert f"prior autoencoder: {text}" in log.read_text()
    checkpoint = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)
    kept = {name: x for name, x in checkpoint["segloss"]["loss_state"].items() if "frozen" in name}
    assert kept
    assert not any("frozen" in name for name in checkpoint["network_weights"])

    file.touch()
    stamp = file.stat().st_mtime_ns
    resumed = space.trainer(NAME, resume=True)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (made, stamp)
    assert_equal({n: x for n, x in resumed.loss.state_dict().items() if "frozen" in n}, kept)
    assert_equal(weights(resumed), weights(trainer))
    again = space.trainer(NAME)
    again.initialize()
    assert file.stat().st_mtime_ns == stamp


def test_a_prior_of_slices(space: Workspace) -> None:
    trainer = space.trainer(NAME, configuration="tiny_2d")
    trainer.initialize()
    header = read_prior(Path(trainer.output_folder) / FILE).header
    assert (header.patch, header.spacing) == ((16, 16), tuple(trainer.configuration_manager.spacing))
    assert len(header.patch) == len(header.spacing)


class Killed(BaseException):
    """What ends the training in a test."""


def test_a_trainer_killed_while_it_makes_a_prior_goes_on(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("segloss_prior_steps", "60")
    whole = space.trainer(NAME)
    whole.initialize()
    file = Path(whole.output_folder) / FILE
    expected = file.read_bytes()
    file.unlink()
    real = objectives.Reconstruction.quality
    monkeypatch.setattr(objectives.Reconstruction, "quality", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        space.trainer(NAME).initialize()
    assert not file.exists()
    monkeypatch.setattr(objectives.Reconstruction, "quality", real)
    trainer = space.trainer(NAME)
    trainer.initialize()
    assert file.read_bytes() == expected
    assert "goes on at step 50 of 60" in Path(trainer.log_file).read_text()


def with_prior(space: Workspace, file: Path) -> Any:
    """A trainer of a plan that names the file of a prior."""
    content = json.loads(space.plans().read_text())
    loss = {"loss": "latent_shape", "arguments": {"prior": str(file)}}
    content["configurations"]["tiny_prior"] = {"inherits_from": "tiny", "segloss": loss}
    space.plans().write_text(json.dumps(content))
    return space.trainer("nnUNetTrainerSegLoss_1epochs_2iterations", configuration="tiny_prior")


def test_a_prior_that_saw_a_validation_case_is_refused(space: Workspace) -> None:
    train(space, "fold_1.safetensors", "--fold", "1")
    trainer = with_prior(space, space.root / "fold_1.safetensors")
    with pytest.raises(PriorError, match=r"it was trained with case_03, which fold 0 validates; train one with"):
        trainer.initialize()


def test_a_file_of_the_plan_is_taken(space: Workspace) -> None:
    train(space, "mine.safetensors")
    trainer = run(with_prior(space, space.root / "mine.safetensors"))
    assert not list(Path(trainer.output_folder).glob("prior*"))
    expected = read_prior(space.root / "mine.safetensors").weights["encoder.0.weight"]
    assert torch.equal(trainer.loss.loss.frozen.module[0].weight, expected)


def test_a_trainer_asks_for_safetensors_and_for_numbers(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("segloss_prior_steps", "few")
    with pytest.raises(PriorError, match="segloss_prior_steps must be a number of steps, got 'few'"):
        space.trainer(NAME).initialize()
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(PriorError, match="pip install safetensors"):
        space.trainer(NAME).initialize()


@pytest.mark.parametrize("kind", ["regions", "ignore", "regions_ignore"])
def test_the_channels_of_other_targets(kind: str, space: Workspace) -> None:
    from nnunet_trainers.prior import labels

    found = labels(space.trainer(NAME, kind))
    regions = kind.startswith("regions")
    assert found.regions == regions
    assert found.channels == (((1, 2), (2,)) if regions else ((0,), (1,), (2,)))
    assert found.ignored == ((3,) if "ignore" in kind else ())
    assert LABELS[kind]["background"] == 0
    assert set(np.unique(found.load("case_00"))) == {0, 1, 2, *found.ignored}


def with_others(rank: int, root: str, configuration: str) -> None:
    """One process of two: which of them makes the prior, and a step on its half of a fixed batch."""
    with joined(rank, root, configuration) as space:
        real, making = supply.train_prior, []

        def slowly(*given: Any) -> Any:
            time.sleep(2)  # the other process is there long before
            making.append(rank)
            return real(*given)

        supply.train_prior = slowly
        torch.manual_seed(rank)
        trainer = cpu_trainer(space, configuration, NAME)
        trainer.initialize()
        batch, part = fixed_batch(trainer), slice(rank, rank + 1)
        trainer.network.train()
        trainer.train_step({"data": batch["data"][part], "target": [target[part] for target in batch["target"]]})
        loss, network = trainer.loss.loss.state_dict(), trainer.network.module.state_dict()
        kept = {name: x for name, x in loss.items() if "frozen" in name}
        torch.save({"making": making, "frozen": kept, "network": network}, f"{root}/prior_{rank}.pt")


def test_one_of_two_processes_makes_it_and_the_other_waits(space: Workspace) -> None:
    mp.spawn(with_others, (str(space.root), "tiny"), nprocs=WORLD)
    first, second = (torch.load(space.root / f"prior_{rank}.pt") for rank in range(WORLD))
    assert (first["making"], second["making"]) == ([0], [])
    assert first["frozen"]
    for which in ("frozen", "network"):
        assert_equal(first[which], second[which])
    (file,) = (space.model(NAME) / "fold_0").glob(FILE)
    assert torch.equal(first["frozen"]["frozen.module.0.weight"], read_prior(file).weights["encoder.0.weight"])


@pytest.mark.real
def test_the_commands_train_go_on_export_and_predict(space: Workspace) -> None:
    """A run that goes on under the name of a longer one; stock nnU-Net predicts with the exported model."""
    name = "nnUNetTrainerLatentShape_2epochs_3iterations"
    space.run("nnUNetv2_train", "1", "tiny", "0", "-tr", NAME, "-device", "cpu")
    shutil.copytree(space.model(NAME), space.model(name))
    said = space.run("nnUNetv2_train", "1", "tiny", "0", "-tr", name, "-device", "cpu", "--c")
    assert f"{FILE}, from before" in said
    space.run("segloss", "nnunet", "export", str(space.model(name)), "--output", str(space.root / "exported"))
    images = str(space.root / "raw" / dataset("labels") / "imagesTr")
    command = ("nnUNetv2_predict_from_modelfolder", "-m", str(space.root / "exported"), "-f", "0", "-i", images)
    more = ("-o", str(space.root / "predicted"), "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta")
    space.run(*command, *more, nnUNet_extTrainer="")
    assert len(list((space.root / "predicted").glob("*.nii.gz"))) == 4
