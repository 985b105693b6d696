"""``segloss bundle``: a stand-alone bundle for one loss, overlays for other bundles, and a check of both."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnunet_data
import pytest
import torch
import zoo_bundle
from bundle_runs import monai_bundle
from monai.bundle import create_workflow
from monai.utils import set_determinism
from typer.testing import CliRunner

import monai_segloss
from monai_segloss import LossConfig
from monai_segloss.bundle import BundleMetadata, bundle_path, copy_bundle, make_bundle, overlay
from monai_segloss.bundle.checks import check_bundle
from monai_segloss.core.registry import LossInfo

LOSSES = monai_segloss.list_losses()
SMALL = {"patch_size": [16, 16, 16], "num_samples": 1, "network_def#channels": [4, 8], "network_def#strides": [2]}
SUM = ("--term", "dice=1", "--term", 'boundary={"schedule": "linear", "start": 0, "end": 0.01, "epochs": 5}')
OWN_LOSS = {"_target_": "monai_segloss.DiceLoss", "softmax": True, "to_onehot_y": True}

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's reminder that a configuration is code


def run(*arguments: str | Path) -> tuple[int, str]:
    return segloss("bundle", *arguments)


def segloss(*arguments: str | Path) -> tuple[int, str]:
    """Exit code, and the output as one line: messages wrap at the width of a terminal."""
    from monai_segloss.cli import app

    result = CliRunner().invoke(app, [*map(str, arguments)])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("cli"), "labels")


def train(bundle: Path, dataset: Path) -> Any:
    """One epoch of a bundle, from its own folder's files alone."""
    try:
        flow = create_workflow(
            workflow_name="ConfigWorkflow",
            workflow_type="train",
            config_file=str(bundle / "configs" / "train.json"),
            logging_file=False,
            bundle_root=str(bundle),
            dataset_dir=str(dataset),
            epochs=1,
            **SMALL,
        )
        assert flow.check_properties() == []
        flow.run()
    finally:
        set_determinism(None)
    assert math.isfinite(flow.trainer.state.output[0]["loss"])
    assert torch.load(bundle / "models" / "model.pt", weights_only=True).keys() == {"model"}
    return flow


@pytest.mark.parametrize("info", LOSSES, ids=[info.key for info in LOSSES])
def test_a_bundle_of_every_loss_tells_what_it_trains_with(info: LossInfo, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "mine", LossConfig(loss=info.key))
    content = load(bundle / "configs" / "train.json")
    assert {"loss": content["loss"]} == overlay(info)
    metadata = BundleMetadata.model_validate(load(bundle / "configs" / "metadata.json")).model_dump()
    assert metadata["name"] == f"Segmentation with {info.key}"
    assert info.summary in metadata["description"]
    assert info.paper in metadata["references"]
    page = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert info.formula in page
    assert json.loads(page.split("```json\n")[1].split("```")[0]) == overlay(info)
    assert not (bundle / "configs" / "losses").exists()
    assert all(finding.level == "ok" for finding in check_bundle(bundle, []))


def test_a_made_bundle_trains(tmp_path: Path, dataset: Path) -> None:
    assert run("make", tmp_path / "one", "--loss", "focal_tversky", "--set", "gamma=2")[0] == 0
    flow = train(tmp_path / "one", dataset)
    assert type(flow.trainer.loss_function) is monai_segloss.FocalTverskyLoss
    assert flow.trainer.loss_function.gamma == 2


def test_a_made_bundle_of_a_sum_trains_with_its_schedule(tmp_path: Path, dataset: Path) -> None:
    assert run("make", tmp_path / "sum", *SUM)[0] == 0
    loss = train(tmp_path / "sum", dataset).trainer.loss_function
    assert isinstance(loss, monai_segloss.WeightedSum)
    assert loss.term_weights["boundary"] == 0
    loss.set_epoch(5)
    assert loss.term_weights["boundary"] == pytest.approx(0.01)
    metadata = load(tmp_path / "sum" / "configs" / "metadata.json")
    assert metadata["name"] == "Segmentation with dice + boundary"
    assert len(metadata["references"]) == 2


