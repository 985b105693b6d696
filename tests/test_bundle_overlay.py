"""Our losses in a bundle that somebody else wrote: one generic overlay, fitted to its ids and to how its loss reads."""

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
import zoo_bundle
from bundle_runs import monai_bundle
from monai.bundle import create_workflow
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism

import monai_segloss
from monai_segloss import LossConfig
from monai_segloss.bundle import generic_overlay
from monai_segloss.bundle.foreign import find_loss
from monai_segloss.core.registry import LossInfo
from monai_segloss.engine import SegLossTrainer
from monai_segloss.files import write_json

LOSSES = monai_segloss.list_losses()
SUM = LossConfig(
    terms={"dice": 1, "boundary": {"schedule": "linear", "start": 0, "end": 0.5, "epochs": 1}}  # type: ignore[dict-item]
)
READS_MAPS = {
    "_target_": "monai_segloss.transforms.SignedDistanceMapd",
    "keys": "label",
    "num_classes": 3,
}

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's reminder that a configuration is code


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("zoo"), "labels")


@contextmanager
def workflow(bundle: Path, dataset: Path, content: dict[str, Any], **settings: Any) -> Iterator[Any]:
    """The bundle's training with an overlay file outside of its folder."""
    file = bundle.parent / "overlay.json"
    write_json(file, content)
    try:
        yield create_workflow(
            workflow_name="ConfigWorkflow",
            workflow_type="train",
            config_file=[str(bundle / "configs" / "train.json"), str(file)],
            logging_file=False,
            bundle_root=str(bundle),
            dataset_dir=str(dataset),
            **settings,
        )
    finally:
        set_determinism(None)


@pytest.mark.parametrize("info", LOSSES, ids=[info.key for info in LOSSES])
def test_every_loss_that_reads_labels_trains_in_a_bundle_of_the_zoo(
    info: LossInfo, tmp_path: Path, dataset: Path
) -> None:
    bundle = zoo_bundle.write(tmp_path / "zoo")
    config = LossConfig(loss=info.key)
    if "labels" not in info.support:
        with pytest.raises(ValueError, match=f"{info.key} does not support labels, and the bundle reads"):
            generic_overlay(config, bundle)
        return
    if info.brings:
        with pytest.raises(ValueError, match=f"{info.key}: an overlay cannot prepare a loss that takes features"):
            generic_overlay(config, bundle)
        return
    found = generic_overlay(config, bundle)
    assert all("is not carried over" in note or note.startswith("no Spacingd") for note in found.notes)
    assert found.content == {**generic_overlay(config).content, "loss": found.content["loss"]}
    with workflow(bundle, dataset, found.content, epochs=1) as flow:
        flow.run()
        assert flow.check_properties() == []
        assert type(flow.trainer) is SegLossTrainer
        assert type(flow.trainer.loss_function) is info.cls
        assert math.isfinite(flow.trainer.state.output[0]["loss"])
    assert (bundle / "models" / "model.pt").is_file()


def test_a_sum_with_a_schedule_and_a_map_from_the_loader(tmp_path: Path, dataset: Path) -> None:
    bundle = zoo_bundle.write(tmp_path / "zoo")
    found = generic_overlay(SUM, bundle)
    found.content["+train#random_transforms"] = [READS_MAPS]
    with workflow(bundle, dataset, found.content) as flow:
        seen: list[Any] = []
        forward = flow.trainer.loss_function.forward
        flow.trainer.loss_function.forward = lambda input, target: seen.append(target) or forward(input, target)
        flow.run()
        assert all(sorted(target) == ["label", "sdm"] for target in seen)
        assert flow.trainer.loss_function.epoch == 1
        assert {"loss_dice", "loss_boundary"} <= set(flow.trainer.state.metrics)
        assert flow.trainer.state.metrics["train_dice"] > 0  # from the plain label, one-hot


def test_it_is_the_loss_that_the_bundle_trains_with(tmp_path: Path, dataset: Path) -> None:
    """Our dice_ce moves the weights as MONAI's does: its arguments are carried over, and their defaults."""
    bundle = zoo_bundle.write(tmp_path / "zoo")
    same = LossConfig(loss="dice_ce")
    plain = {"optimizer#_target_": "torch.optim.SGD"}  # Adam makes a step of rounding in a gradient of 0
    weights = []
    for content in ({"epochs": 1}, generic_overlay(same, bundle).content):
        with workflow(bundle, dataset, content, epochs=1, **plain) as flow:
            flow.run()
            weights.append([p.detach().clone() for p in flow.trainer.network.parameters()])
            assert isinstance(flow.trainer, SupervisedTrainer)
    for theirs, ours in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def overlay_of(tmp_path: Path, config: LossConfig | None = None, **changes: Any) -> Any:
    """Overlay of a bundle with changes, merged as MONAI merges it to see that its keys exist."""
    return generic_overlay(config or LossConfig(loss="dice"), zoo_bundle.write(tmp_path / "zoo", **changes))


