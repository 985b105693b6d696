"""The bundle: its files, and one short workflow in this process per registered loss."""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nnunet_data
import pytest
import torch
from bundle_runs import CONFIGS, SMALL, inference, workflow
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet
from packaging.version import Version
from pydantic import ValidationError
from typer.testing import CliRunner

import monai_segloss
from monai_segloss.bundle import BundleMetadata, bundle_path, bundles, create_loss, overlay, write_overlays
from monai_segloss.bundle.overlays import KEYS, written_out
from monai_segloss.core.prior import save_prior
from monai_segloss.core.probe import network_shape
from monai_segloss.core.registry import LossInfo
from monai_segloss.prior.networks import untrained

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "bundles" / "segloss_segmentation"
LOSSES = monai_segloss.list_losses()

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's reminder that a configuration is code


def load(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / name).read_text())


def test_every_loss_has_its_overlay(tmp_path: Path) -> None:
    expected = {f"{info.key}.json": overlay(info) for info in LOSSES}
    (tmp_path / "gone.json").touch()
    assert [path.name for path in write_overlays(tmp_path)] == sorted(expected)
    assert {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("info", LOSSES, ids=[info.key for info in LOSSES])
def test_the_key_of_a_loss_makes_what_its_overlay_says(info: LossInfo) -> None:
    made, written = create_loss(info.key), overlay(info)["loss"]
    assert {"_target_": f"monai_segloss.{info.cls.__name__}", **made.arguments} == written
    train = {**load("train.json"), "loss_key": info.key}
    assert written_out(train["loss"], train) == written


def test_arguments_of_a_loss_by_its_key() -> None:
    train = {**load("train.json"), "loss_key": "tversky", "loss_arguments": {"alpha": 0.2, "include_background": True}}
    node = {**train["loss"], "beta": 0.9}
    made = create_loss(train["loss_key"], train["loss_arguments"], beta=0.9)
    assert (made.alpha, made.beta, made.arguments["include_background"]) == (0.2, 0.9, True)
    assert written_out(node, train) == {"_target_": "monai_segloss.TverskyLoss", **made.arguments}
    assert create_loss("dice_ce", {"neighbors": 3}).reader.neighbors == 3
    assert written_out({**node, "key": "@mine"}, train) == {**node, "key": "@mine"}  # known at run time only
    assert written_out({"_target_": "other.Loss"}, train) == {"_target_": "other.Loss"}


def test_an_overlay_says_what_the_card_recommends() -> None:
    assert overlay(monai_segloss.find("focal_tversky"))["loss"]["include_background"] is False
    for info in LOSSES:
        loss = overlay(info)["loss"]
        assert ("include_background" in loss) == ("include_background" in info.parameters)
        assert set(loss) - {"_target_"} <= set(info.parameters)


def test_the_bundle_travels_with_the_package() -> None:
    """Whether this is a checkout or an installed wheel."""
    files = {path.relative_to(BUNDLE) for path in CONFIGS.rglob("*") if path.is_file()}
    assert files == {
        path.relative_to(bundle_path()) for path in (bundle_path() / "configs").rglob("*") if path.is_file()
    }
    assert all((bundle_path() / file).read_text() == (BUNDLE / file).read_text() for file in files)


def test_the_bundle_is_data() -> None:
    assert not list(BUNDLE.rglob("*.py"))
    assert (BUNDLE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert {"train.json", "evaluate.json", "inference.json", "metadata.json", "logging.conf"} <= {
        path.name for path in CONFIGS.iterdir()
    }
    assert {key: load("train.json")[key] for key in KEYS} == KEYS


def test_training_and_inference_agree() -> None:
    train, inference = load("train.json"), load("inference.json")
    for key in ("network_def", "normalize", "patch_size", "spacing"):
        assert inference[key] == train[key]
    assert inference["inferer"] == train["validate"]["inferer"]
    labels = ("CheckedLabeld", "RegionChannelsd")
    for transforms in (
        train["train"]["deterministic_transforms"],
        load("evaluate.json")["validate#preprocessing"]["transforms"],
    ):
        text = json.dumps([step for step in transforms if not named(step, *labels)])
        pairs = {'["image", "label"]': '"image"', '["@in_channels", 1]': '"@in_channels"'}
        for of_both, of_image in {**pairs, '["bilinear", "nearest"]': '"bilinear"'}.items():
            text = text.replace(of_both, of_image)
        assert json.loads(text) == inference["preprocessing"]["transforms"]


def named(step: Any, *names: str) -> bool:
    return isinstance(step, dict) and step["_target_"].endswith(names)


PAGES = [ROOT / "docs" / "how-to" / "bundle.md", BUNDLE / "docs" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=["how-to", "README"])
def test_the_commands_of_the_documentation_name_what_exists(page: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines() if "monai.bundle run" in line]
    assert len(commands) >= 3
    for command in commands:
        options = dict(itertools.pairwise(command[command.index("run") + 1 :]))
        settings = {name[2:]: value for name, value in options.items() if name.startswith("--")}
        files = settings.pop("config_file")
        parser = ConfigParser()
        parser.read_config([BUNDLE / file for file in (ast.literal_eval(files) if files[0] == "[" else [files])])
        for name in settings:
            assert name.split("#")[0] in parser, f"{page.name}: {name} is not in {files}"


def test_metadata() -> None:
    metadata = BundleMetadata.model_validate(load("metadata.json"))
    required = metadata.required_packages_version
    assert metadata.version == required["monai-segloss"] == version("monai-segloss")
    for package, wanted in {**required, "torch": metadata.pytorch_version, "numpy": metadata.numpy_version}.items():
        assert Version(version(package)) >= Version(wanted), package
    assert Version(version("monai")) >= Version(metadata.monai_version)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": None}, "task"),
        ({"authors": ["a", "b"]}, "authors"),
        ({"version": "9.9.9"}, "changelog has no entry for version 9.9.9"),
        ({"optional_packages_version": {}}, "now called required_packages_version"),
        ({"network_data_format": {"inputs": {}, "outputs": {}}}, "inputs"),
    ],
)
def test_wrong_metadata_is_refused(change: dict[str, Any], message: str) -> None:
    content = {key: value for key, value in {**load("metadata.json"), **change}.items() if value is not None}
    with pytest.raises(ValidationError, match=message):
        BundleMetadata.model_validate(content)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("bundle"), "labels")


