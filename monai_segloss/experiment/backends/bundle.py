"""Runs of a comparison by MONAI's program with the bundle of this package."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from monai_segloss.demo.dataset import RawDataset, read_dataset
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.progress import Epoch
from monai_segloss.experiment import sources
from monai_segloss.experiment.backends import Backend
from monai_segloss.experiment.costs import ITERATIONS, VALIDATIONS, Cost
from monai_segloss.experiment.running import Task
from monai_segloss.files import atomic, read_json, write_json

if TYPE_CHECKING:
    from monai_segloss.experiment.arms import Arm
    from monai_segloss.experiment.comparison import Comparison
    from monai_segloss.experiment.matrix import Matrix

FOLDER = "bundle"
"""In the folder of a comparison: ``configs`` that all runs share, ``arms`` with the losses, ``folds`` with the cases."""
ENDING = ".nii.gz"
SAVES = "monai_segloss.engine.ResumableCheckpoint"


@dataclass(frozen=True)
class BundleTask(Task):
    """A training of the bundle, and the predictions that its last weights make of what it holds out."""

    RESULTS: ClassVar[str] = "bundle_results"

    @property
    def bundle(self) -> Path:
        """Configurations of the comparison."""
        return self.work / FOLDER

    @property
    def fold(self) -> Path:
        return self.results / self.run.trainer / f"fold_{self.run.fold}"

    @property
    def predictions(self) -> Path:
        return self.fold / "predictions"

    @property
    def labels(self) -> Path:
        return self.raw / "labelsTr"

    @property
    def product(self) -> Path:
        return self.predictions

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        if not self.record().get("finished"):
            arm = self.bundle / "arms" / f"{self.run.arm}.json"
            length = {"epochs": self.run.epochs, "iterations": self.run.iterations}
            yield "train", self._command("train.json", arm, **length, seed=self.run.seed, resume=True)
        weights = self.fold / "models" / "last.pt"  # the best ones are the best on what is held out
        shutil.rmtree(self.predictions, ignore_errors=True)
        yield "predict", self._command("inference.json", ckpt_path=weights, save_probabilities=True)

    def _command(self, name: str, *overlays: Path, **options: Any) -> list[str]:
        files = [str(self.bundle / "configs" / name), *map(str, overlays)]
        data = self.bundle / "folds" / f"fold_{self.run.fold}"
        known = {"config_file": files, "bundle_root": self.fold, "dataset_dir": data, **options}
        return ["monai.bundle", "run", *(text for key, value in known.items() for text in (f"--{key}", str(value)))]

    def record(self) -> dict[str, Any]:
        """What the training says about itself, see `monai_segloss.engine.TrainingRecord`; empty before its first epoch."""
        file = self.fold / "models" / "record.json"
        found: dict[str, Any] = read_json(file) if file.exists() else {}
        return found

    def epochs(self) -> list[Epoch]:
        nan = math.nan
        return [
            Epoch(
                row["epoch"],
                row["train_loss"],
                nan,
                () if row["dice"] is None else (row["dice"],),
                row["seconds"],
            )
            for row in self.record().get("epochs", [])
        ]

    def curves(self) -> Sequence[Mapping[str, Any]]:
        names = ("epoch", "train_loss", "dice")
        return [{name: row[name] for name in names} for row in self.record().get("epochs", [])]

    def facts(self) -> dict[str, Any]:
        epochs = self.epochs()
        return {
            "epochs": len(epochs) or None,
            "minutes": round(sum(each.seconds for each in epochs) / 60, 2) if epochs else None,
            "splits_hash": sources.hash_of_cases(self.predictions),
            "weights_hash": self.record().get("first_weights"),
            "plans_hash": self.record().get("settings"),
            "network": described(read_json(self.bundle / "configs" / "train.json")),
        }

    def description(self) -> dict[str, Any]:
        """As the files are stored: a reader that turns them would not turn the probabilities."""
        return {key: value for key, value in super().description().items() if key != "overwrite_image_reader_writer"}

    def cost(self) -> Cost:
        row, began = self.record()["epochs"][-1], (self.fold / "models" / "record.json").stat().st_mtime
        files = [file.stat() for file in self.predictions.iterdir()]
        ends = sorted(file.stat().st_mtime for file in self.predictions.glob(f"*{ENDING}"))
        case = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else ends[0] - began
        return Cost(
            max(0.0, self.seconds() - row["seconds"] - len(ends) * case),
            (row["seconds"] - row["validation_seconds"]) / ITERATIONS,
            case,
            (self.fold / "models" / "last.pt").stat().st_size,
            sum(file.st_size for file in files) // len(ends),
            patches=0.0,
            validation=row["validation_seconds"] / len(ends),
        )


class BundleBackend(Backend):
    """MONAI with the bundle of this package."""

    NAME = "bundle"
    PACKAGES = ("monai", "ignite", "fire", "nibabel", "tensorboard")
    DEMO: ClassVar = {"lr": 0.003}
    task = BundleTask

    def names(self, matrix: Matrix, arm: Arm, seed: int, epochs: int, iterations: int) -> tuple[str, str]:
        """A name that tells runs apart, and the bundle."""
        from nnunet_trainers.naming import spell

        lr = arm.lr or matrix.lr
        rate = "" if lr is None else f"_lr{spell(lr)}"
        return f"{arm.name}{rate}_seed{seed}_{epochs}epochs_{iterations}iterations", self.configuration(matrix)

    def configuration(self, matrix: Matrix) -> str:
        from monai_segloss.bundle import bundle_path

        return bundle_path().name

    def refuse(self, matrix: Matrix, source: RawDataset | None) -> None:
        default = type(matrix).model_fields["configuration"].default
        if matrix.configuration != default:
            raise DemoError(
                f"--configuration {matrix.configuration} is nnU-Net's: the bundle has one network, of three dimensions"
            )
        if source is not None and source.ending != ENDING:
            raise DemoError(
                f"--backend bundle compares {ENDING} files, as it predicts them; --data has {source.ending}"
            )
        named = next((arm for arm in matrix.arms if arm.trainer is not None), None)
        if named is not None:
            raise DemoError(f"arm {named.name!r} is a trainer of nnU-Net: give --backend bundle its loss instead")
        soft = next((arm for arm in matrix.arms if arm.soft), None)
        if soft is not None:
            raise DemoError(f"arm {soft.name!r} is trained on soft labels, which the bundle does not read")
        if matrix.patch_size is not None:
            step = math.prod(_shared()["network_def"]["strides"])
            if len(matrix.patch_size) != 3 or any(edge % step or edge < 2 * step for edge in matrix.patch_size):
                raise DemoError(
                    f"--patch-size {list(matrix.patch_size)}: the bundle takes three edges, multiples of {step} from "
                    f"{2 * step}, along x, y and z"
                )

    def plan(self, comparison: Comparison) -> None:
        place = comparison.work / FOLDER
        if not comparison.stages.done("plan", place / "configs"):
            with comparison.display.stage("bundle"), comparison.stages.stage("plan"):
                _write_configs(place / "configs", comparison.matrix)
        _write_folds(place / "folds", comparison.raw, comparison.held_out())
        for arm in comparison.matrix.arms:
            _write_arm(place / "arms" / f"{arm.name}.json", arm)


def _shared() -> dict[str, Any]:
    """The training configuration of the bundle."""
    from monai_segloss.bundle import bundle_path

    found: dict[str, Any] = read_json(bundle_path() / "configs" / "train.json")
    return found


def described(train: Mapping[str, Any]) -> str:
    """Patch, batch and channels of a training configuration in words."""
    patch, channels = " x ".join(map(str, train["patch_size"])), train["network_def"]["channels"]
    batch = train["batch_size"] * train["num_samples"]
    return f"patch of {patch} voxels, batch of {batch}, {channels[0]} to {channels[-1]} channels"


def _write_configs(folder: Path, matrix: Matrix) -> None:
    """The bundle's configurations, with what the comparison says for all arms."""
    from monai_segloss.bundle import bundle_path

    shutil.rmtree(folder, ignore_errors=True)
    with atomic(folder) as part:
        shutil.copytree(bundle_path() / "configs", part)
        for name, adapt in (("train.json", training), ("inference.json", inference)):
            write_json(part / name, adapt(read_json(part / name), matrix))


