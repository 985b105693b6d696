"""Bundles in the rest of MONAI, through the real thing: workflows, federated learning, export, verification, nnU-Net."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nnunet_data
import pytest
import torch
from bundle_runs import monai_bundle
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.utils import set_determinism
from nnunet_data import Workspace

import monai_segloss
from monai_segloss import LossConfig
from monai_segloss.bundle import BundleMetadata, bundle_path, make_bundle

pytest_plugins = "nnunet_fixtures"
pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file"),  # MONAI's reminders that a configuration is code
    pytest.mark.filterwarnings("ignore:executing the bundle config"),
]

NETWORK = {"network_def#channels": [4, 8], "network_def#strides": [2]}
SMALL = {"patch_size": [16, 16, 16], "num_samples": 1, **NETWORK}
SHORT = "nnUNetTrainerFocalTversky_1epochs_2iterations"
UNREACHABLE = ("URLError", "HTTPError", "ConnectionError", "timed out", "RemoteDisconnected")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("interfaces"), "labels")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-alone bundle that trains with a distance map."""
    return make_bundle(
        tmp_path_factory.mktemp("made") / "boundary", LossConfig(terms={"dice": {}, "boundary": {"weight": 0.1}})
    )


@contextmanager
def restored() -> Iterator[None]:
    """MONAI's seeds and flags as they were."""
    try:
        yield
    finally:
        set_determinism(None)


@pytest.fixture(scope="module")
def trained(bundle: Path, dataset: Path) -> Path:
    """Its weights after an epoch."""
    with restored():
        flow = workflow(bundle, dataset, "train", "train.json")
        flow.run()
        flow.finalize()
    return bundle / "models" / "model.pt"


def workflow(bundle: Path, dataset: Path, kind: str, *configs: str, **settings: Any) -> Any:
    return create_workflow(
        workflow_name="ConfigWorkflow",
        workflow_type=kind,
        config_file=[str(bundle / "configs" / name) for name in configs],
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(dataset),
        **({"epochs": 1, **SMALL} if "train.json" in configs else {"patch_size": [16, 16, 16], **NETWORK}),
        **settings,
    )


def test_create_workflow_for_training_evaluation_and_inference(bundle: Path, trained: Path, dataset: Path) -> None:
    with restored():
        flow = workflow(bundle, dataset, "train", "train.json")
        assert flow.check_properties() == []
        assert isinstance(flow.trainer.loss_function, monai_segloss.WeightedSum)
        assert flow.max_epochs == 1
        assert len(flow.train_dataset) == 3
    with restored():
        flow = workflow(bundle, dataset, "train", "train.json", "evaluate.json")
        flow.run()
        assert 0 <= flow.evaluator.state.metrics["val_mean_dice"] <= 1
    with restored():
        flow = workflow(bundle, dataset, "infer", "inference.json", images_dir=str(dataset / "imagesTr"))
        assert flow.check_properties() == []
        flow.run()
    assert len(list((bundle / "predictions").glob("*.nii.gz"))) == nnunet_data.CASES


def test_a_client_of_federated_learning(bundle: Path, dataset: Path) -> None:
    """Two rounds of MONAI's client: weights in, weights out, evaluated; the epochs go on counting for the schedules."""
    from monai.fl.client import MonaiAlgo
    from monai.fl.utils.constants import ExtraItems, WeightType
    from monai.fl.utils.exchange_object import ExchangeObject

    settings = {"dataset_dir": str(dataset), **SMALL}
    client = MonaiAlgo(str(bundle), train_kwargs=dict(settings), eval_kwargs=dict(settings), send_weight_diff=True)
    with restored():
        client.initialize({ExtraItems.CLIENT_NAME: "site_1"})
        assert isinstance(client.trainer.loss_function, monai_segloss.WeightedSum)
        weights = {name: value.clone() for name, value in client.trainer.network.state_dict().items()}
        for count in (1, 2):
            client.train(ExchangeObject(weights=weights))
            sent = client.get_weights()
            assert sent.weight_type == WeightType.WEIGHT_DIFF
            assert any(bool(change.abs().max() > 0) for change in sent.weights.values())
            assert client.trainer.state.epoch == count
            assert {"loss_dice", "loss_boundary"} <= set(client.trainer.state.metrics)
            weights = {name: value + sent.weights.get(name, 0) for name, value in weights.items()}
            metrics = client.evaluate(ExchangeObject(weights=weights)).metrics
            assert math.isfinite(metrics["val_mean_dice"])
        for name, value in client.evaluator.network.state_dict().items():
            torch.testing.assert_close(value, weights[name])
        client.finalize()