def prior_of(info: LossInfo, folder: Path) -> dict[str, Any]:
    """A network with the features that a loss reads, and an untrained prior for it where the loss wants one."""
    loss = info.cls(**info.example)
    if not loss.brings:
        return {}
    # with two grids above the bottleneck, the second of which is a skip
    deep = {"network_def#channels": [4, 8, 8], "network_def#strides": [2, 2]}
    small = UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=[4, 8, 8], strides=[2, 2], num_res_units=2)
    loss.prepare(network_shape(small, torch.zeros(1, 1, *SMALL["patch_size"]), loss.taps))
    if loss.prior_kind is None:
        return deep
    file = folder / "prior.safetensors"
    save_prior(untrained(loss.prior_kind, loss.shape, False), file)
    return {**deep, "loss_arguments": {"prior": str(file)}}


@pytest.mark.expensive
@pytest.mark.parametrize("info", LOSSES, ids=[info.key for info in LOSSES])
def test_the_bundle_trains_evaluates_and_infers_with_every_loss(info: LossInfo, tmp_path: Path, dataset: Path) -> None:
    loss = {"loss_key": info.key, **prior_of(info, tmp_path)}
    if info.cls(**info.example).whole_cases:
        loss["loss_arguments"] = {"on_patches": True}
    with workflow(tmp_path, dataset, epochs=1, **loss) as flow:
        flow.add_property("loss", True, "loss")
        assert flow.check_properties() == []
        flow.run()
        assert type(flow.loss) is type(flow.trainer.loss_function) is info.cls
        assert math.isfinite(flow.trainer.state.output[0]["loss"])
        trained = {name: value.clone() for name, value in flow.network_def.state_dict().items()}
        flow.finalize()
    saved = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert saved.keys() == {"model"}
    assert all(torch.equal(saved["model"][name], value) for name, value in trained.items())
    with workflow(tmp_path, dataset, "evaluate.json", **loss) as flow:
        flow.run()
    report = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert report["classes"]["val_mean_dice"].keys() == {"ball", "core"}
    network = {name: value for name, value in loss.items() if name.startswith("network_def")}
    flow = inference(tmp_path, dataset, images_dir=str(dataset / "imagesTr"), **network)
    assert flow.check_properties() == []
    flow.run()
    assert len(list((tmp_path / "predictions").iterdir())) == nnunet_data.CASES