def training(config: Mapping[str, Any], matrix: Matrix) -> dict[str, Any]:
    """The training configuration: epochs of so many batches, no surface distances, and a record of what was trained.

    Args:
        config: of the bundle.
        matrix: the comparison.
    """
    train = dict(config["train"])
    train["dataloader"] = {key: value for key, value in train["dataloader"].items() if key != "shuffle"} | {
        "sampler": {
            "_target_": "torch.utils.data.RandomSampler",
            "data_source": "@train#dataset",
            "num_samples": "$@iterations * @batch_size",
        }
    }
    record = {
        "_target_": "monai_segloss.engine.TrainingRecord",
        "path": "$@ckpt_dir + '/record.json'",
        "network": "@network",
        "validator": "@validate#evaluator",
        "settings": "$bundle_settings.settings_hash()",
    }
    saves = next(i for i, each in enumerate(train["handlers"]) if each["_target_"] == SAVES)
    train["handlers"] = [*train["handlers"][:saves], record, *train["handlers"][saves:]]
    asked: dict[str, Any] = {} if matrix.batch_size is None else {"batch_size": matrix.batch_size, "num_samples": 1}
    asked |= {} if matrix.lr is None else {"learning_rate": matrix.lr}
    asked |= {} if matrix.optimizer is None else {"optimizer": {**config["optimizer"], "_target_": "torch.optim.Adam"}}
    return {
        **inference(config, matrix),
        **asked,
        "epochs": matrix.epochs,
        "iterations": matrix.iterations,
        "val_interval": f"$max(1, @epochs // {VALIDATIONS})",
        "surface_metrics": False,
        "train": train,
    }


