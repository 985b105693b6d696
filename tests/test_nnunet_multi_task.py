"""Tasks alongside the segmentation in nnU-Net: heads in optimizer and checkpoint, outside of the network."""

from __future__ import annotations

import json
import os
import re
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
from nnunet_data import Workspace, add_configurations, assert_equal, run, weights

import monai_segloss
from monai_segloss.core.companions import learnable
from monai_segloss.core.names import camel
from monai_segloss.losses.learned.tasks import WithTasks

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
KEYS = [info.key for info in monai_segloss.list_losses() if issubclass(info.cls, WithTasks)]


class Killed(BaseException):
    """What ends the training in a test."""


def killed_in(trainer: Any, epoch: int) -> None:
    step = trainer.train_step

    def dying(batch: dict[str, Any]) -> Any:
        if trainer.current_epoch == epoch:
            raise Killed
        return step(batch)

    trainer.train_step = dying
    with pytest.raises(Killed):
        trainer.run_training()


def state(trainer: Any) -> dict[str, torch.Tensor]:
    """Copies of what of the loss is trained."""
    return {name: p.detach().clone() for name, p in trainer.loss.loss.named_parameters()}


@pytest.mark.parametrize("key", KEYS)
def test_a_killed_run_goes_on_with_its_heads(space: Workspace, key: str) -> None:
    """To the last bit, heads and learned weights included."""
    name = f"nnUNetTrainer{camel(key)}_seed1_3epochs_2iterations"
    whole = run(space.trainer(name))
    expected, heads = weights(whole), state(whole)
    assert heads
    assert not any("heads" in each for each in expected), "stock prediction loads strictly"
    for file in Path(space.model(name)).glob("fold_0/*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()

    broken = space.trainer(name)
    killed_in(broken, 2)
    torch.manual_seed(99)
    resumed = space.trainer(name, resume=True)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    first = state(resumed)
    assert_equal(expected, weights(run(resumed)))
    assert_equal(heads, state(resumed))
    assert not any(torch.equal(heads[each], first[each]) for each in heads if each.endswith("weight")), (
        "they are trained"
    )


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore", "regions_ignore"])
@pytest.mark.parametrize("configuration", ["tiny", "tiny_2d", "tiny_one_scale"])
def test_every_kind_of_data(space: Workspace, kind: str, configuration: str) -> None:
    trainer = run(space.trainer("nnUNetTrainerConvMCD_1epochs_2iterations", kind, configuration))
    text = next(Path(trainer.output_folder).glob("training_log_*.txt")).read_text()
    assert re.search(r"segloss tap decoder: 4 channels at \(16, 16(, 16)?\), module '\w+", text)
    found = re.search(r"train_loss_terms (\{.*\})", text)
    assert found
    assert set(json.loads(found[1].replace("'", '"'))) == {
        "dice_ce/dice",
        "dice_ce/cross_entropy",
        "contour",
        "distance",
    }
    parameters = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in learnable(trainer.loss)} <= parameters


def test_a_balance_in_the_plans_is_logged_and_recorded(space: Workspace) -> None:
    """Learned weights in the optimizer without decay, in the log as weights of the terms, in the checkpoint."""
    planned = {"terms": {"dice": 1, "cross_entropy": 0.5}, "balance": "uncertainty_weighting"}
    add_configurations(space.plans(), {"balanced": {"inherits_from": "tiny", "segloss": planned}})
    trainer = run(space.trainer("nnUNetTrainerSegLoss_seed1_2epochs_3iterations", configuration="balanced"))
    scales = trainer.loss.loss.balance.log_scales
    (group,) = [g for g in trainer.optimizer.param_groups if any(p is scales for p in g["params"])]
    assert group["weight_decay"] == 0
    assert (scales != 0).all()
    folder = Path(trainer.output_folder)
    text = next(folder.glob("training_log_*.txt")).read_text()
    logged = [json.loads(each.replace("'", '"')) for each in re.findall(r"train_loss_weights (\{.*\})", text)]
    assert logged[-1] == {n: pytest.approx(w, abs=1e-4) for n, w in trainer.loss.term_weights.items()}
    assert logged[0] != logged[1]
    assert json.loads((folder / "debug.json").read_text())["segloss"]["balance"] == "uncertainty_weighting"
    kept = torch.load(folder / "checkpoint_final.pth", weights_only=False)["segloss"]["loss_state"]
    assert torch.equal(kept["loss.balance.log_scales"], scales.detach())


def test_factors_that_follow_the_terms_go_on(space: Workspace) -> None:
    planned = {"loss": "conv_mcd", "arguments": {"balance": {"method": "dynamic_weight_averaging", "temperature": 0.5}}}
    add_configurations(space.plans(), {"balanced": {"inherits_from": "tiny", "segloss": planned}})
    name = "nnUNetTrainerSegLoss_seed1_4epochs_2iterations"
    whole = run(space.trainer(name, configuration="balanced"))
    expected, factors = weights(whole), whole.loss.term_weights
    assert sum(factors[each] for each in ("contour", "distance")) + factors["dice_ce"] == pytest.approx(3)
    assert len({round(x, 6) for x in factors.values()}) == 3
    shutil.rmtree(space.model(name, configuration="balanced"))
    killed_in(space.trainer(name, configuration="balanced"), 3)
    resumed = space.trainer(name, configuration="balanced", resume=True)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 3
    assert_equal(expected, weights(run(resumed)))
    assert resumed.loss.term_weights == factors


@pytest.mark.real
@pytest.mark.parametrize("name", ["nnUNetTrainerConvMCD_2epochs_3iterations"])
def test_as_a_user_types_it(space: Workspace, name: str) -> None:
    """Train, kill, go on with --c, export, predict with stock nnU-Net; its own trainer predicts the same."""
    command = ["1", "tiny", "0", "-tr", name, "-device", "cpu"]
    fold = space.model(name) / "fold_0"
    program = str(Path(sys.executable).with_name("nnUNetv2_train"))
    process = subprocess.Popen([program, *command], env=space.env, cwd=space.root, start_new_session=True)
    deadline = time.monotonic() + 600
    while not (fold / "checkpoint_latest.pth").exists():
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < deadline, "the training did not get there"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    space.run("nnUNetv2_train", *command, "--c")
    final = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == 2
    assert {"loss.heads.contour.weight", "loss.heads.distance.bias"} <= set(final["segloss"]["loss_state"])
    images = space.root / "imagesTs"
    images.mkdir()
    shutil.copy(space.root / "raw" / "Dataset001_labels" / "imagesTr" / "case_03_0000.nii.gz", images)
    options = ["-i", str(images), "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1"]
    own = ["-d", "1", "-c", "tiny", "-tr", name, "-o", str(space.root / "own")]
    space.run("nnUNetv2_predict", *options, *own)
    space.run("segloss", "nnunet", "export", str(space.model(name)))
    exported = space.model(name) / "exported" / "nnUNetTrainer__nnUNetPlans__tiny"
    stock = ["-m", str(exported), "-o", str(space.root / "stock")]
    space.run("nnUNetv2_predict_from_modelfolder", *options, *stock, nnUNet_extTrainer="")
    first, second = (_labels(space.root / each) for each in ("own", "stock"))
    assert np.array_equal(first, second)


def _labels(folder: Path) -> np.ndarray:
    (file,) = folder.glob("*.nii.gz")
    return np.asarray(nibabel.load(file).dataobj)