def of_inference(bundle: Path, dataset: Path) -> dict[str, Any]:
    return {
        "meta_file": bundle / "configs" / "metadata.json",
        "config_file": bundle / "configs" / "inference.json",
        "dataset_dir": dataset,
        **NETWORK,
    }


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*torch.jit.load.* is deprecated")
def test_an_exported_network_gives_the_same_output(bundle: Path, trained: Path, dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.ts"
    about = {"filepath": file, "ckpt_file": trained, "key_in_ckpt": "model", **of_inference(bundle, dataset)}
    done = monai_bundle("ckpt_export", "network_def", **about, folder=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    extra = {"metadata.json": ""}
    exported = torch.jit.load(file, _extra_files=extra)
    assert BundleMetadata.model_validate(json.loads(extra["metadata.json"])).version == monai_segloss.__version__
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({"dataset_dir": str(dataset), **NETWORK})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(trained, weights_only=True)["model"])
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(exported(image), network(image))


@pytest.mark.real
def test_metadata_tells_inputs_and_outputs_of_the_network(bundle: Path, dataset: Path, tmp_path: Path) -> None:
    about = {**of_inference(bundle, dataset), "device": "cpu", "n": 2}
    done = monai_bundle("verify_net_in_out", "network_def", **about, folder=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "data shape of network is verified with no error" in done.stdout
    wrong = monai_bundle("verify_net_in_out", "network_def", num_classes=4, **about, folder=tmp_path)
    assert wrong.returncode != 0
    assert "output channel number `4` doesn't match: `3`" in wrong.stdout


BUNDLES = {"package": bundle_path(), "made": None}


@pytest.mark.real
@pytest.mark.parametrize("which", BUNDLES)
def test_metadata_by_the_command_and_the_schema_of_monai(which: str, bundle: Path, tmp_path: Path) -> None:
    file = (BUNDLES[which] or bundle) / "configs" / "metadata.json"
    done = monai_bundle("verify_metadata", meta_file=file, filepath=tmp_path / "schema.json", folder=tmp_path)
    if done.returncode != 0 and any(word in done.stdout for word in UNREACHABLE):
        pytest.skip(f"the schema cannot be had here: {done.stdout.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "metadata is verified with no error" in done.stdout


@pytest.mark.real
def test_metadata_by_the_command_without_the_network(bundle: Path, tmp_path: Path) -> None:
    """Against the schema of our own model, which the command takes where it lies already."""
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(BundleMetadata.model_json_schema()))
    file = bundle / "configs" / "metadata.json"
    done = monai_bundle("verify_metadata", meta_file=file, filepath=schema, folder=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    content = json.loads(file.read_text())
    del content["task"]
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    wrong = monai_bundle("verify_metadata", meta_file=tmp_path / "metadata.json", filepath=schema, folder=tmp_path)
    assert wrong.returncode != 0
    assert "'task' is a required property" in wrong.stdout


def runner(space: Workspace, trainer: str) -> Any:
    from monai.apps.nnunet import nnUNetV2Runner

    folders = {f"nnunet_{name}": str(space.root / name) for name in ("raw", "preprocessed", "results")}
    return nnUNetV2Runner(
        {**folders, "dataset_name_or_id": 1},
        trainer_class_name=trainer,
        work_dir=str(space.root),
        export_validation_probabilities=False,
    )


def test_nnunet_runner_builds_the_command_with_our_trainer(space: Workspace) -> None:
    line, env = runner(space, SHORT).train_single_model_command("tiny", 0, 0, {"p": "nnUNetPlans"})
    assert line[:6] == ["nnUNetv2_train", "1", "tiny", "0", "-tr", SHORT]
    assert line[-2:] == ["-p", "nnUNetPlans"]
    assert env["nnUNet_extTrainer"] == space.variables["nnUNet_extTrainer"]


def test_nnunet_trainer_of_monai_is_ours(space: Workspace) -> None:
    from monai.apps.nnunet import get_nnunet_trainer

    trainer = get_nnunet_trainer(1, "tiny", 0, trainer_class_name=SHORT, device="cpu")
    try:
        assert type(trainer).__name__ == SHORT
        assert any(isinstance(module, monai_segloss.FocalTverskyLoss) for module in trainer.loss.modules())
    finally:
        trainer.on_train_end()


@pytest.mark.real
def test_the_command_of_the_runner_trains(space: Workspace) -> None:
    """On a CPU by hand: the runner spells ``--device``, which nnU-Net does not know."""
    line, _ = runner(space, SHORT).train_single_model_command("tiny", 0, 0, {"device": "cpu"})
    assert "unrecognized arguments: --device cpu" in space.run(*line, fails=True)
    line, _ = runner(space, SHORT).train_single_model_command("tiny", 0, 0, {})
    space.run(*line, "-device", "cpu")
    assert (space.model(SHORT) / "fold_0" / "checkpoint_final.pth").is_file()


def test_the_workflow_class_itself(bundle: Path, dataset: Path) -> None:
    """As applications use it that add a property of their own."""
    settings = {"bundle_root": str(bundle), "dataset_dir": str(dataset), **SMALL}
    flow = ConfigWorkflow(str(bundle / "configs" / "train.json"), logging_file=False, workflow_type="train", **settings)
    flow.add_property("loss", True, "loss")
    with restored():
        flow.initialize()
        assert isinstance(flow.loss, monai_segloss.WeightedSum)