def test_from_a_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "loss.yaml").write_text("terms: {dice: 1, cross_entropy: {weight: 0.5, label_smoothing: 0.1}}\n")
    assert run("make", tmp_path / "mine", "--config", tmp_path / "loss.yaml")[0] == 0
    terms = load(tmp_path / "mine" / "configs" / "train.json")["loss"]["terms"]
    assert terms["cross_entropy"] == {"weight": 0.5, "label_smoothing": 0.1}
    assert terms["dice"] == {"weight": 1.0, "include_background": False}


def test_what_trainings_wrote_is_not_copied(tmp_path: Path) -> None:
    used = copy_bundle(tmp_path / "used", bundle_path())
    for file in ("models/model.pt", "eval/metrics.csv", "predictions/a.nii.gz"):
        (used / file).parent.mkdir(exist_ok=True)
        (used / file).touch()
    again = copy_bundle(tmp_path / "again", used)
    assert not list(again.rglob("*.pt"))
    assert {path.name for path in again.iterdir()} <= {"LICENSE", "configs", "docs", "models"}
    assert (again / "LICENSE").read_text() == (bundle_path() / "LICENSE").read_text()


def test_nothing_is_left_of_a_bundle_that_could_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run("make", tmp_path / "mine", "--term", "dice=1", "--term", "binary_cross_entropy=1")
    assert code == 2
    assert "cannot share one reading of a label map: dice softmax, binary_cross_entropy sigmoid" in text
    assert list(tmp_path.iterdir()) == []

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        make_bundle(tmp_path / "mine", LossConfig(loss="dice"))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert make_bundle(tmp_path / "mine", LossConfig(loss="dice")).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_overlay_file(tmp_path: Path) -> None:
    bundle, file = zoo_bundle.write(tmp_path / "zoo"), tmp_path / "boundary.json"
    code, text = run("overlay", "boundary", "--set", 'mode="surface"', "--bundle", bundle, "-o", file)
    assert (code, load(file)["loss"]["mode"]) == (0, "surface")
    assert f"--config_file \"['{bundle}/configs/train.json','{file}']\"".replace(" ", "") in text.replace(" ", "")
    code, text = run("overlay", "dice", "--bundle", bundle, "-o", file)
    assert code == 2
    assert "exists; name another file, or add --replace" in text
    assert run("overlay", "dice", "--bundle", bundle, "-o", file, "--replace")[0] == 0
    assert load(file)["loss"]["_target_"] == "monai_segloss.DiceLoss"
    code, text = run("overlay", *SUM)
    assert code == 0
    assert json.loads(text)["loss"]["terms"]["boundary"]["weight"]["end"] == 0.01
    assert json.loads(run("overlay", "dice", "--regions")[1])["loss"]["sigmoid"] is True
    assert json.loads(run("overlay", "boundary", "--spacing", "1.5,1.5,2")[1])["loss"]["spacing"] == [1.5, 1.5, 2.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("overlay", "focal_tverski"),
            "Invalid value for KEY: no loss is called 'focal_tverski'; did you mean 'focal_tversky'",
        ),
        (("overlay", "tversky", "--set", "alpa=1"), "tversky has no argument 'alpa'; did you mean 'alpha'"),
        (("overlay", "tversky", "--set", "alpha=-1"), "alpha"),
        (("overlay", "tversky", "--set", "alpha"), "Invalid value for --set: 'alpha' is not name=value"),
        (("overlay", "tversky", "--set", "alpha=x"), "is no JSON value"),
        (("overlay", "--term", "dice=1", "--term", "dcie=1"), "Invalid value for --term: no loss is called 'dcie'"),
        (("overlay", "--term", "dice=-1"), "Invalid value for --term"),
        (("overlay", "--term", "dice=1", "--set", "batch=true"), "--set goes with KEY"),
        (("overlay",), "give either KEY (with --set), --term or --config"),
        (("overlay", "dice", "--term", "dice=1"), "give either KEY (with --set), --term or --config"),
        (("overlay", "dice", "--config", "gone.json"), "give either KEY (with --set), --term or --config"),
        (("overlay", "--config", "gone.json"), "Invalid value for --config"),
        (("overlay", "dice", "--bundle", "gone"), "Invalid value for --bundle: gone has no configs/train.json"),
        (
            ("overlay", "boundary", "--spacing", "1,x"),
            "Invalid value for --spacing: '1,x' is no spacing; expected positive numbers such as 1.5,1.5,2, or 'affine'",
        ),
        (("overlay", "boundary", "--spacing", "1,0,1"), "Invalid value for --spacing: '1,0,1' is no spacing"),
        (("make", "new"), "give either --loss (with --set), --term or --config"),
        (("make", "new", "--loss", "dcie"), "Invalid value for --loss: no loss is called 'dcie'"),
        (("make", "new", "--loss", "dice", "--name", "gone"), "Invalid value for --name: no bundle 'gone'"),
        (("make", ".", "--loss", "dice"), "Invalid value for FOLDER: . exists; name a new folder"),
        (("overlay", "dice", "-o", "gone/x.json"), "Invalid value for --output: gone is no folder"),
        (("check", "gone"), "Invalid value: gone has no configs/train.json"),
        (("check", str(bundle_path()), "gone.json"), "Invalid value: gone.json cannot be read: [Errno 2] No such file"),
        (("make", "new", "--term", "dice=1", "--term", "dice=2"), "Invalid value for --term: 'dice' came twice"),
        (("make", "new", "--loss", "focal", "--set", "gamma=1", "--set", "gamma=2"), "--set: 'gamma' came twice"),
        (("copy", f"{os.devnull}/x"), f"Invalid value for FOLDER: cannot write {os.devnull}/x"),
        (("make", f"{os.devnull}/x", "--loss", "dice"), f"Invalid value for FOLDER: cannot write {os.devnull}/x"),
    ],
)
def test_wrong_usage_names_the_option(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run(*arguments)
    assert code == 2, text
    assert message in text
    assert list(tmp_path.iterdir()) == []


def test_an_overlay_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("monai_segloss.files.write_json", full)
    code, text = run("overlay", "dice", "-o", tmp_path / "x.json")
    assert code == 2
    assert "Invalid value for --output: cannot write: [Errno 28] No space left on device" in text


def test_a_note_says_which_key_the_loss_is(tmp_path: Path) -> None:
    config = zoo_bundle.train()
    config["train"]["trainer"]["loss_function"] = "@lossfn"
    config["lossfn"] = config.pop("loss")
    (tmp_path / "train.json").write_text(json.dumps(config))
    code, text = run("overlay", "dice", "--bundle", tmp_path / "train.json")
    assert code == 0
    assert "Note: the loss of train.json is the key 'lossfn', not 'loss'" in text


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("metadata.json", lambda c: c.pop("task"), "metadata.json: task: Field required"),
        ("metadata.json", lambda c: c.update(version="9.9.9"), "changelog has no entry for version 9.9.9"),
        (
            "train.json",
            lambda c: c["train"].pop("inferer"),
            "train.json has no key 'train#inferer', which MONAI requires",
        ),
        ("train.json", lambda c: c.pop("loss"), "refers to the key 'loss', which is missing; expected a loss there"),
        (
            "train.json",
            lambda c: c.update(loss={**OWN_LOSS, "bach": 1}),
            "unexpected argument 'bach'; did you mean 'batch'",
        ),
        ("train.json", lambda c: c.update(loss={"_target_": "monai_segloss.DicLoss"}), "no loss is called 'DicLoss'"),
    ],
)
def test_check_names_what_is_wrong_in_a_bundle(tmp_path: Path, file: str, change: Change, message: str) -> None:
    bundle = zoo_bundle.write(tmp_path / "zoo")
    code, text = run("check", bundle)
    assert code == 0, text
    content = load(bundle / "configs" / file)
    change(content)
    (bundle / "configs" / file).write_text(json.dumps(content))
    code, text = run("check", bundle)
    assert code == 1
    assert message in text


