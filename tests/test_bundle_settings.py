"""Wrong settings of the bundle: one sentence that names the key and what was expected."""

from __future__ import annotations

import json
import shutil
import threading
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import nnunet_data
import pytest
import torch
from bundle_runs import CONFIGS, inference, monai_bundle, workflow
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.networks.nets import UNet
from monai.transforms import Compose, RandFlipd, RandSpatialCropd, RandZoomd, SpatialPadd

import monai_segloss
from monai_segloss import datalist, engine
from monai_segloss.bundle.keys import STATEMENTS, unused
from monai_segloss.bundle.settings import (
    SETTINGS,
    SettingError,
    _explain,
    check_keys,
    check_measured,
    check_network,
    check_settings,
    check_whole_cases,
)
from monai_segloss.checking.bounds import bounds_of_fold
from monai_segloss.engine import DataError
from monai_segloss.prior.adjacency import Adjacency, Contact, write_adjacency

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("settings"), "labels", cases=2)


def causes(error: BaseException | None) -> str:
    """Every sentence of a chain of errors."""
    return "" if error is None else f"{error}\n{causes(error.__cause__)}"


OWN_LOSS = {"_target_": "monai_segloss.DiceLoss", "softmax": True, "to_onehot_y": True}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"epochs": "ten"}, "epochs must be a whole number from 1, got 'ten'"),
    ({"epochs": 0}, "epochs must be a whole number from 1, got 0"),
    ({"batch_size": 1.5}, "batch_size must be a whole number from 1, got 1.5"),
    ({"learning_rate": "fast"}, "learning_rate must be a number above 0, got 'fast'"),
    ({"resume": "yes"}, "resume must be True or False, got 'yes'"),
    ({"fold": 7}, "fold must be 'all' or 0 to 1 for 2 cases, got 7"),
    ({"fold": "first"}, "fold must be 'all' or a whole number from 0, got 'first'"),
    ({"patch_size": 32}, "patch_size must be a list of 3 whole numbers from 1, as [96, 96, 96], got 32"),
    (
        {"patch_size": [16, 16, 15]},
        "makes (1, 3, 16, 16, 16) of a patch of patch_size [16, 16, 15]; expected (1, 3, 16, 16, 15)",
    ),
    ({"patch_size": [16, 16]}, "patch_size must be a list of 3 whole numbers from 1, as [96, 96, 96], got [16, 16]"),
    (
        {"spacing": [1.5, 1.5]},
        "spacing must be None or a list of 3 numbers above 0 in mm, as [1.5, 1.5, 2.0], got [1.5, 1.5]",
    ),
    ({"spacing": [1.0, 0.0, 1.0]}, "spacing must be None or a list of 3 numbers above 0 in mm"),
    ({"early_stop_patience": 0}, "early_stop_patience must be a whole number from 1, or None, got 0"),
    ({"precompute_maps": "gpu"}, "precompute_maps must be 'on_cpu', 'all' or 'none', got 'gpu'"),
    ({"dataset_dir": "nowhere"}, "dataset_dir must be a folder with a dataset.json (nnU-Net raw or Decathlon)"),
    ({"network_def#out_channels": 5}, "network_def makes (1, 5, 16, 16, 16) of a patch of patch_size [16, 16, 16]"),
    ({"epoch": 10}, "nothing uses the key 'epoch'; did you mean 'epochs'?"),
    (
        {"mine": {"_target_": "monai_segloss.DiceLoss"}},
        "nothing uses the key 'mine'; a key of your own must be referred",
    ),
    (
        {"train#random_transform": []},
        "nothing uses the key 'train#random_transform'; did you mean 'train#random_transforms'",
    ),
    ({"loss#alfa": 0.5}, "DiceCELoss() got an unexpected argument 'alfa'"),
    ({"loss#lambda_dice": -1}, "lambda_dice"),
    ({"loss_key": "focal_tverski"}, "no loss is called 'focal_tverski'; did you mean 'focal_tversky'"),
    ({"loss_key": 3}, "loss_key must be the key of a loss (segloss list), got 3"),
    ({"loss_arguments": {"alfa": 0.5}}, "DiceCELoss() got an unexpected argument 'alfa'"),
    ({"loss_arguments": "alpha=0.5"}, "loss_arguments must be a mapping such as {'alpha': 0.3}, got 'alpha=0.5'"),
    ({"loss_key": "focal", "loss": OWN_LOSS}, "loss_key is 'focal', and the key 'loss' does not read it"),
    ({"loss_arguments": {"batch": True}, "loss": OWN_LOSS}, "loss_arguments is {'batch': True}, and the key 'loss'"),
    ({"loss_key": "focal_tverski", "dataset_dir": "nowhere"}, "no loss is called 'focal_tverski'"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG, ids=[next(iter(settings)) for settings, _ in WRONG])
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str, tmp_path: Path, dataset: Path) -> None:
    settings = dict(settings)
    data = Path(settings.pop("dataset_dir", dataset))
    with pytest.raises(RuntimeError) as error, workflow(tmp_path, data, **settings) as flow:
        flow.run()
    assert message in causes(error.value)
    assert not (tmp_path / "models").exists()


