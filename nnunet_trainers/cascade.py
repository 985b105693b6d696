"""What the second stage of a cascade needs of the first: a prediction of every case, by the same trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def refuse_missing_stage(trainer: nnUNetTrainer, cases: Sequence[str] = ()) -> None:
    """Raise FileNotFoundError where a second stage finds no predictions, or none of some of ``cases``.

    A fold of the first stage predicts its validation cases only; nnU-Net would end in a worker without a clear message.
    """
    if not trainer.is_cascaded:
        return
    predicted = {file.stem for file in Path(trainer.folder_with_segs_from_previous_stage).glob("*")}
    missing = sorted(set(cases) - predicted)
    if predicted and not missing:
        return
    name, stage = type(trainer).__name__, trainer.configuration_manager.previous_stage_name
    lack = f"has not predicted {len(missing)} of {len(set(cases))} cases ({missing[0]} first)" if predicted else ""
    raise FileNotFoundError(
        f"configuration {trainer.configuration_name!r} continues from {stage!r}, on which {name} "
        f"{lack or 'has not been trained'}: run nnUNetv2_train ... {stage} ... -tr {name} for every fold first"
    )
