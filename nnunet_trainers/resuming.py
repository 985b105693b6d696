"""What a run finds in its model folder: its own checkpoint to go on with, and the other folds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_trainers import recording
from nnunet_trainers.recording import OtherConfigurationError

if TYPE_CHECKING:
    from nnunet_trainers.base import SegLossTrainer

SAVE_EVERY = "segloss_save_every"
"""The variable with the number of epochs after which a checkpoint is written."""
PLANNED = ("architecture", "spacing", "normalization_schemes")
"""What all folds of a model must share in the plan, since one copy of it serves their prediction."""


def save_every(epochs: int) -> int:
    """Epochs between two checkpoints: as the environment says, else one of twenty parts of the training, at most 50."""
    text = os.environ.get(SAVE_EVERY, "")
    if text and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"the variable {SAVE_EVERY} must be a number of epochs, got {text!r}")
    return int(text) if text else min(50, max(1, epochs // 20))


def refuse_other_folds(trainer: SegLossTrainer) -> None:
    """Raise `OtherConfigurationError` where another fold has another configuration, or was trained by another plan."""
    own = Path(trainer.output_folder)
    reports = [report for report in sorted(own.parent.glob("fold_*/debug.json")) if report.parent != own]
    records = {report.parent: recording.read_record(report) for report in reports}
    here, resumes = trainer.configuration_record(), trainer.logger.resume
    found = {fold: recording.unlike(there, here, resumes) for fold, there in records.items() if there is not None}
    planned = {text for texts in found.values() for text in texts if text.startswith("data.")}
    planned = planned or _planned(trainer, _plans_of(own.parent))
    if planned and found:
        folds = ", ".join(fold.name for fold, texts in found.items() if texts or not any(found.values()))
        raise OtherConfigurationError(
            f"the data set was planned again since other folds of {own.parent} were trained "
            f"({'; '.join(sorted(planned))}): remove {folds} there to train them anew, or plan under another name (-p)"
        )
    for fold, there in records.items():
        if there is not None:
            recording.refuse_other(there, here, str(fold), resumes)


def _plans_of(model: Path) -> dict[str, Any]:
    try:
        plans: dict[str, Any] = json.loads((model / "plans.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plans


def _planned(trainer: SegLossTrainer, plans: dict[str, Any]) -> set[str]:
    """Where an earlier plan differs from the present one in what the folds of a model share."""
    if trainer.configuration_name not in plans.get("configurations", ()):
        return set()
    before = PlansManager(plans).get_configuration(trainer.configuration_name).configuration
    now = trainer.configuration_manager.configuration
    return {f"another {key}" for key in PLANNED if before.get(key) != now.get(key)}


def read_checkpoint(file: str) -> dict[str, Any]:
    """What a trainer of ours added to a checkpoint, its epoch and its plan.

    Raises:
        OtherConfigurationError: there is nothing of ours in it.
    """
    checkpoint = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    if recording.KEY not in checkpoint:
        raise OtherConfigurationError(f"{file} was not written by a trainer of segloss")
    more = {"epoch": checkpoint["current_epoch"], "plans": checkpoint["init_args"]["plans"]}
    return {**checkpoint[recording.KEY], **more}


def history(trainer: SegLossTrainer, ours: dict[str, Any], file: str) -> list[dict[str, Any]]:
    """What the run of a checkpoint was before, with the present change where it goes on for more epochs.

    Raises:
        OtherConfigurationError: it has another configuration.
    """
    there, here = ours["configuration"], trainer.configuration_record()
    recording.refuse_other(there, here, file, trainer.logger.resume)
    planned = sorted(_planned(trainer, ours["plans"]))
    if planned:
        raise OtherConfigurationError(
            f"the data set was planned again since {file} was written ({'; '.join(planned)}): remove {Path(file).parent} "
            "to train it anew, or plan under another name (-p)"
        )
    before: list[dict[str, Any]] = there.get(recording.CONTINUED, [])
    if not recording.is_longer(there, here):
        return before
    was = {"trainer": there["trainer"], "epochs": there["epochs"], "at_epoch": ours["epoch"]}
    trainer.print_to_log_file(f"segloss: goes on for {here['epochs']} epochs with {json.dumps(was)}")
    return [*before, was]