OWN: list[dict[str, Any]] = [
    {"rate": 0.5, "learning_rate": "@rate"},
    {"mine": {"rates": {"high": 0.5}}, "learning_rate": "@mine#rates#high"},
    {"chain": [{"_target_": "Identityd", "keys": "image"}], "train#map_transforms": "%chain"},
    {"train#preprocessing": {"_target_": "Identity"}},  # so that nothing uses its parts
    {"os": "$import os", "_comment": "to be compared", "train#key_metric": None},
    {"images_dir": "of inference.json, and no harm here"},
    {"run_name": "set by MONAI's client of federated learning"},
    {"finish": ["$print('done')"], "final_id": "finish"},
]


@pytest.mark.parametrize("settings", OWN, ids=lambda settings: next(iter(settings)))
def test_a_key_that_is_used_is_no_mistake(settings: dict[str, Any], tmp_path: Path, dataset: Path) -> None:
    with workflow(tmp_path, dataset, **settings) as flow:
        assert flow._is_initialized


@pytest.mark.parametrize("tracking", [None, "mlflow"])
@pytest.mark.parametrize("overlay", [None, "evaluate.json", "multi_gpu_train.json"])
def test_the_configurations_use_every_key_of_theirs(overlay: str | None, tracking: str | None, tmp_path: Path) -> None:
    files = [str(CONFIGS / name) for name in ("train.json", overlay) if name]
    flow = ConfigWorkflow(files, logging_file=False, tracking=tracking, bundle_root=str(tmp_path))
    flow.parser.parse()
    config = flow.parser.get()
    assert "$bundle_settings.check_keys()" in config["initialize"]
    without_use = ["train#trainer"] if overlay == "evaluate.json" else []
    assert unused(config, STATEMENTS) == without_use
    assert unused({**config, "epoch": 10}, STATEMENTS) == [*without_use, "epoch"]