def test_regions_stay_regions(tmp_path: Path) -> None:
    regions = {"_target_": "DiceLoss", "smooth_nr": 0, "squared_pred": True, "to_onehot_y": False, "sigmoid": True}
    loss = overlay_of(tmp_path, loss=regions).content["loss"]
    assert loss == {
        "_target_": "monai_segloss.DiceLoss",
        "sigmoid": True,
        "include_background": True,
        "smooth_nr": 0,
        "squared_pred": True,
    }
    with pytest.raises(
        ValueError, match="seesaw does not support regions, and the bundle reads its network by sigmoid"
    ):
        generic_overlay(LossConfig(loss="seesaw"), tmp_path / "zoo")


def test_what_the_loss_of_the_bundle_scores_is_kept(tmp_path: Path) -> None:
    with_background = {
        "_target_": "monai.losses.DiceLoss",
        "softmax": True,
        "to_onehot_y": True,
        "include_background": True,
    }
    found = overlay_of(tmp_path, SUM, loss=with_background)
    assert all(term["include_background"] is True for term in found.content["loss"]["terms"].values())
    chosen = generic_overlay(LossConfig(loss="dice", arguments={"include_background": False}), tmp_path / "zoo")
    assert chosen.content["loss"]["include_background"] is False


def test_a_loss_that_does_not_say_how_it_reads_is_noted(tmp_path: Path) -> None:
    found = overlay_of(tmp_path, loss={"_target_": "scripts.losses.MyLoss"})
    assert found.content["loss"]["softmax"] is True
    assert found.notes == [
        "the loss at 'loss' is none of MONAI's or PyTorch's and does not say how it reads; softmax over one label per "
        "voxel is assumed: say --labels or --regions."
    ]
    said = generic_overlay(LossConfig(loss="dice"), tmp_path / "zoo", "regions")
    assert said.notes == []
    assert said.content["loss"]["sigmoid"] is True
    assert "to_onehot_y" not in said.content["loss"]


def test_a_bundle_with_flat_ids(tmp_path: Path, dataset: Path) -> None:
    """The shape of MONAI's templates: ``lossfn``, and no sections."""
    config = zoo_bundle.train()
    config["train"]["trainer"]["loss_function"] = "@lossfn"
    config["lossfn"] = config.pop("loss")
    bundle = zoo_bundle.write(tmp_path / "zoo")
    (bundle / "configs" / "train.json").write_text(json.dumps(config))
    found = generic_overlay(LossConfig(loss="boundary"), bundle)
    assert set(found.content) == {"lossfn", "train#trainer#_target_"}
    assert "the loss of train.json is the key 'lossfn', not 'loss'; the overlay replaces it there." in found.notes
    with workflow(bundle, dataset, found.content, epochs=1) as flow:
        flow.run()
        assert type(flow.trainer.loss_function) is monai_segloss.BoundaryLoss


@pytest.mark.parametrize(
    ("trainer", "where"),
    [
        (
            {"_target_": "SupervisedTrainer", "loss_function": {"_target_": "DiceLoss", "softmax": True}},
            "my_trainer#loss_function",
        ),
        (
            {"_target_": "SupervisedTrainer", "loss_function": "$monai.losses.DiceLoss(softmax=True)"},
            "my_trainer#loss_function",
        ),
        ({"_target_": "SupervisedTrainer", "loss_function": "@parts::criterion"}, "parts#criterion"),
        ({"_target_": "SupervisedTrainer", "loss_function": "@alias"}, "parts#criterion"),
        ({"_target_": "SupervisedTrainer", "loss_function": "$@parts::loss.to(@parts#device)"}, "parts#loss"),
    ],
)
def test_the_loss_is_found_where_the_trainer_has_it(trainer: dict[str, Any], where: str) -> None:
    parts = {name: {"_target_": "DiceLoss"} for name in ("criterion", "loss", "device")}
    place = find_loss({"my_trainer": trainer, "alias": "@parts#criterion", "parts": parts}, "train.json")
    assert (place.trainer, place.loss) == ("my_trainer", where)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"loss": None},
            "'train#trainer#loss_function' refers to the key 'loss', which is missing; expected a loss there",
        ),
        ({"train": {}}, "no component has the key 'loss_function'; expected it at 'train#trainer'"),
        ({"loss": "@other", "other": "@loss"}, "'other' refers to the key 'loss', in a circle"),
        ({"loss": {"_target_": "DeepSupervisionLoss", "loss": {}, "weight_mode": "two"}}, "loss#weight_mode is 'two'"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = {**zoo_bundle.train(), **change}
    bundle = zoo_bundle.write(tmp_path / "zoo")
    plain = {key: value for key, value in config.items() if value is not None}
    (bundle / "configs" / "train.json").write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=message):
        generic_overlay(LossConfig(loss="dice"), bundle)


