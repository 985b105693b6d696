"""Copies of models that stock nnU-Net predicts with, on machines that do not have this package."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch

from nnunet_trainers.naming import PREFIX, TrainerNameError
from nnunet_trainers.recording import KEY
from nnunet_trainers.trainers import find

KEPT = ("dataset.json", "plans.json", "dataset_fingerprint.json")
KEPT_OF_FOLD = ("debug.json", "progress.png", "validation/summary.json")
KEPT_OF_CROSS_VALIDATION = ("summary.json", "postprocessing.pkl", "postprocessing.json")


class ExportError(ValueError):
    """A folder that cannot be exported."""


def export(model: Path, output: Path | None = None) -> Path:
    """Write a copy of a trained model whose trainer is called nnUNetTrainer, and return its folder.

    Only the loss differs between our trainers and nnU-Net's own, and prediction needs no loss. The settings and the
    name of the trainer stay inside each checkpoint, under ``segloss``.

    Args:
        model: ``TRAINER__PLANS__CONFIGURATION`` with ``fold_*`` in it.
        output: the new folder; default ``exported/nnUNetTrainer__PLANS__CONFIGURATION`` in ``model``.

    Raises:
        ExportError: ``model`` is no trained model of ours, or ``output`` exists.
    """
    name = model.resolve().name.split("__")
    checkpoints = sorted(model.glob("fold_*/checkpoint_*.pth"))
    if len(name) != 3 or not checkpoints or not (model / "plans.json").is_file():
        raise ExportError(f"{model} is no model folder of nnU-Net: expected TRAINER__PLANS__CONFIGURATION with fold_*")
    target = output or model / "exported" / "__".join([PREFIX, *name[1:]])
    if target.exists():
        raise ExportError(f"{target} exists; remove it, or name another folder with --output")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".exporting") as parent:
        draft = Path(parent) / target.name
        for checkpoint in checkpoints:
            _export_checkpoint(checkpoint, draft / checkpoint.relative_to(model))
        for file in _kept(model):
            (draft / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(model / file, draft / file)
        os.replace(draft, target)
    return target


def _kept(model: Path) -> list[Path]:
    patterns = [*KEPT, *(f"fold_*/{name}" for name in KEPT_OF_FOLD)]
    patterns += [f"crossval_results_folds_*/{name}" for name in KEPT_OF_CROSS_VALIDATION]
    return [file.relative_to(model) for pattern in patterns for file in sorted(model.glob(pattern))]


def _export_checkpoint(source: Path, target: Path) -> None:
    checkpoint = torch.load(source, map_location="cpu", weights_only=False)
    trainer = checkpoint["trainer_name"]
    if KEY not in checkpoint or not _is_ours(trainer):
        raise ExportError(f"{source} was trained by {trainer}, which is no trainer of this package")
    target.parent.mkdir(parents=True, exist_ok=True)
    exported = {"trainer_name": PREFIX, KEY: {**checkpoint[KEY], "exported_from": trainer}}
    torch.save({**checkpoint, **exported}, target)


def _is_ours(trainer: str) -> bool:
    try:
        find(trainer)
    except (AttributeError, TrainerNameError):
        return False
    return True