def test_inference_refuses_a_key_that_nothing_uses(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        inference(tmp_path, dataset, image_dir="images")
    assert "nothing uses the key 'image_dir'; did you mean 'images_dir'" in causes(error.value)


def test_keys_are_checked_in_a_workflow_alone() -> None:
    check_keys()
    imports = ["$import monai_segloss.bundle.settings as settings"]
    parser = ConfigParser({"imports": imports, "x": 1, "y": "$settings.check_keys()"})
    assert parser.get_parsed_content("y") is None


@pytest.mark.parametrize("name", engine.MOVED)
def test_configurations_of_before_find_what_has_moved(name: str) -> None:
    calls = {"check_settings": "({})", "check_network": ".__name__", "SettingError": ".__name__"}
    parser = ConfigParser(
        {"imports": ["$import monai_segloss.engine as engine"], "y": f"$engine.{name}{calls.get(name, '()')}"}
    )
    with pytest.warns(
        DeprecationWarning, match=rf"engine\.{name} is now called monai_segloss\.bundle\.settings\.{name}"
    ):
        parser.get_parsed_content("y")


def test_inference_without_weights_says_so(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        inference(tmp_path, dataset)
    assert "ckpt_path must be a file of weights, made by training" in causes(error.value)


def test_every_key_is_checked_and_every_default_is_fine() -> None:
    config, predicts = (json.loads((CONFIGS / name).read_text()) for name in ("train.json", "inference.json"))
    assert set(config["settings"]) | set(predicts["settings"]) == set(SETTINGS)
    check_settings({key: config[key] for key in config["settings"] if key != "amp"})
    for key in set(SETTINGS) - {"seed", "early_stop_patience", "prior_steps", "spacing"}:
        with pytest.raises(SettingError, match=f"{key} must be .*, got None"):
            check_settings({key: None})
    for key in SETTINGS:
        with pytest.raises(SettingError, match=f"{key} must be .*, got {{}}"):
            check_settings({key: {}})
    check_settings({"something_else": object()})


def test_a_network_is_asked_without_work() -> None:
    network = UNet(spatial_dims=3, in_channels=2, out_channels=3, channels=(4, 8, 16), strides=(2, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    check_network(network, 2, 3, (512, 512, 512))  # 1.6 GB of logits, if they were made
    assert all(value.equal(before[name]) and value.device.type == "cpu" for name, value in network.state_dict().items())
    assert network.training
    with pytest.raises(SettingError, match=r"patch_size \[8, 8, 8\] with 1 channels does not go through network_def"):
        check_network(network, 1, 3, (8, 8, 8))


def test_an_error_waits_for_the_threads_that_still_load(capsys: pytest.CaptureFixture[str]) -> None:
    """Python that ends under a thread inside of torch or ITK aborts the process, and its exit status with it."""
    begun, done = threading.Event(), []

    def read(case: int) -> None:
        if case == 0:
            begun.wait()
            raise DataError("case 0 holds nothing.")
        begun.set()
        time.sleep(0.5)
        done.append(case)

    with pytest.raises(DataError) as error, ThreadPool(2) as pool:
        list(pool.imap(read, range(2)))
    assert not done
    _explain(DataError, error.value, None)
    assert done == [1]
    assert capsys.readouterr().err == "\nThe data are wrong: case 0 holds nothing.\n"


@pytest.mark.real
@pytest.mark.parametrize(
    ("option", "last"),
    [
        (("--epochs", "ten"), "The configuration is wrong: epochs must be a whole number from 1, got 'ten'."),
        (("--epoch", "10"), "The configuration is wrong: nothing uses the key 'epoch'; did you mean 'epochs'?"),
        pytest.param(
            ("--loss#alfa", "1"),
            "The configuration is wrong while making the key 'loss': DiceCELoss() got an unexpected",
            marks=pytest.mark.nightly,
        ),
        (("--network_def#strides", "[2,2]"), "The configuration is wrong while making the key 'network_def'"),
        pytest.param(
            ("--lr_scheduler#optimizer", "@optimiser"),
            "The configuration is wrong while making the key 'lr_scheduler': the",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            ("--patch_size", "[16,16,20]"),
            "The configuration is wrong: patch_size [16, 16, 20] with 1 channels does not go",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_the_command_ends_with_one_sentence(option: tuple[str, str], last: str, tmp_path: Path, dataset: Path) -> None:
    done = monai_bundle("run", *option, config_file=CONFIGS / "train.json", bundle_root=tmp_path, dataset_dir=dataset)
    assert done.returncode == 1
    assert done.stdout.strip().splitlines()[-1].startswith(last), done.stdout[-2000:]
    assert "Traceback" not in done.stdout


class Cases:
    """Training cases of a bundle: a label of these sizes, and the transforms of the bundle after it is loaded."""

    def __init__(self, *sizes: int) -> None:
        self.items = [{"label": torch.zeros(1, n, n + 2, n)} for n in sizes]

    def check(self, loss: Any, *random: Any, patch: int = 16) -> None:
        pad = SpatialPadd("label", patch)
        crop = RandSpatialCropd("label", patch, random_size=False)
        check_whole_cases(loss, self.items, Compose([pad, Compose([*random]), crop]), [patch] * 3)


def test_patches_that_are_smaller_than_the_cases_are_refused_for_a_loss_about_whole_cases() -> None:
    sizes, centroids = (
        monai_segloss.SizePenaltyLoss(bounds=[1, 2]),
        monai_segloss.MomentConstraintLoss(bounds=[1, 2]),
    )
    cases = Cases(10, 18, 12)
    with pytest.raises(
        SettingError, match=r"16 x 16 x 16 voxels .* 18 x 20 x 18: set patch_size to at least \[18, 20, 18\]"
    ):
        cases.check(engine.DeepSupervision(sizes))
    cases.check(sizes, patch=20)
    cases.check(monai_segloss.SizePenaltyLoss())
    cases.check(monai_segloss.SizePenaltyLoss(bounds=[1, 2], on_patches=True))
    flip, zoom = RandFlipd("label"), RandZoomd("label")
    cases.check(sizes, flip, patch=20)
    for loss, transform in ((centroids, flip), (sizes, zoom)):
        with pytest.raises(
            SettingError, match=f"about whole cases as they lie, and {type(transform).__name__} changes"
        ):
            cases.check(loss, transform, patch=20)


def test_the_bundle_refuses_before_it_trains(tmp_path: Path, dataset: Path) -> None:
    loss = {"loss_key": "size_penalty", "loss_arguments": {"bounds": [100, 2000]}}
    with pytest.raises(RuntimeError) as caught, workflow(tmp_path, dataset, fold="all", **loss) as flow:
        flow.initialize()
    assert "SizePenaltyLoss is about whole cases, and patches of 16 x 16 x 16 voxels" in causes(caught.value)
    assert not (tmp_path / "models").exists()


def measured(file: Path, *cases: str) -> str:
    """A file of bounds that names cases."""
    pairs = {"size_mm": {"bounds": [1, 2]}, "betti": {"bounds": [[1, 1], [0, 0], [0, 0]]}}
    content = {"format": "segloss bounds", "cases": cases, "classes": {"ball": pairs, "core": pairs}}
    file.write_text(json.dumps(content))
    return str(file)


def split(dataset: Path) -> tuple[str, str]:
    """The training case and the validation case of fold 0."""
    known = datalist.read(dataset)
    (training,), (validation,) = known.named(known.train_items(0)), known.named(known.val_items(0))
    return training, validation


@pytest.mark.parametrize(("key", "argument"), [("size_penalty", "bounds"), ("betti_prior", "betti")])
def test_bounds_that_saw_a_validation_case_are_refused(key: str, argument: str, tmp_path: Path, dataset: Path) -> None:
    training, validation = split(dataset)
    known = datalist.read(dataset)

    def check(fold: int | str, *cases: str) -> None:
        file = measured(tmp_path / "bounds.json", *cases)
        check_measured(monai_segloss.WeightedSum({"dice": 1, key: {"weight": 1, argument: file}}), known, fold)

    said = (
        f"{argument}: its file is from {validation}, which fold 0 validates; make one with `segloss prior bounds DATASET "
        "--fold 0 --axes xyz`."
    )
    with pytest.raises(SettingError) as caught:
        check(0, training, validation)
    assert str(caught.value) == said
    check(0, training)
    check(0, "of_another_data_set")
    check(0)
    check("all", training, validation)
    check_measured(monai_segloss.create(key, **{argument: None} if key == "size_penalty" else {}), known, 0)
    check_measured(torch.nn.functional.cross_entropy, known, 0)


def test_rules_that_saw_a_validation_case_are_refused(tmp_path: Path, dataset: Path) -> None:
    training, validation = split(dataset)
    for cases, refused in (((training,), False), ((training, validation), True)):
        found = Adjacency(1, 3, ("background", "ball", "core"), cases, (9, 4, 3), (Contact((0, 1), 5, 1),))
        write_adjacency(found, tmp_path / "rules.json")
        loss = engine.DeepSupervision(monai_segloss.NonAdjacencyLoss(forbidden=str(tmp_path / "rules.json")))
        if refused:
            message = f"forbidden: its file is from {validation}, which .* `segloss prior adjacency DATASET --fold 0`"
            with pytest.raises(SettingError, match=message):
                check_measured(loss, datalist.read(dataset), 0)
        else:
            check_measured(loss, datalist.read(dataset), 0)


def test_a_file_names_cases_as_nnunet_or_by_their_files(tmp_path: Path, dataset: Path) -> None:
    """Of a data set that lists its files, whose names are not those of the cases; shared names say nothing."""
    raw = shutil.copytree(dataset, tmp_path / "raw")
    listed = {}
    for number, name in enumerate(("Anna", "Bert")):
        (raw / name).mkdir()
        image = shutil.move(raw / "imagesTr" / f"case_{number:02}_0000.nii.gz", raw / name / "ct.nii.gz")
        label = shutil.move(raw / "labelsTr" / f"case_{number:02}.nii.gz", raw / name / f"{name.lower()}_seg.nii.gz")
        listed[name] = {"images": [str(image)], "label": str(label)}
    about = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**about, "dataset": listed}))
    known = datalist.read(raw)
    (held_out,) = known.named(known.val_items(0))
    (kept,) = {"Anna", "Bert"} - {held_out}
    for name in (held_out, f"{held_out.lower()}_seg", known.val_items(0)[0]["label"]):
        with pytest.raises(SettingError, match=f"its file is from {name}, which"):
            check_measured(monai_segloss.SizePenaltyLoss(bounds=measured(tmp_path / "b.json", kept, name)), known, 0)
    for name in (kept, f"{kept.lower()}_seg", "ct"):
        check_measured(monai_segloss.SizePenaltyLoss(bounds=measured(tmp_path / "b.json", name)), known, 0)
    assert bounds_of_fold(raw, 0, axes="xyz")["cases"] == [kept], "the command names them alike"


def test_the_bundle_refuses_what_validation_cases_were_measured_for(tmp_path: Path, dataset: Path) -> None:
    """Before anything else of the training, and takes what the advice makes."""
    file = tmp_path / "bounds.json"
    loss = {"loss_key": "size_penalty", "loss_arguments": {"bounds": str(file), "on_patches": True}}
    file.write_text(json.dumps(bounds_of_fold(dataset, "all", axes="xyz")))
    one_process = {"initialize#0": "$None", "initialize#1": "$None", "device": "$torch.device('cpu')"}
    for overlays, more in (((), {}), (("multi_gpu_train.json",), one_process)):
        more = {**more, "network_def": "no network"}  # nothing has asked for it
        with (
            pytest.raises(RuntimeError) as caught,
            workflow(tmp_path / "refused", dataset, *overlays, **loss, **more) as flow,
        ):
            flow.initialize()
        assert f"bounds: its file is from {split(dataset)[1]}, which fold 0 validates" in causes(caught.value)
    file.write_text(json.dumps(bounds_of_fold(dataset, 0, axes="xyz")))
    with workflow(tmp_path, dataset, **loss) as flow:
        flow.initialize()


@pytest.mark.real
def test_the_command_refuses_bounds_in_one_sentence(tmp_path: Path, dataset: Path) -> None:
    training, validation = split(dataset)
    about = {"config_file": CONFIGS / "train.json", "bundle_root": tmp_path, "dataset_dir": dataset}
    arguments = {"bounds": measured(tmp_path / "bounds.json", training, validation)}
    done = monai_bundle("run", loss_key="size_penalty", loss_arguments=arguments, **about)
    assert done.returncode == 1
    assert done.stdout.strip().splitlines()[-1] == (
        f"The configuration is wrong: bounds: its file is from {validation}, which fold 0 validates; make one with "
        "`segloss prior bounds DATASET --fold 0 --axes xyz`."
    )
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "models").exists()
