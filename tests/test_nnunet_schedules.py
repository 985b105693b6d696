"""Losses whose weights change with the epoch, as nnU-Net trainers: log, resume, every kind of data set and of plan."""

from __future__ import annotations

import ast
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_data import QUIET, SHORT, Workspace, assert_equal, run, weights
from torch import Tensor

import monai_segloss
from monai_segloss import LossConfig
from monai_segloss.core.names import camel
from nnunet_trainers import building, plans
from nnunet_trainers.building import DatasetProperties
from nnunet_trainers.deep_supervision import NnUNetLoss
from nnunet_trainers.naming import TrainerNameError

pytest_plugins = "nnunet_fixtures"
pytestmark = QUIET

SCHEDULED = [info for info in monai_segloss.list_losses("schedule") if info.family == "compound"]
every = pytest.mark.parametrize("info", SCHEDULED, ids=lambda info: info.key)


class Killed(BaseException):
    """What ends a training in a test."""


def train_until(trainer: Any, epoch: int) -> Any:
    """Run the trainer until an epoch begins, where it is killed."""
    start = trainer.on_train_epoch_start

    def dying() -> None:
        if trainer.current_epoch == epoch:
            raise Killed
        start()

    trainer.on_train_epoch_start = dying
    with pytest.raises(Killed):
        trainer.run_training()
    return trainer


def next_second() -> None:
    """nnU-Net names a log by the second of its start: two trainings must not share one."""
    time.sleep(1.1)


def resumed(space: Workspace, name: str) -> Any:
    next_second()
    trainer = space.trainer(name, resume=True)
    trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    return run(trainer)


def logged(trainer: Any, what: str) -> list[dict[str, float]]:
    """The entries of a kind in the log of a trainer, by epoch."""
    return [ast.literal_eval(found) for found in re.findall(rf"{what} (\{{.*\}})", Path(trainer.log_file).read_text())]


def test_a_killed_training_goes_on_with_the_weights_of_its_epoch(space: Workspace) -> None:
    name = "nnUNetTrainerDiceBoundary_4epochs_2iterations"
    first = train_until(space.trainer(name), 2)
    second = resumed(space, name)
    found = logged(first, "train_loss_weights") + logged(second, "train_loss_weights")
    assert found == [{"dice": round(0.99 - 0.01 * e, 4), "boundary": round(0.01 * (e + 1), 4)} for e in range(4)]
    for terms in logged(second, "train_loss_terms"):
        assert set(terms) == {"dice", "boundary"}
        assert min(terms.values()) >= 0


def test_a_ratio_is_restored_to_the_last_bit(space: Workspace) -> None:
    name = "nnUNetTrainerDiceHausdorffDT_seed1_3epochs_2iterations"
    train_until(space.trainer(name), 1)
    second = resumed(space, name)
    (before, _), terms = logged(second, "train_loss_weights"), logged(second, "train_loss_terms")
    parts = weights(second)
    state = second.loss.loss.means

    for file in Path(second.output_folder).glob("*.pth"):
        file.unlink()
    next_second()
    whole = run(space.trainer(name))
    ratios, every_term = logged(whole, "train_loss_weights"), logged(whole, "train_loss_terms")
    assert ratios[0] == {"dice": 1.0, "hausdorff_dt": 0.01}
    for epoch in (1, 2):
        expected = every_term[epoch - 1]["dice"] / every_term[epoch - 1]["hausdorff_dt"]
        assert ratios[epoch]["hausdorff_dt"] == pytest.approx(expected, rel=1e-2)
    assert (before, terms) == (ratios[1], every_term[1:])
    assert state == whole.loss.loss.means
    assert_equal(weights(whole), parts)


def test_a_ratio_without_its_state_is_refused(space: Workspace) -> None:
    name = "nnUNetTrainerDiceHausdorffDT_2epochs_2iterations"
    trainer = train_until(space.trainer(name), 1)
    path = Path(trainer.output_folder) / "checkpoint_latest.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["segloss"]["loss_state"]["loss._extra_state"]["means"] = {}
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"'hausdorff_dt' follows the mean values of the epoch before.*epoch 1"):
        resumed(space, name)


@pytest.mark.parametrize("configuration", ["tiny_2d", "tiny_batch", "tiny_one_scale"])
@every
def test_every_kind_of_plan(info: monai_segloss.LossInfo, configuration: str, space: Workspace) -> None:
    trainer = run(space.trainer(f"nnUNetTrainer{camel(info.key)}_{SHORT}", configuration=configuration))
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))
    assert np.isfinite(trainer.logger.get_value("val_losses", 0))
    assert set(logged(trainer, "train_loss_weights")[0]) == set(logged(trainer, "train_loss_terms")[0])


