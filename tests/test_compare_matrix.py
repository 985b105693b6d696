"""What a comparison is made of: arms, trainers, seeds, folds; and what is refused, in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monai_segloss import LossConfig
from monai_segloss.cli import app
from monai_segloss.cli.compare_run import _arm, _matrix
from monai_segloss.demo.generate import Size, make_dataset
from monai_segloss.experiment.arms import Arm
from monai_segloss.experiment.matrix import MatrixError, matrix
from monai_segloss.recipes import RECIPES
from nnunet_trainers import trainers

SUM = {"name": "sum", "terms": {"dice": 1, "cross_entropy": {"weight": 0.5}}}


def test_every_loss_can_be_an_arm() -> None:
    for name, each in trainers.plain().items():
        if each.key:
            arm = Arm.model_validate(each.key)
            assert not arm.planned
            assert arm.trainer_name(3, 4, 5, 0.01) == f"{name}_lr1em2_seed3_4epochs_5iterations"


@pytest.mark.parametrize("key", RECIPES)
def test_every_recipe_can_be_an_arm(key: str) -> None:
    arm = Arm.model_validate(key)
    assert arm.config == RECIPES[key].config
    trained = trainers.find(arm.trainer_name(0, 1, 1)).named_loss()
    assert trained is None if arm.planned else trained == arm.config


@pytest.mark.parametrize(
    ("content", "trainer", "planned"),
    [
        ({"loss": "tversky", "arguments": {"alpha": 0.3}}, "nnUNetTrainerTversky_alpha0p3_seed1_2epochs_4iterations", False),
        ({"loss": "cross_entropy", "arguments": {"weight": [1, 2]}, "lr": 0.01},
         "nnUNetTrainerSegLoss_lr1em2_seed1_2epochs_4iterations", True),
        (SUM, "nnUNetTrainerSegLoss_seed1_2epochs_4iterations", True),
        ({"trainer": "nnUNetTrainerTversky_alpha0p3_lr1em3"},
         "nnUNetTrainerTversky_alpha0p3_lr1em3_seed1_2epochs_4iterations", False),
        ({"name": "soft", "loss": "dice", "soft_labels": True},
         "nnUNetTrainerDice_softlabels_seed1_2epochs_4iterations", False),
        ({**SUM, "soft_labels": True}, "nnUNetTrainerSegLoss_softlabels_seed1_2epochs_4iterations", True),
        ({"trainer": "nnUNetTrainerDice_softlabels"}, "nnUNetTrainerDice_softlabels_seed1_2epochs_4iterations", False),
    ],
)  # fmt: skip
def test_arms_and_their_trainers(content: dict[str, Any], trainer: str, planned: bool) -> None:
    arm = Arm.model_validate(content)
    assert (arm.trainer_name(1, 2, 4), arm.planned) == (trainer, planned)
    assert Arm.model_validate(arm) == arm
    assert Arm.model_validate(json.loads(arm.model_dump_json())) == arm


def test_the_runs_pair_every_arm_with_the_baseline() -> None:
    found = matrix({"demo": True, "arms": ["dice", "dice_ce", SUM], "baseline": "dice_ce", "folds": [0, 2]})
    runs = found.runs()
    assert [run.name for run in runs[:3]] == ["dice seed 0 fold 0", "dice_ce seed 0 fold 0", "sum seed 0 fold 0"]
    seeds = {arm: sorted({run.seed for run in runs if run.arm == arm}) for arm in ("dice", "dice_ce", "sum")}
    assert seeds == {"dice": [0, 1], "dice_ce": [0, 1, 2, 3], "sum": [0, 1]}
    assert {run.configuration for run in runs if run.arm == "sum"} == {"3d_fullres_sum"}
    assert len(runs) == len({(run.trainer, run.configuration, run.fold) for run in runs}) == 2 * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"arms": ["dice_cx", "dice"]}, "no loss, recipe or trainer is called 'dice_cx'; did you mean 'dice_ce'"),
        ({"arms": ["dice", {"name": "x", "loss": "tverski"}]}, "is called 'tverski'; did you mean 'tversky'"),
        ({"arms": ["dice", {"loss": "tversky", "arguments": {"alfa": 1}}]}, "no argument 'alfa'; did you mean 'alpha'"),
        ({"arms": ["dice"]}, "at least two arms, got 'dice' alone"),
        ({"arms": ["dice", "dice_ce", "dice"]}, "two arms are called 'dice'"),
        ({"arms": ["dice", "nnUNetTrainerDice"]}, "two arms are the same training, nnUNetTrainerDice"),
        ({"seeds": 1}, "seeds must be at least 2, got 1: from one training it cannot be said"),
        ({"baseline_seeds": 1}, r"baseline_seeds must be at least seeds \(2\), got 1"),
        ({"baseline": "x"}, "baseline 'x' is none of the arms dice, dice_ce"),
        ({"folds": [1, 1]}, "folds must be different numbers from 0, got 1, 1"),
        ({"folds": [-1]}, "folds must be different numbers"),
        ({"arms": ["dice", "nnUNetTrainer"]}, "'nnUNetTrainer' is not of this package, .* segloss compare existing"),
        ({"arms": ["dice", "nnUNetTrainerTversky_seed1"]}, "sets seed, which belongs to the whole comparison"),
        ({"arms": ["dice", "nnUNetTrainerSegLoss"]}, "has no loss of its own"),
        ({"arms": ["dice", {"terms": {"dice": 1}}]}, "an arm that is a sum needs a name"),
        ({"arms": ["dice", {"name": "a-b", "loss": "tversky"}]}, "letters, digits and single underscores"),
        ({"arms": ["dice", 3]}, "an arm is the name of a loss, or a mapping"),
        ({"arm": []}, "no key 'arm'; did you mean 'arms'"),
        ({"configuration": "3d_cascade_fullres"}, "configuration: Input should be '2d', '3d_fullres' or '3d_lowres'"),
        ({"demo": False}, "give either data, .* or demo"),
        ({"data": "x"}, "give either data, .* or demo"),
    ],
)
def test_what_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(MatrixError, match=message):
        matrix({"demo": True, "arms": ["dice", "dice_ce"], **content})


def test_files_and_options(tmp_path: Path) -> None:
    file = tmp_path / "losses.yaml"
    file.write_text("demo: true\narms: [dice, {name: steep, loss: focal_tversky, arguments: {gamma: 2}}]\nseeds: 3\n")
    found = _matrix(file, {"seeds": 4, "epochs": None})
    assert [arm.name for arm in found.arms] == ["dice", "steep"]
    assert (found.seeds, found.epochs, found.lr) == (4, 5, 0.05)
    assert found.arms[1].config == LossConfig(loss="focal_tversky", arguments={"gamma": 2})
    assert _arm('sum={"terms": {"dice": 1}}') == {"name": "sum", "terms": {"dice": 1}}
    assert _arm('x="dice"') == {"name": "x", "loss": "dice"}


def test_the_schema_accepts_what_the_configuration_does() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    result = CliRunner().invoke(app, ["compare", "schema"])
    schema = json.loads(result.output)
    good = {"demo": True, "arms": ["dice", SUM, {"name": "t", "loss": "tversky", "arguments": {"alpha": 0.3}}]}
    matrix(good)
    jsonschema.validate(good, schema)
    for bad in ({"demo": True, "arms": [{"loss": "tverski"}]}, {"arms": ["dice"], "seed": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--demo", "--fold", "3"], "--fold 3: the 3 folds are 0 to 2"),
        (["--demo", "--gpus", "1"], "--cores and --gpus are of a cluster: give --cluster too"),
        (["--data", "{one}", "--loss", "dice", "--loss", "dice_ce"], "has 1 file that ends in .nii.gz, to train on"),
        (["--data", "{one}/x", "--loss", "dice", "--loss", "dice_ce"], "is not a folder"),
        (["--demo", "--loss", "x={"], "is no JSON"),
        (["--demo", "--loss", "dice", "--loss", "binary_cross_entropy"], "does not support labels"),
        ([], "Give the losses to compare with --loss"),
        (["--config", "{one}/none.yaml"], "cannot be read"),
    ],
)  # fmt: skip
def test_what_the_command_refuses_before_any_work(tmp_path: Path, arguments: list[str], message: str) -> None:
    one, out = tmp_path / "one", tmp_path / "out"
    make_dataset(one, 0, Size(1, 0, (45.0, 20.0, 20.0)))
    result = CliRunner().invoke(
        app, ["compare", "run", *(each.replace("{one}", str(one)) for each in arguments), "-o", str(out)]
    )
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output
    assert not out.exists()