@pytest.mark.parametrize(
    ("content", "level", "message"),
    [
        ({"los": OWN_LOSS}, "error", "mine.json: nothing uses the key 'los'; did you mean 'loss'?"),
        ({"lossfn": OWN_LOSS}, "error", "mine.json: nothing uses the key 'lossfn'"),
        ({"train#trainr#max_epochs": 3}, "error", "the key 'train#trainr#max_epochs' is nowhere in train.json"),
        ({"train#trainer#max_epoch": 3}, "warning", "is new in train.json; did you mean 'max_epochs'"),
        ({"loss": {**OWN_LOSS, "alpah": 1}}, "error", "mine.json: loss: DiceLoss() got an unexpected argument 'alpah'"),
        ({"loss": "$torch.nn.BCELoss()"}, "warning", "known at run time only"),
        ([1], "error", "mine.json holds no keys"),
        ({"loss": OWN_LOSS, "imports": ["$import os"]}, "ok", "monai_segloss.DiceLoss takes these arguments"),
        ({"rate": 0.1, "optimizer#lr": "@rate"}, "ok", "it leaves the loss of train.json as it is"),
    ],
)
def test_check_names_keys_of_an_overlay_that_reach_nothing(
    tmp_path: Path, content: Any, level: str, message: str
) -> None:
    bundle, file = zoo_bundle.write(tmp_path / "zoo"), tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    code, text = run("check", bundle, file)
    assert code == (1 if level == "error" else 0), text
    assert message in text
    assert f"{level} mine.json" in text


