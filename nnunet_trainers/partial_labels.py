"""Which classes each case of a data set has labels of, from a JSON file beside ``dataset.json``.

    {"*": ["liver", "spleen", "pancreas"], "case_0001": ["liver"], "case_0002": []}

Names are those of ``dataset.json``; ``*`` is for the cases that are not named.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.paths import nnUNet_raw
from torch import Tensor

from monai_segloss.core.errors import nearest

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

FILE = "labeled_classes.json"
OTHERS = "*"


class LabeledClassesError(ValueError):
    """The file does not fit the data set."""


@dataclass(frozen=True)
class LabeledClasses:
    """The labeled classes of cases.

    Args:
        classes: number of classes, background included.
        cases: case -> labels.
        path: the file.
    """

    classes: int
    cases: Mapping[str, Sequence[int]]
    path: Path

    def rows(self, keys: Sequence[str]) -> Tensor:
        """Whether each class is labeled in each case, (B, C) bool; the background always is."""
        rows = torch.zeros(len(keys), self.classes, dtype=torch.bool)
        rows[:, 0] = True
        for row, key in zip(rows, keys, strict=True):
            row[list(self.cases.get(key, self.cases.get(OTHERS, ())))] = True
        return rows


def places(trainer: nnUNetTrainer) -> list[str | None]:
    """Where the file of a trainer's data set may be: beside the preprocessed volumes, then beside the raw ones."""
    raw = [os.path.join(nnUNet_raw, trainer.plans_manager.dataset_name)] if nnUNet_raw else []
    return [trainer.preprocessed_dataset_folder_base, *raw]


def find(folders: Sequence[str | None]) -> Path | None:
    """The file in the first of some folders that has it."""
    paths = [Path(folder) / FILE for folder in folders if folder]
    return next((path for path in paths if path.is_file()), None)


def record(folders: Sequence[str | None]) -> dict[str, str]:
    """What tells this file from another one, for the configuration of a run; nothing without a file."""
    path = find(folders)
    return {} if path is None else {FILE: hashlib.sha256(path.read_bytes()).hexdigest()[:12]}


def look_up(
    folders: Sequence[str | None], labels: Mapping[str, Any], cases: Collection[str], takes: bool
) -> tuple[LabeledClasses | None, str]:
    """The labeled classes for a loss that ``takes`` them, and a note for the log where there is something to say.

    Raises:
        LabeledClassesError: the file does not fit.
    """
    path = find(folders)
    if path is None:
        same = "every case has labels of the same classes, all unless the plan says which"
        return None, f"no {FILE} beside the data set: {same}" if takes else ""
    if not takes:
        return None, f"{path} is there, but this loss takes every class as labeled in every case"
    return read(path, labels, cases), f"labeled classes of each case: {path}"


def read(path: Path, labels: Mapping[str, Any], cases: Collection[str]) -> LabeledClasses:
    """Read and check the file.

    Args:
        path: of the file.
        labels: name -> label of the data set.
        cases: cases that are trained or validated.

    Raises:
        LabeledClassesError: one sentence that names the file and the entry.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabeledClassesError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise LabeledClassesError(f"{path} must map cases to lists of class names")
    known = {name: label for name, label in labels.items() if isinstance(label, int) and name != "ignore"}
    found: dict[str, list[int]] = {}
    for case, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise LabeledClassesError(f"{path}: {case!r} must be a list of class names, got {names!r}")
        if case != OTHERS and case not in cases:
            raise LabeledClassesError(f"{path}: there is no case {case!r}{nearest(case, cases)}")
        for name in names:
            if name not in known:
                raise LabeledClassesError(f"{path}: {case!r} names the class {name!r}, which is not in dataset.json")
        found[case] = [known[name] for name in names]
    missing = sorted(set(cases) - set(found))
    if missing and OTHERS not in found:
        raise LabeledClassesError(
            f"{path} says nothing of {len(missing)} cases ({missing[0]} first); name them, or give {OTHERS!r} for the rest"
        )
    seen = {label for row in found.values() for label in row}
    never = sorted(name for name, label in known.items() if label and label not in seen)
    if never:
        raise LabeledClassesError(f"{path}: the class {never[0]!r} is labeled in no case, so it cannot be learned")
    return LabeledClasses(max(known.values()) + 1, found, path)
