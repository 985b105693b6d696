"""What the second stage of a cascade needs of the first: a prediction of every case, by the same trainer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def refuse_missing_stage(trainer: nnUNetTrainer, cases: Sequence[str] = ()) -> None:
    """Raise FileNotFoundError where a second stage finds no predictions, or none of some of ``cases``.

    A fold of the first stage predicts its validation cases only, fold ``all`` every case; nnU-Net would end in a worker
    without a clear message.
    """
    if not trainer.is_cascaded:
        return
    folder = Path(trainer.folder_with_segs_from_previous_stage)
    predicted = {file.stem for file in folder.glob("*")}
    missing = sorted(set(cases) - predicted)
    if predicted and not missing:
        return
    name, model = type(trainer).__name__, folder.parent.parent
    done = sorted(each.parent.name.removeprefix("fold_") for each in model.glob("fold_*/checkpoint_final.pth"))
    lack = f"{len(missing)} of {len(set(cases))} cases ({missing[0]} first)" if predicted else "a single case"
    steps = "; ".join(_steps(trainer, done, missing))
    raise FileNotFoundError(
        f"configuration {trainer.configuration_name!r} continues from {trainer.configuration_manager.previous_stage_name!r}"
        f", on which {name} {f'has not predicted {lack}' if done or predicted else 'has not been trained'}: {steps}"
    )


def _steps(trainer: nnUNetTrainer, done: Sequence[str], missing: Sequence[str]) -> Iterator[str]:
    """What to run for the predictions: a validation where the first stage is trained, else its training."""
    validated = _validated(trainer)
    wanted = [fold for fold, cases in validated.items() if not missing or not cases.isdisjoint(missing)]
    elsewhere = sorted(set(missing).difference(*validated.values())) if validated else []
    if "all" in done or elsewhere:
        wanted = ["all"]
    again = [fold for fold in done if fold in wanted or not wanted]
    untrained = [fold for fold in wanted if fold not in done]
    if again:
        yield f"run {_command(trainer, again)} --val, which predicts again without training"
    if untrained or not again:
        why = f"no fold validates {elsewhere[0]}" if elsewhere else "or of fold all alone, which predicts every case"
        yield f"run {_command(trainer, untrained)} first ({why})"


def _validated(trainer: nnUNetTrainer) -> dict[str, set[str]]:
    """The cases that each fold validates, as far as they are known."""
    splits = Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json"
    if not splits.is_file():
        return {}
    return {str(i): set(fold["val"]) for i, fold in enumerate(json.loads(splits.read_text(encoding="utf-8")))}


def _command(trainer: nnUNetTrainer, folds: Sequence[str]) -> str:
    """The training of the first stage, for each of some folds, or for every fold."""
    plans, stage = trainer.plans_manager, trainer.configuration_manager.previous_stage_name
    identifier = "" if plans.plans_name == "nnUNetPlans" else f" -p {plans.plans_name}"
    each = "" if len(folds) == 1 else f" of each FOLD ({', '.join(folds) or '0 to 4'})"
    fold = folds[0] if len(folds) == 1 else "FOLD"
    return f"nnUNetv2_train {plans.dataset_name} {stage} {fold} -tr {type(trainer).__name__}{identifier}{each}"