def test_the_bundle_of_this_package_is_right() -> None:
    code, text = run("check", bundle_path(), bundle_path() / "configs" / "multi_gpu_train.json")
    assert code == 0, text
    assert "train.json: loss: monai_segloss.DiceCELoss takes these arguments" in text


def test_a_copy_and_its_overlays_are_right(tmp_path: Path) -> None:
    copy_bundle(tmp_path / "mine", bundle_path())
    code, text = run("check", tmp_path / "mine")
    assert code == 0, text
    assert f"losses: {len(LOSSES)} overlays" in text
    file = tmp_path / "mine" / "configs" / "train.json"
    train = load(file)
    for change, message in (
        ({"loss_key": "tverski"}, "no loss is called 'tverski'; did you mean 'tversky'"),
        ({"loss_arguments": {"alfa": 1}}, "DiceCELoss() got an unexpected argument 'alfa'"),
    ):
        file.write_text(json.dumps({**train, **change}))
        for command in (("bundle", "check"), ("check",)):
            code, text = segloss(*command, tmp_path / "mine")
            assert (code, message in text) == (1, True), text


@pytest.mark.real
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--loss#alpah", "1"), "wrong while making the key 'loss': DiceLoss() got an unexpected argument 'alpah'"),
        pytest.param(
            ("--loss#_target_", "monai_segloss.DicLoss"),
            "while making the key 'loss': Cannot locate class or function path",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            ("--loss#_target_", "monai_segloss.CrossEntropyLoss"),
            "unexpected argument 'include_background'",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_a_run_with_a_wrong_loss_ends_with_the_name_of_the_key(
    option: tuple[str, str], message: str, tmp_path: Path, dataset: Path
) -> None:
    bundle = make_bundle(tmp_path / "mine", LossConfig(loss="dice"))
    done = monai_bundle("run", *option, folder=bundle, config_file="configs/train.json", dataset_dir=dataset)
    assert done.returncode != 0
    assert message in done.stdout.strip().splitlines()[-1]


def test_the_commands_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "bundle.md"
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("segloss bundle ")]
    monkeypatch.chdir(tmp_path)
    zoo_bundle.write(tmp_path / "spleen_ct_segmentation")
    (tmp_path / "my_loss.yaml").write_text("loss: tversky\narguments: {alpha: 0.2}\n")
    for line in lines:
        code, text = run(*shlex.split(line, comments=True)[2:])
        assert code == 0, f"{line}: {text}"
    assert {"make", "overlay", "check", "copy"} <= {line.split()[2] for line in lines}
