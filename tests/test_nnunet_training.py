"""Trainers on a tiny data set, in this process: parity with nnU-Net, every kind of data and of facility."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_data import QUIET, SHORT, Workspace, assert_equal, run, trainer_class, weights
from torch import Tensor

from monai_segloss.core.hashing import weights_hash
from nnunet_trainers import VARIABLE, building, precision, recording
from nnunet_trainers.export import ExportError, export

pytest_plugins = "nnunet_fixtures"
pytestmark = [pytest.mark.slow, *QUIET]


def batch_of(trainer: Any) -> dict[str, Any]:
    _, validation = trainer.get_dataloaders()
    batch: dict[str, Any] = next(validation)
    return batch


def outputs_like(trainer: Any, batch: dict[str, Any]) -> list[Tensor]:
    channels = trainer.label_manager.num_segmentation_heads
    shapes = [(target.shape[0], channels, *target.shape[2:]) for target in batch["target"]]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def compare_with_stock(space: Workspace, kind: str, configuration: str) -> tuple[Tensor, Tensor, Any, list[Tensor]]:
    """The value of our dice_ce and of nnU-Net's loss on the same outputs and targets, and the difference of gradients."""
    ours, stock = (space.trainer(name, kind, configuration) for name in ("nnUNetTrainerDiceCE", "nnUNetTrainer"))
    ours.initialize()
    stock.initialize()
    batch = batch_of(ours)
    outputs = outputs_like(ours, batch)
    mine, theirs = ours.loss(outputs, batch["target"]), stock.loss(outputs, batch["target"])
    used = outputs[: len(ours.loss.weights) - 1]
    gradients = [torch.autograd.grad(loss, used) for loss in (mine, theirs)]
    return mine, theirs, ours.loss, [a - b for a, b in zip(*gradients, strict=True)]


@pytest.mark.parametrize(
    ("kind", "configuration"),
    [("labels", "tiny"), ("labels", "tiny_batch"), ("labels", "tiny_2d"), ("ignore", "tiny"), ("regions", "tiny")],
)
def test_dice_ce_is_the_loss_of_nnunet_plus_one(space: Workspace, kind: str, configuration: str) -> None:
    mine, theirs, _, differences = compare_with_stock(space, kind, configuration)
    assert mine.item() == pytest.approx(theirs.item() + 1, abs=1e-6)
    assert all(difference.abs().max() < 1e-8 for difference in differences)


def test_with_regions_and_ignored_voxels_nnunet_sums_over_the_regions(space: Workspace) -> None:
    mine, theirs, loss, _ = compare_with_stock(space, "regions_ignore", "tiny")
    assert mine.item() != pytest.approx(theirs.item() + 1, abs=1e-3)
    stock = space.trainer("nnUNetTrainer", "regions_ignore")
    stock.initialize()
    target = batch_of(stock)["target"]
    outputs = outputs_like(stock, {"target": target})
    regions = outputs[0].shape[1]
    loss.weights = (1.0, 0.0, 0.0)
    value = loss(outputs, target) - 1 + (regions - 1) * loss.last["cross_entropy"]
    assert stock.loss.loss(outputs[0], target[0]).item() == pytest.approx(value.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "configuration"),
    [
        ("FocalTversky", "labels", "tiny"),
        ("DiceFocal", "labels", "tiny_2d"),
        ("DiceTopK", "ignore", "tiny"),
        ("CrossEntropy", "regions", "tiny"),
        ("Tversky", "regions_ignore", "tiny"),
        ("Dice", "labels", "tiny_batch"),
        ("TopKCrossEntropy", "labels", "tiny_one_scale"),
    ],
)
def test_an_epoch_on_every_kind_of_data(space: Workspace, name: str, kind: str, configuration: str) -> None:
    trainer = run(space.trainer(f"nnUNetTrainer{name}_{SHORT}", kind, configuration))
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))
    assert np.isfinite(trainer.logger.get_value("val_losses", 0))
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()
    dimensions = len(trainer.configuration_manager.patch_size)
    assert [len(spacing) for spacing in trainer.loss.spacings] == [dimensions] * len(trainer.loss.weights)


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_arguments_for_another_number_of_classes_are_refused_before_any_work(space: Workspace, kind: str) -> None:
    trainer = space.trainer("nnUNetTrainerSegLoss", kind)
    trainer.configuration_manager.configuration[recording.KEY] = {"loss": "dice_ce", "arguments": {"weight": [1.0] * 7}}
    with pytest.raises(ValueError, match=r"it has 7 values for [23] scored classes"):
        trainer.initialize()
    assert trainer.network is None