def test_several_trainers() -> None:
    trainer = {"_target_": "SupervisedTrainer", "loss_function": "@loss"}
    with pytest.raises(ValueError, match="several trainers, a, b; expected one, or one at 'train#trainer'"):
        find_loss({"a": trainer, "b": trainer, "loss": {}}, "train.json")
    assert find_loss({"a": trainer, "train": {"trainer": trainer}, "loss": {}}, "x").trainer == "train#trainer"


def test_a_bundle_without_a_training_configuration(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no configs/train\.json, \.yaml or \.yml"):
        generic_overlay(LossConfig(loss="dice"), tmp_path)


def test_a_trainer_of_another_class_stays(tmp_path: Path) -> None:
    config = zoo_bundle.train()
    config["train"]["trainer"]["_target_"] = "scripts.trainer.MyTrainer"
    found = overlay_of(tmp_path, LossConfig(loss="boundary"), train=config["train"])
    assert set(found.content) == {"loss"}
    assert "train#trainer#_target_ is 'scripts.trainer.MyTrainer', not SupervisedTrainer, and stays" in found.notes[-1]
    for scheduled in (SUM, LossConfig(loss="dice_boundary")):
        with pytest.raises(ValueError, match="expected SupervisedTrainer: scheduled weights need a trainer that tells"):
            generic_overlay(scheduled, tmp_path / "zoo")


def test_deep_supervision_is_kept(tmp_path: Path) -> None:
    inner = {"_target_": "DiceCELoss", "softmax": True, "to_onehot_y": True}
    wrapper = {"_target_": "DeepSupervisionLoss", "loss": "@inner", "weights": [1, 0.5]}
    found = overlay_of(tmp_path, loss=wrapper, inner=inner)
    assert found.content["loss"]["_target_"] == "monai_segloss.engine.DeepSupervision"
    assert found.content["loss"]["weights"] == [1, 0.5]
    assert found.content["loss"]["loss"]["softmax"] is True


def test_a_bundle_in_yaml(tmp_path: Path, dataset: Path) -> None:
    import yaml

    bundle = zoo_bundle.write(tmp_path / "zoo")
    (bundle / "configs" / "train.json").rename(tmp_path / "train.json")
    (bundle / "configs" / "train.yaml").write_text(yaml.safe_dump(zoo_bundle.train()))
    assert set(generic_overlay(SUM, bundle).content) == {"loss", "train#trainer#_target_"}
    assert generic_overlay(SUM, bundle / "configs" / "train.yaml").content == generic_overlay(SUM, bundle).content


@pytest.mark.real
def test_two_processes_with_the_customary_slice_of_handlers(tmp_path: Path, dataset: Path) -> None:
    """Ranks above 0 lose the last two handlers; map, epoch and plain label arrive on both."""
    bundle = zoo_bundle.write(tmp_path / "zoo")
    found = generic_overlay(SUM, bundle)
    found.content["+train#random_transforms"] = [READS_MAPS]
    reports = str(tmp_path / "rank")  # two processes that print at once cut each other's lines
    found.content["run"] = [
        "$@train#trainer.run()",
        f"$open({reports!r} + str(dist.get_rank()), 'w').write(str((@loss.epoch, sorted(@loss.last))))",
    ]
    write_json(tmp_path / "overlay.json", found.content)
    configs = [str(bundle / "configs" / name) for name in ("train.json", "multi_gpu_train.json")]
    files = {"config_file": [*configs, str(tmp_path / "overlay.json")], "bundle_root": bundle, "dataset_dir": dataset}
    done = monai_bundle("run", folder=tmp_path, processes=2, **files)
    assert done.returncode == 0, done.stdout[-4000:]
    for rank in (0, 1):
        assert Path(f"{reports}{rank}").read_text() == "(1, ['boundary', 'dice'])", done.stdout[-4000:]
    assert (bundle / "models" / "model.pt").is_file()