def test_an_overlay_serves_a_bundle_with_the_stock_trainer(tmp_path: Path, dataset: Path) -> None:
    """A file of `write_overlays` and the segmentation bundles of the model zoo: key ``loss``, ``SupervisedTrainer``."""
    trainer = {name: value for name, value in load("train.json")["train"]["trainer"].items() if name != "target_keys"}
    stock = {"train#trainer": {**trainer, "_target_": "SupervisedTrainer"}, "train#handlers": [], "epochs": 1}
    write_overlays(tmp_path / "losses")
    with workflow(tmp_path, dataset, tmp_path / "losses" / "tversky.json", **stock) as flow:
        flow.run()
        assert type(flow.trainer) is SupervisedTrainer
        assert type(flow.trainer.loss_function) is monai_segloss.TverskyLoss
        assert math.isfinite(flow.trainer.state.output[0]["loss"])


def test_the_bundle_learns_logs_and_evaluates(tmp_path: Path, dataset: Path) -> None:
    with workflow(tmp_path, dataset, epochs=8, num_samples=4, learning_rate=0.02, cache_rate=1.0) as flow:
        flow.run()
        best = flow.evaluator.state.best_metric
        assert {"loss_dice", "loss_cross_entropy"} <= set(flow.trainer.state.metrics)
    assert best > 0.6
    with workflow(tmp_path, dataset, "evaluate.json") as flow:
        flow.run()
        assert flow.evaluator.state.metrics["val_mean_dice"] == pytest.approx(best)
    table = (tmp_path / "eval" / "val_mean_dice_raw.csv").read_text().splitlines()
    assert table[0] == "filename,class0,class1,mean"
    assert {path.name for path in (tmp_path / "eval").glob("*_raw.csv")} == {
        f"val_{name}_raw.csv" for name in ("mean_dice", "hd95", "surface_dice")
    }
    assert len(table) == 2  # fold 0 of four cases holds out one


def run_cli(*arguments: str) -> tuple[int, str]:
    from monai_segloss.cli import app

    result = CliRunner().invoke(app, ["bundle", *arguments])
    return result.exit_code, result.output


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run_cli("list")
    assert code == 0
    assert all(f"{path.name}  {path}" in text for path in bundles())
    code, text = run_cli("show", "focal_tversky")
    assert code == 0
    assert str(bundle_path() / "configs" / "train.json") in text
    assert "--loss_key focal_tversky" in text
    assert '"_target_": "monai_segloss.FocalTverskyLoss"' in text
    code, text = run_cli("show", "focal_tverski")
    assert code == 2
    assert "focal_tversky" in text
    monkeypatch.chdir(tmp_path)
    assert run_cli("copy", "mine")[0] == 0
    configs = tmp_path / "mine" / "configs"
    assert {p.name for p in configs.iterdir()} == {p.name for p in CONFIGS.iterdir()} | {"losses"}
    assert {p.stem for p in (configs / "losses").iterdir()} == {info.key for info in LOSSES}
    for arguments in (("copy", "mine"), ("copy", "other", "--name", "nothing")):
        assert run_cli(*arguments)[0] == 2


@pytest.mark.parametrize("name", ["evaluate.json", "multi_gpu_train.json"])
def test_a_file_over_the_training_configuration_imports_what_that_does(name: str) -> None:
    """Its list of imports takes the place of that one."""
    configs = bundle_path() / "configs"
    base, over = (json.loads((configs / each).read_text(encoding="utf-8"))["imports"] for each in ("train.json", name))
    assert set(base) <= set(over)