def test_deep_supervision_has_the_weights_of_nnunet_and_spacings_of_the_scales(space: Workspace) -> None:
    ours, stock = space.trainer("nnUNetTrainerDice"), space.trainer("nnUNetTrainer")
    ours.initialize()
    stock.initialize()
    assert ours.loss.weights == stock.loss.weight_factors
    assert ours.loss.weights[-1] == 0
    assert ours.loss.spacings == ((1.5, 1.0, 1.0), (3.0, 2.0, 2.0), (6.0, 4.0, 4.0))


def test_without_deep_supervision(space: Workspace) -> None:
    trainer = space.trainer(f"nnUNetTrainerDiceCE_{SHORT}")
    trainer.enable_deep_supervision = False
    assert np.isfinite(run(trainer).logger.get_value("train_losses", 0))
    assert trainer.loss.weights is None


def test_a_compiled_network(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"nnUNetTrainerDiceCE_{SHORT}"
    compiled = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compiled)
    trainer, resumed = space.trainer(name), space.trainer(name, resume=True)
    for each in (trainer, resumed):
        # nnU-Net compiles on CUDA only
        monkeypatch.setattr(each, "_do_i_compile", lambda: True)
    run(trainer)
    assert isinstance(trainer.network, torch._dynamo.OptimizedModule)
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert_equal(weights(trainer), weights(resumed))