@every
def test_regions_with_an_ignored_label(info: monai_segloss.LossInfo, space: Workspace) -> None:
    trainer = run(space.trainer(f"nnUNetTrainer{camel(info.key)}_{SHORT}", "regions_ignore"))
    assert np.isfinite(trainer.logger.get_value("train_losses", 0))
    assert np.isfinite(trainer.logger.get_value("val_losses", 0))


def test_a_cascade(space: Workspace) -> None:
    name = f"nnUNetTrainerDiceBoundary_{SHORT}"
    with pytest.raises(FileNotFoundError, match=f"{name} has not been trained"):
        space.trainer(name, configuration="tiny_cascade").initialize()
    first = run(space.trainer(name, configuration="tiny_low", fold="all"))
    first.perform_actual_validation()
    second = run(space.trainer(name, configuration="tiny_cascade"))
    assert np.isfinite(second.logger.get_value("train_losses", 0))


@every
def test_each_scale_is_measured_in_its_own_spacing(info: monai_segloss.LossInfo) -> None:
    """Half the resolution has voxels twice as large: the distances of the coarse shape are in mm too."""
    inner = building.create_loss(LossConfig(loss=info.key), DatasetProperties())
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(2, 3, *size, generator=generator) for size in ((8, 8, 6), (4, 4, 3))]
    targets = [torch.randint(0, 3, (2, 1, *output.shape[2:]), generator=generator) for output in outputs]
    fine, coarse = (1.5, 1.0, 0.7), (3.0, 2.0, 1.4)

    def at(scale: int, spacing: tuple[float, ...]) -> Tensor:
        value: Tensor = inner(outputs[scale], targets[scale], spacing=spacing)
        return value

    found = NnUNetLoss(inner, [fine, coarse], (2 / 3, 1 / 3))(outputs, targets)
    torch.testing.assert_close(found, 2 / 3 * at(0, fine) + 1 / 3 * at(1, coarse))
    assert found != 2 / 3 * at(0, fine) + 1 / 3 * at(1, fine)


def test_schedules_in_the_plans(space: Workspace) -> None:
    ramp = {"schedule": "pause", "epochs": 1, "then": {"schedule": "linear", "start": 0.5, "end": 1, "epochs": 2}}
    terms = {"dice_ce": {"schedule": "rest", "of": 0.25}, "boundary": {"weight": ramp, "offset": True}}
    plans.add_configuration(space.plans(), "tiny", "ramp", LossConfig(terms=terms).model_dump(exclude_defaults=True))
    trainer = run(short(space))
    found = logged(trainer, "train_loss_weights")
    assert found == [
        {"dice_ce": 0.75, "boundary": 0.5},
        {"dice_ce": 0.75, "boundary": 0.5},
        {"dice_ce": 0.75, "boundary": 0.75},
    ]
    report = json.loads((Path(trainer.output_folder) / "debug.json").read_text())
    assert report["segloss"]["terms"]["boundary"]["weight"] == ramp


def short(space: Workspace) -> Any:
    trainer = space.trainer("nnUNetTrainerSegLoss", configuration="tiny_ramp")
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 3, 1, 1
    return trainer


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("nnUNetTrainerDiceBoundary_lambdadice1_lambdaboundary0p1", {"dice": 1.0, "boundary": 0.1}),
        ("nnUNetTrainerGeneralizedDiceBoundary_lambdaboundary0p25", {"generalized_dice": 0.75, "boundary": 0.25}),
        ("nnUNetTrainerDiceHausdorffDT_lambdadice2_lambdahausdorff0p5_alpha1", {"dice": 2.0, "hausdorff_dt": 0.5}),
        (
            "nnUNetTrainerDiceCEBoundary_lambdace0_lambdaboundary0p5",
            {"dice": 0.5, "cross_entropy": 0.0, "boundary": 0.5},
        ),
    ],
)
def test_constant_weights_stand_in_the_name(name: str, weights: dict[str, float], space: Workspace) -> None:
    trainer = space.trainer(name)
    assert trainer.loss_config().build(softmax=True).term_weights == pytest.approx(weights)


def test_a_weight_that_leaves_nothing_is_refused_with_one_sentence(space: Workspace) -> None:
    with pytest.raises(
        TrainerNameError, match=r"lambda_boundary reaches 2\.0, which leaves nothing of 1; give lambda_dice too"
    ):
        space.trainer("nnUNetTrainerDiceBoundary_lambdaboundary2")
