"""Copies of models that stock nnU-Net predicts with, on machines that do not have this package."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from monai_segloss.files import atomic
from nnunet_trainers.base import SegLossTrainer
from nnunet_trainers.naming import PREFIX, TrainerNameError
from nnunet_trainers.recording import KEY
from nnunet_trainers.trainers import find

KEPT = ("dataset.json", "plans.json", "dataset_fingerprint.json")
KEPT_OF_FOLD = ("debug.json", "progress.png", "validation/summary.json")
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
"""Checkpoints to predict with, best first."""
KEPT_OF_CROSS_VALIDATION = ("summary.json", "postprocessing.pkl", "postprocessing.json")


class ExportError(ValueError):
    """A folder that cannot be exported."""


def export(model: Path, output: Path | None = None) -> Path:
    """Write a copy of a trained model whose trainer is called nnUNetTrainer, and return its folder.

    Only the loss differs between our trainers and nnU-Net's own, and prediction needs no loss. The same holds for classes
    that others derive from ours, as long as they build nnU-Net's network. The settings and the name of the trainer stay
    inside each checkpoint, under ``segloss``.

    Args:
        model: ``TRAINER__PLANS__CONFIGURATION`` with ``fold_*`` in it.
        output: the new folder; default ``exported/nnUNetTrainer__PLANS__CONFIGURATION`` in ``model``.

    Raises:
        ExportError: ``model`` is no trained model of ours, has a network of its own, or ``output`` exists.
    """
    name = model.resolve().name.split("__")
    checkpoints = sorted(model.glob("fold_*/checkpoint_*.pth"))
    if len(name) != 3 or not checkpoints or not (model / "plans.json").is_file():
        raise ExportError(f"{model} is no model folder of nnU-Net: expected TRAINER__PLANS__CONFIGURATION with fold_*")
    target = output or model / "exported" / "__".join([PREFIX, *name[1:]])
    if target.exists():
        raise ExportError(f"{target} exists; remove it, or name another folder with --output")
    with atomic(target) as draft:
        for checkpoint in checkpoints:
            _export_checkpoint(checkpoint, draft / checkpoint.relative_to(model))
        for file in _kept(model):
            (draft / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(model / file, draft / file)
    return target


def to_predict(model: Path) -> tuple[str, list[str]]:
    """The name of the best checkpoint that a fold has, and the folds that have it."""
    name = next(each for each in CHECKPOINTS if list(model.glob(f"fold_*/{each}")))
    return name, sorted(file.parent.name.removeprefix("fold_") for file in model.glob(f"fold_*/{name}"))


def _kept(model: Path) -> list[Path]:
    patterns = [*KEPT, *(f"fold_*/{name}" for name in KEPT_OF_FOLD)]
    patterns += [f"crossval_results_folds_*/{name}" for name in KEPT_OF_CROSS_VALIDATION]
    return [file.relative_to(model) for pattern in patterns for file in sorted(model.glob(pattern))]


def _export_checkpoint(source: Path, target: Path) -> None:
    checkpoint = torch.load(source, map_location="cpu", weights_only=False)
    _refuse_others(checkpoint, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    exported = {"trainer_name": PREFIX, KEY: {**checkpoint[KEY], "exported_from": checkpoint["trainer_name"]}}
    torch.save({**checkpoint, **exported}, target)


def _refuse_others(checkpoint: Mapping[str, Any], source: Path) -> None:
    """Refuse what stock nnU-Net could not predict with, or what is not ours."""
    name = checkpoint["trainer_name"]
    others = f"{source} was trained by {name}, which is no trainer of this package"
    if KEY not in checkpoint:
        raise ExportError(others)
    if _is_ours(name):
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # of the search
            trainer = recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        raise ExportError(f"{others}, nor found in the folders of nnUNet_extTrainer") from None
    if not issubclass(trainer, SegLossTrainer):
        raise ExportError(others)
    stock = trainer.build_network_architecture is nnUNetTrainer.build_network_architecture
    if not stock or not _fits_stock(checkpoint):
        raise ExportError(f"{source} was trained by {name}, whose network is not nnU-Net's: predict with that trainer")


def _fits_stock(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the network that nnU-Net builds for prediction takes the weights."""
    arguments = checkpoint["init_args"]
    plans = PlansManager(arguments["plans"])
    configuration = plans.get_configuration(arguments["configuration"])
    dataset = arguments["dataset_json"]
    network = nnUNetTrainer.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset),
        plans.get_label_manager(dataset).num_segmentation_heads,
        False,
    )
    try:
        network.load_state_dict(checkpoint["network_weights"])
    except RuntimeError:
        return False
    return True


def _is_ours(trainer: str) -> bool:
    try:
        find(trainer)
    except (AttributeError, TrainerNameError):
        return False
    return True