def test_the_name_sets_the_length_and_the_learning_rate(space: Workspace) -> None:
    trainer = space.trainer("nnUNetTrainerDice_lr1em3_60epochs_40iterations")
    assert (trainer.initial_lr, trainer.num_epochs) == (0.001, 60)
    assert (trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (40, 8)
    assert trainer.save_every == 3
    stock, plain = space.trainer("nnUNetTrainer"), space.trainer("nnUNetTrainerDice")
    for setting in (
        "initial_lr",
        "num_epochs",
        "num_iterations_per_epoch",
        "num_val_iterations_per_epoch",
        "save_every",
    ):
        assert getattr(plain, setting) == getattr(stock, setting)


def test_the_name_sets_the_optimizer(space: Workspace) -> None:
    name = f"nnUNetTrainerDice_lr1em3_adam_seed0_{SHORT}"
    trainer, resumed = space.trainer(name), space.trainer(name, resume=True)
    run(trainer)
    assert type(trainer.optimizer) is torch.optim.Adam
    assert trainer.optimizer.defaults["lr"] == 0.001
    assert trainer.optimizer.defaults["weight_decay"] == trainer.weight_decay
    assert trainer.lr_scheduler.optimizer is trainer.optimizer
    trained = {id(each) for group in trainer.optimizer.param_groups for each in group["params"]}
    assert trained == {id(each) for each in trainer.network.parameters()}
    assert trainer.configuration_record()["optimizer"] == "adam"
    assert "optimizer" not in space.trainer("nnUNetTrainerDice").configuration_record()
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert_equal(weights(trainer), weights(resumed))
    assert resumed.optimizer.state_dict()["state"][0]["step"] == trainer.optimizer.state_dict()["state"][0]["step"] > 0


def test_the_environment_sets_how_often_a_checkpoint_is_written(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("segloss_save_every", "2")
    assert space.trainer("nnUNetTrainerDice_60epochs").save_every == 2
    monkeypatch.setenv("segloss_save_every", "often")
    with pytest.raises(ValueError, match="segloss_save_every must be a number of epochs, got 'often'"):
        space.trainer("nnUNetTrainerDice_60epochs")


def test_first_weights_of_a_seed_have_one_hash_whatever_the_loss() -> None:
    def network(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))

    assert weights_hash(network(0)) == weights_hash(network(0)) != weights_hash(network(1))


def test_mixed_precision_on_the_cpu_reaches_the_network_alone(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"nnUNetTrainerDiceCE_seed0_{SHORT}"
    full = space.trainer(name)
    run(full)
    assert full.configuration_record()["autocast"] == "float32"
    monkeypatch.setenv(precision.VARIABLE, "bfloat16")
    mixed = space.trainer(name)
    mixed.initialize()
    assert mixed.configuration_record()["autocast"] == "bfloat16"
    features, outputs = [], []
    mixed.network.encoder.register_forward_hook(lambda _, __, result: features.append(result[0].dtype))
    mixed.network.register_forward_hook(lambda _, __, result: outputs.append(result[0].dtype))
    mixed.train_step(batch_of(mixed))
    assert {*features} == {torch.bfloat16}
    assert {*outputs} <= {torch.float32}
    assert {p.dtype for p in mixed.network.parameters()} == {torch.float32}
    assert all(torch.isfinite(p).all() for p in mixed.network.parameters())
    with pytest.raises(recording.OtherConfigurationError, match='autocast is "float32" there and "bfloat16" here'):
        mixed.load_checkpoint(str(Path(full.output_folder) / "checkpoint_final.pth"))


def test_a_gpu_goes_on_with_what_a_cpu_began_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(precision.VARIABLE, "bfloat16")
    on_cpu, on_gpu = precision.record(torch.device("cpu")), precision.record(torch.device("cuda"))
    loss = {"loss": "dice_ce", "arguments": {}}
    here = building.with_defaults({**loss, **on_gpu})
    recording.refuse_other({**loss, **on_cpu}, here, "fold_0")
    with pytest.raises(recording.OtherConfigurationError, match="lr is 1 there and null here"):
        recording.refuse_other({**loss, **on_cpu, "lr": 1}, here, "fold_0")


def test_an_unknown_precision_is_refused_before_any_work(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(precision.VARIABLE, "half")
    with pytest.raises(ValueError, match="segloss_cpu_autocast is 'half'; expected 'bfloat16'"):
        space.trainer("nnUNetTrainerDiceCE").initialize()


@pytest.mark.parametrize(("ours", "own"), [("DiceCE", "nnUNetTrainer"), ("CrossEntropy", "nnUNetTrainerCELoss")])
def test_nnunet_s_own_trainers_see_the_same_weights_and_batches(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, ours: str, own: str
) -> None:
    """One loss, computed by them and by us."""
    schedule = "seed3_2epochs_3iterations"
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    found = run(space.trainer(f"nnUNetTrainer{ours}_{schedule}"))
    stock = str(Path(__file__).resolve().parent / "stock")
    monkeypatch.setenv(VARIABLE, os.pathsep.join([stock, os.environ.get(VARIABLE, "")]))
    expected = run(space.trainer(f"{own}_{schedule}"))
    constant = 1 if ours == "DiceCE" else 0  # nnU-Net's Dice loss is -Dice
    losses = [np.array([t.logger.get_value("train_losses", epoch) for epoch in range(2)]) for t in (found, expected)]
    np.testing.assert_allclose(losses[0], losses[1] + constant, rtol=1e-3)
    assert not np.allclose(losses[0][0], losses[0][1], rtol=1e-3), "the epochs must differ to tell batches apart"


CLASSES = """
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import nnUNetTrainerNoMirroring
from torch import nn

from nnunet_trainers.trainers import nnUNetTrainerDiceCE_1epochs_2iterations as Ours


class nnUNetTrainerMine(Ours, nnUNetTrainerNoMirroring):
    pass


class nnUNetTrainerFrozen(Ours):
    def initialize(self):
        super().initialize()
        self.network.encoder.requires_grad_(False)


class nnUNetTrainerOwnNetwork(Ours):
    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, inputs, outputs, enable_deep_supervision=True):
        return Ours.build_network_architecture(
            plans_manager, configuration_manager, inputs, outputs, enable_deep_supervision
        )


class nnUNetTrainerOwnHead(Ours):
    def initialize(self):
        super().initialize()
        self.network.head = nn.Linear(1, 1)
"""


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("nnUNetTrainerMine", ""),
        ("nnUNetTrainerFrozen", ""),
        ("nnUNetTrainerOwnNetwork", "whose network is not nnU-Net's"),
        ("nnUNetTrainerOwnHead", "whose network is not nnU-Net's"),
    ],
)
def test_a_class_of_others_is_exported_where_its_network_is_nnunet_s(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, refused: str
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "mine.py").write_text(CLASSES)
    ours = os.environ[VARIABLE]
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "theirs"), ours]))
    trainer = trainer_class(name)
    model = Path(run(space.trainer(name)).output_folder).parent
    assert trainer.__module__ == "mine"
    if refused:
        with pytest.raises(ExportError, match=refused):
            export(model)
        assert not (model / "exported" / f"nnUNetTrainer{model.name.removeprefix(name)}").exists()
        return
    target = export(model)
    stock = space.trainer("nnUNetTrainer")
    stock.initialize()
    found = torch.load(target / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert found["trainer_name"] == "nnUNetTrainer"
    assert found["segloss"]["exported_from"] == name
    stock.network.load_state_dict(found["network_weights"])
    monkeypatch.setenv(VARIABLE, ours)
    shutil.rmtree(model / "exported")
    with pytest.raises(ExportError, match=f"{name}, which is no trainer of this package, nor found in the folders of"):
        export(model)
