"""The command line as a user types it: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import monai.utils  # noqa: F401  (sets variables of the environment)
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import monai_segloss
import nnunet_trainers.trainers  # noqa: F401  (the same)
from monai_segloss import LossConfig
from monai_segloss.cli import app

KEYS = [info.key for info in monai_segloss.list_losses()]


def segloss(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def test_list_names_every_loss() -> None:
    result = segloss("list")
    assert result.exit_code == 0
    assert all(key in result.output for key in KEYS)


def test_list_by_tag_as_json() -> None:
    facts = {each["key"]: each for each in json.loads(segloss("list", "recall", "--json").output)}
    assert set(facts) == {info.key for info in monai_segloss.list_losses() if "recall" in info.tags}
    assert facts["focal_tversky"]["parameters"]["beta"] == 0.7


def test_list_refuses_an_unknown_tag() -> None:
    result = segloss("list", "recal")
    assert result.exit_code == 2
    assert "recall" in result.output


@pytest.mark.parametrize("key", KEYS)
def test_show(key: str) -> None:
    info = monai_segloss.find(key)
    result = segloss("show", key)
    assert result.exit_code == 0
    shown = " ".join(result.output.split())
    for part in (
        info.formula,
        info.paper,
        *info.doi.split("; "),
        info.cls.__name__,
        "nnUNetTrainer",
        *info.parameters,
        info.cost,
    ):
        assert " ".join(part.split()) in shown


def test_losses_of_persistence_say_what_a_step_costs() -> None:
    found = {info.key: info.cost for info in monai_segloss.list_losses("persistence")}
    assert len(found) > 1
    assert all(" s " in cost and "64" in cost for cost in found.values())
    assert json.loads(segloss("show", next(iter(found)), "--json").output)["cost"] == next(iter(found.values()))
    assert "Cost of a step" not in segloss("show", "dice").output


def test_show_refuses_a_misspelt_key_with_the_nearest() -> None:
    result = segloss("show", "focal_tverski")
    assert result.exit_code == 2
    assert "focal_tversky" in result.output


def test_schema_accepts_what_the_configuration_accepts() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(segloss("schema").output)
    jsonschema.Draft202012Validator.check_schema(schema)
    accepts = jsonschema.Draft202012Validator(schema).is_valid
    assert accepts({"loss": "tversky", "arguments": {"alpha": 0.2}})
    for terms in ({"dice": {"weight": 1}}, {"dice": 1, "boundary": "rebalance"}):
        assert accepts({"terms": terms})
        LossConfig(terms=terms)
    for info in monai_segloss.list_losses():
        for name in (info.key, *info.aliases):
            assert accepts({"loss": name})
            assert not accepts({"loss": name, "arguments": {"nonsense": 1}})
    assert not accepts({"loss": "tversky", "arguments": {"alfa": 0.2}})
    assert not accepts({"loss": "tverski"})


WRAPPED = {"_target_": "monai_segloss.engine.DeepSupervision", "loss": {"_target_": "monai_segloss.DiceLoss"}}


@pytest.mark.parametrize(
    ("config", "level", "words"),
    [
        ({"loss": "dice", "arguments": {"batch": True}}, 0, "valid configuration: dice"),
        ({"terms": {"dice": 1, "focal": {"weight": 0.5, "gamma": 3}}}, 0, "sum of dice, focal"),
        ({"loss": "dise"}, 1, "did you mean 'dice'"),
        ({"loss": "tversky", "arguments": {"alfa": 1}}, 1, "did you mean 'alpha'"),
        ({"terms": {"dice": {"weight": {"schedule": "linnear"}}}}, 1, "did you mean 'linear'"),
        ({"terms": {"dice": -1}}, 1, "at least 0"),
        ({"loss": {"_target_": "monai_segloss.DiceLoss", "sofmax": True}}, 1, "did you mean 'softmax'"),
        ({"loss": {"_target_": "monai_segloss.DicLoss"}}, 1, "_target_"),
        ({"loss": {"_target_": "monai_segloss.dice"}}, 1, "expected DiceLoss"),
        ({"loss": {"_target_": "monai_segloss.list_losses"}}, 1, "no loss is called 'list_losses'"),
        ({"loss": "tversky", "arguments": {"alpha": "a"}}, 1, "alpha must be a number, got 'a'"),
        ({"loss": "dice", "arguments": {"include_background": "false"}}, 1, "include_background must be True or False"),
        ({"loss": WRAPPED}, 0, "loss#loss: monai_segloss.DiceLoss takes these arguments"),
        ({"loss": {**WRAPPED, "loss": {"_target_": "monai_segloss.DiceLoss", "sofmax": True}}}, 1, "'softmax'"),
        ({"loss": {"_target_": "monai_segloss.WeightedSum", "terms": {"dice": "@w"}}}, 0, "refers to other parts"),
        ({"loss": {"_target_": "monai_segloss.DiceLoss", "weight": {"_target_": "torch.ones"}}}, 0, "refers to other"),
    ],
)
def test_check_configuration(config: object, level: int, words: str, tmp_path: Path) -> None:
    file = tmp_path / "loss.json"
    file.write_text(json.dumps(config))
    result = segloss("check", str(file))
    assert result.exit_code == level
    text = " ".join(result.output.split())
    assert words in text
    assert "Value error" not in text


def test_check_prints_one_line_for_each_finding(tmp_path: Path) -> None:
    """Also where the terminal is narrow, or none: what was found can be searched for."""
    file = tmp_path / "loss.json"
    file.write_text(json.dumps({"loss": "tversky", "arguments": {"alfa": 1}}))
    result = CliRunner().invoke(app, ["check", str(file)], env={"COLUMNS": "40"})
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"{"])
def test_check_refuses_a_file_that_cannot_be_read(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "loss.json"
    file.write_bytes(content)
    result = segloss("check", str(file))
    assert result.exit_code == 2
    assert "cannot be read" in result.output


def test_check_ignores_no_option(tmp_path: Path) -> None:
    """A configuration names its loss, so that another one next to it would go unused."""
    file = tmp_path / "loss.json"
    file.write_text(json.dumps({"loss": "dice"}))
    result = segloss("check", str(file), "--loss", "tversky")
    assert result.exit_code == 2
    assert "leave --loss out" in " ".join(result.output.split())
    result = segloss("check", str(file), "--jobs", "2")
    assert result.exit_code == 2
    assert "leave --jobs out" in " ".join(result.output.split())


def test_check_of_a_bundle_without_a_loss_is_not_silent(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    result = segloss("check", str(tmp_path))
    assert result.exit_code == 1
    assert "no configs/train.json" in result.output


@pytest.mark.parametrize("key", [None, "task", "monai_version"])
def test_a_bundle_has_one_checker(key: str | None, tmp_path: Path) -> None:
    """Both commands find the same, in a bundle of ours and where a key of its metadata is gone."""
    pytest.importorskip("monai")
    bundle = tmp_path / "bundle"
    assert segloss("bundle", "copy", str(bundle)).exit_code == 0
    metadata = bundle / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
    one, other = segloss("check", str(bundle)), segloss("bundle", "check", str(bundle))
    assert (one.exit_code, one.output) == (other.exit_code, other.output)
    assert one.exit_code == (0 if key is None else 1)
    assert key is None or f"metadata.json: {key}" in one.output
    metadata.unlink()
    one, other = segloss("check", str(bundle)), segloss("bundle", "check", str(bundle))
    assert (one.exit_code, one.output) == (other.exit_code, other.output)
    assert one.exit_code == 1


def write_dataset(folder: Path, label: np.ndarray, ignore: bool = False) -> Path:
    sitk = pytest.importorskip("SimpleITK")
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    image = sitk.GetImageFromArray(label)
    image.SetSpacing((0.5, 0.5, 3.0))
    sitk.WriteImage(image, str(folder / "labelsTr" / "a.nii.gz"))
    sitk.WriteImage(image, str(folder / "imagesTr" / "a_0000.nii.gz"))
    labels = {"background": 0, "organ": 1, "lesion": 2, **({"ignore": 3} if ignore else {})}
    facts = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def test_check_dataset(tmp_path: Path) -> None:
    label = np.zeros((4, 8, 8), np.uint8)
    label[1:3, 2:6, 2:6] = 1
    result = segloss("check", str(write_dataset(tmp_path / "d", label)), "--loss", "focal_tversky")
    text = " ".join(result.output.split())
    assert result.exit_code == 0
    assert "'organ': in 1 of 1 cases, 12.5 %" in text
    assert "'lesion' is empty" in text
    assert "(3.0, 0.5, 0.5)" in text


def test_check_dataset_finds_a_wrong_label_and_a_missing_image(tmp_path: Path) -> None:
    label = np.zeros((4, 8, 8), np.uint8)
    label[0, 0, :5] = 7
    folder = write_dataset(tmp_path / "d", label)
    (folder / "imagesTr" / "a_0000.nii.gz").unlink()
    result = segloss("check", str(folder))
    text = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "label 7 (5 voxels)" in text
    assert "a_0000.nii.gz is missing" in text


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_check_refuses_what_it_does_not_know(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert segloss("check", str(tmp_path / name)).exit_code == 2


def test_check_names_the_option_of_an_unknown_loss(tmp_path: Path) -> None:
    result = segloss("check", str(tmp_path), "--loss", "tverski")
    assert result.exit_code == 2
    assert "--loss" in result.output
    assert "'tversky'" in result.output


def test_the_installed_command_runs() -> None:
    code = "from monai_segloss.cli import main; import sys; sys.argv = ['segloss', '--version']; main()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0
    assert monai_segloss.__version__ in run.stdout


def test_the_command_starts_without_torch() -> None:
    code = "import sys, monai_segloss.cli; assert not {'torch', 'monai', 'nnunetv2'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