def inference(config: Mapping[str, Any], matrix: Matrix) -> dict[str, Any]:
    """A configuration of the bundle with the patch, the network and the device of a comparison."""
    network = dict(config["network_def"])
    if matrix.features is not None:
        network["channels"] = [matrix.features << level for level in range(len(network["channels"]))]
    patch = {} if matrix.patch_size is None else {"patch_size": list(matrix.patch_size)}
    return {**config, **patch, "network_def": network, "device": f"$torch.device('{matrix.device}')"}


def _write_folds(folder: Path, raw: Path, splits: Sequence[Mapping[str, Sequence[str]]]) -> None:
    """A list of cases for each fold, with the held-out ones as images to predict too."""
    dataset = read_dataset(raw, 2, None)

    def item(case: str, place: Path) -> dict[str, Any]:
        images = [os.path.relpath(image, place) for image in dataset.images(case)]
        return {"image": images, "label": os.path.relpath(dataset.label(case), place)}

    for number, split in enumerate(splits):
        place = folder / f"fold_{number}"
        training, held_out = ([item(case, place) for case in split[side]] for side in ("train", "val"))
        lists = {"training": training, "validation": held_out, "test": [{"image": each["image"]} for each in held_out]}
        write_json(place / "dataset.json", {**dataset.content, **lists})


def _write_arm(file: Path, arm: Arm) -> None:
    """The loss of an arm, and its own rate."""
    from monai_segloss.bundle import component

    try:
        content = {"loss": component(arm.config), **({} if arm.lr is None else {"learning_rate": arm.lr})}
    except (TypeError, ValueError) as error:
        raise DemoError(f"arm {arm.name!r}: {error}") from None
    if file.exists() and read_json(file) != json.loads(json.dumps(content)):
        raise DemoError(f"arm {arm.name!r}: {file} exists with other content: give the arm another name")
    write_json(file, content)
