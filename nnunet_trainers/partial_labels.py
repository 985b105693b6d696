"""Which classes each case of a data set has labels of, from a JSON file next to ``dataset.json``.

    {"*": ["liver", "spleen", "pancreas"], "case_0001": ["liver"], "case_0002": []}

Names are those of ``dataset.json``; ``*`` is for the cases that are not named.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from monai_segloss.core.errors import nearest
from monai_segloss.datalist import numbers_by_name

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
    """Where the file of a trainer's data set may be: next to the preprocessed volumes, then next to the raw ones."""
    from nnunetv2.paths import nnUNet_raw

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
        return None, f"no {FILE} next to the data set: {same}" if takes else ""
    if not takes:
        return None, f"{path} is there, but this loss takes every class as labeled in every case"
    return read(path, labels, cases), f"labeled classes of each case: {path}"


def read(path: Path, labels: Mapping[str, Any], cases: Collection[str]) -> LabeledClasses:
    """Read and check the file.

    Args:
        path: of the file.
        labels: of dataset.json.
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
    numbers = {name: each for name, each in numbers_by_name(labels).items() if name != "ignore"}
    entries = _Entries(content, {name: each[0] for name, each in numbers.items() if len(each) == 1}, cases)
    fault = next((fault for rule in RULES for fault in rule(entries)), None)
    if fault is not None:
        raise LabeledClassesError(f"{path}{fault}")
    found = {case: [entries.known[name] for name in names] for case, names in content.items()}
    return LabeledClasses(max(entries.known.values()) + 1, found, path)


class _Entries(NamedTuple):
    """What a rule looks at."""

    content: Mapping[str, Any]
    known: Mapping[str, int]
    cases: Collection[str]


def _lists_of_names(entries: _Entries) -> Iterator[str]:
    for case, names in entries.content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            yield f": {case!r} must be a list of class names, got {names!r}"


def _known_cases(entries: _Entries) -> Iterator[str]:
    for case in entries.content:
        if case != OTHERS and case not in entries.cases:
            yield f": there is no case {case!r}{nearest(case, entries.cases)}"


def _known_classes(entries: _Entries) -> Iterator[str]:
    for case, names in entries.content.items():
        for name in names:
            if name not in entries.known:
                hint = nearest(name, entries.known)
                yield f": {case!r} names the class {name!r}, which is no single label in dataset.json{hint}"


def _every_case(entries: _Entries) -> Iterator[str]:
    missing = sorted(set(entries.cases) - set(entries.content))
    if missing and OTHERS not in entries.content:
        yield f" says nothing of {len(missing)} cases ({missing[0]} first); name them, or give {OTHERS!r} for the rest"


def _every_class(entries: _Entries) -> Iterator[str]:
    seen = {entries.known[name] for names in entries.content.values() for name in names}
    never = sorted(name for name, label in entries.known.items() if label and label not in seen)
    if never:
        yield f": the class {never[0]!r} is labeled in no case, so it cannot be learned"


RULES: tuple[Callable[[_Entries], Iterator[str]], ...] = (
    _lists_of_names,
    _known_cases,
    _known_classes,
    _every_case,
    _every_class,
)
"""What the file must hold; a rule takes for granted what the rules before it ask."""
