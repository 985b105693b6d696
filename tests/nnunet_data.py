"""A tiny generated nnU-Net data set: two shapes in four noisy volumes, and a plan small enough to train in a second."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import pytest
import torch

from nnunet_trainers import discovery_dir

QUIET = [
    # nnU-Net means over classes of which it has seen no voxel.
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
    # A file of nnU-Net's data loader stays open until it is collected.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
"""Marks of the tests that train in this process."""

LABELS: dict[str, dict[str, object]] = {
    "labels": {"background": 0, "ball": 1, "core": 2},
    "ignore": {"background": 0, "ball": 1, "core": 2, "ignore": 3},
    "regions": {"background": 0, "whole": [1, 2], "core": [2]},
    "regions_ignore": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
}
IDS = {kind: number for number, kind in enumerate(LABELS, start=1)}
SHORT = "1epochs_2iterations"
SHAPE, CASES = (20, 20, 24), 4
SPLITS = [{"train": ["case_00", "case_01", "case_02"], "val": ["case_03"]}]
SPLITS += [{"train": ["case_00", "case_02", "case_03"], "val": ["case_01"]}]
FINGERPRINT = {
    "spacings": [[1.5, 1.0, 1.0]] * CASES,
    "shapes_after_crop": [[24, 20, 20]] * CASES,
    "median_relative_size_after_cropping": 1.0,
    "foreground_intensity_properties_per_channel": {
        "0": {
            "max": 260.0,
            "mean": 119.0,
            "median": 106.0,
            "min": 27.0,
            "percentile_00_5": 50.0,
            "percentile_99_5": 238.0,
        }
        | {"std": 44.0}
    },
}

NETWORK: dict[str, object] = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
}


@dataclass(frozen=True)
class Workspace:
    """The folders of one nnU-Net installation, and the environment in which its commands run."""

    root: Path

    @property
    def variables(self) -> dict[str, str]:
        """The variables of nnU-Net, without workers and compilation, and a short training of priors."""
        folders = {f"nnUNet_{name}": str(self.root / name) for name in ("raw", "preprocessed", "results")}
        small = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", "segloss_prior_steps": "30"}
        return {**folders, **small, "nnUNet_extTrainer": discovery_dir()}

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command.

        nnU-Net takes a thread per core whatever the variables say; spinning threads stall a busy machine.
        """
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        return {**os.environ, **self.variables, **threads, "PYTHONWARNINGS": "ignore"}

    def plans(self, kind: str = "labels") -> Path:
        """The plans file of a data set."""
        return self.root / "preprocessed" / dataset(kind) / "nnUNetPlans.json"

    def model(self, trainer: str, kind: str = "labels", configuration: str = "tiny") -> Path:
        """The folder into which a trainer writes."""
        return self.root / "results" / dataset(kind) / f"{trainer}__nnUNetPlans__{configuration}"

    def trainer(
        self, name: str, kind: str = "labels", configuration: str = "tiny", fold: int | str = 0, resume: bool = False
    ) -> Any:
        """A trainer in this process, as nnU-Net's command makes it; it draws no learning curve."""
        plans = {**json.loads(self.plans(kind).read_text()), "continue_training": resume}
        about = json.loads((self.plans(kind).parent / "dataset.json").read_text())
        trainer = trainer_class(name)(plans, configuration, fold, about, torch.device("cpu"))
        trainer.logger.plot_progress_png = lambda folder: None
        return trainer

    def run(self, *command: str, fails: bool = False, **env: str) -> str:
        """The output of a command of this Python's environment; an assertion with that output where it fails."""
        program = Path(sys.executable).with_name(command[0])
        done = subprocess.run(
            [str(program), *command[1:]],
            env={**self.env, **env},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert (done.returncode != 0) == fails, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout


@functools.cache
def trainer_class(name: str) -> Any:
    """The class that nnU-Net finds by that name; it looks through all modules of the process, so once is enough."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    return recursive_find_trainer_class_by_name(name)


def run(trainer: Any) -> Any:
    """The trainer after its training."""
    trainer.run_training()
    return trainer


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """A copy of the weights of the network."""
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def assert_equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    """Equal to the last bit."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def dataset(kind: str) -> str:
    """The nnU-Net name of a data set."""
    return f"Dataset{IDS[kind]:03d}_{kind}"


def write_raw(folder: Path, kind: str, cases: int = CASES) -> Path:
    """Write the raw data set of a kind (a key of `LABELS`) below ``folder`` and return its own folder."""
    target = folder / dataset(kind)
    for name in ("imagesTr", "labelsTr"):
        (target / name).mkdir(parents=True)
    for number in range(cases):
        image, label = volume(number, ignore="ignore" in kind)
        case = f"case_{number:02d}"
        nibabel.save(_nifti(image), target / "imagesTr" / f"{case}_0000.nii.gz")
        nibabel.save(_nifti(label), target / "labelsTr" / f"{case}.nii.gz")
    about: dict[str, object] = {
        "channel_names": {"0": "CT"},
        "labels": LABELS[kind],
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    if kind.startswith("regions"):
        about["regions_class_order"] = [1, 2]
    (target / "dataset.json").write_text(json.dumps(about))
    return target


def volume(number: int, ignore: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An image with a bright ball and a brighter core, and its labels; with ``ignore`` one slab is not annotated."""
    rng = np.random.default_rng(number)
    center = np.asarray(SHAPE) / 2 + rng.uniform(-2, 2, 3)
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices(SHAPE), center, strict=True)))
    label = (distance < 7).astype(np.uint8) + (distance < 4)
    image = (100 * label + rng.normal(0, 20, SHAPE)).astype(np.float32)
    if ignore:
        label[..., :6] = 3
    return image, label.astype(np.uint8)


def _nifti(array: np.ndarray) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 1.5, 1.0]))


def tiny(parent: str, patch: Sequence[int], strides: Sequence[int] = (1, 2, 2, 2), **more: object) -> dict[str, object]:
    """A configuration that inherits its data from ``parent`` and trains a network of a few thousand weights."""
    dim, stages = len(patch), len(strides)
    network = {
        "n_stages": stages,
        "features_per_stage": [4 * 2**stage for stage in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
        "kernel_sizes": [[3] * dim] * stages,
        "strides": [[stride] * dim for stride in strides],
        "n_conv_per_stage": [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    architecture = {**NETWORK, "arch_kwargs": network}
    return {"inherits_from": parent, "patch_size": list(patch), "batch_size": 2, "architecture": architecture, **more}


def add_configurations(plans: Path, configurations: Mapping[str, Mapping[str, object]]) -> None:
    """Add configurations to a plans file."""
    content = json.loads(plans.read_text())
    content["configurations"].update(configurations)
    plans.write_text(json.dumps(content))


def prepare(root: Path) -> Workspace:
    """Write every kind of data set, plan the plain one and preprocess all: 3-D, 2-D and a cascade of two stages.

    nnU-Net's own planner and preprocessor do it, in this process: its command spends a minute on starting others.
    """
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    space = Workspace(root)
    preprocessed = space.plans().parent
    write_raw(root / "raw", "labels")
    preprocessed.mkdir(parents=True)
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    (preprocessed / "splits_final.json").write_text(json.dumps(SPLITS))
    # Planning sets torch's threads to the number of workers, so it does not run with 0.
    with mock.patch.dict(os.environ, {**space.variables, "nnUNet_n_proc_DA": "1"}):
        ExperimentPlanner(dataset("labels")).plan_experiment()
    patch = (16, 16, 16)
    add_configurations(
        space.plans(),
        {
            "tiny": tiny("3d_fullres", patch),
            "tiny_2d": tiny("2d", patch[:2], data_identifier="nnUNetPlans_3d_fullres"),
            "tiny_whole": tiny("3d_fullres", (24, 24, 24)),
            "tiny_batch": {"inherits_from": "tiny", "batch_dice": True},
            "tiny_one_scale": tiny("3d_fullres", patch, strides=(1, 2)),
            "tiny_low": {"inherits_from": "tiny", "next_stage": "tiny_cascade"},
            "tiny_cascade": {"inherits_from": "tiny", "previous_stage": "tiny_low"},
        },
    )
    preprocess(space, "labels")
    for kind in LABELS:
        if kind != "labels":
            write_raw(root / "raw", kind)
            space.plans(kind).parent.mkdir()
            for name in ("dataset_fingerprint.json", "splits_final.json"):
                shutil.copy(preprocessed / name, space.plans(kind).parent)
            plans = {**json.loads(space.plans().read_text()), "dataset_name": dataset(kind)}
            space.plans(kind).write_text(json.dumps(plans))
            preprocess(space, kind)
    return space


def preprocess(space: Workspace, kind: str) -> None:
    """Preprocess a planned data set."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw, target = space.root / "raw" / dataset(kind), space.plans(kind).parent
    shutil.copytree(raw / "labelsTr", target / "gt_segmentations")
    shutil.copy(raw / "dataset.json", target)
    manager = PlansManager(str(space.plans(kind)))
    configuration = manager.get_configuration("3d_fullres")
    folder = target / configuration.data_identifier
    folder.mkdir()
    for label in sorted((raw / "labelsTr").iterdir()):
        case = label.name.removesuffix(".nii.gz")
        image = [str(raw / "imagesTr" / f"{case}_0000.nii.gz")]
        about = str(raw / "dataset.json")
        preprocessor = DefaultPreprocessor(verbose=False)
        preprocessor.run_case_save(str(folder / case), image, str(label), manager, configuration, about)
