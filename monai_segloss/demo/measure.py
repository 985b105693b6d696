"""Predictions against their references, by class and case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.demo.dataset import RawDataset, read_volume
from monai_segloss.demo.metrics import Score, known_mean, score
from monai_segloss.demo.problem import DemoError

Scores = dict[str, dict[str, Score]]
"""By case, then by class."""


def measure(dataset: RawDataset, cases: Sequence[str], predictions: Path, tolerance: float) -> Scores:
    """Score every class of every case.

    Args:
        dataset: with the references.
        cases: which.
        predictions: folder with one file per case.
        tolerance: of the surface Dice, in mm.

    Raises:
        DemoError: a prediction is missing or has another shape than its reference.
    """
    found: Scores = {}
    for case in cases:
        file = predictions / f"{case}{dataset.ending}"
        if not file.exists():
            raise DemoError(f"{file} is missing: nnU-Net did not predict case {case}")
        reference, spacing = read_volume(dataset.label(case))
        prediction, _ = read_volume(file)
        if prediction.shape != reference.shape:
            raise DemoError(f"{file} has shape {prediction.shape}, its reference {reference.shape}")
        counted = np.ones(reference.shape, bool) if dataset.ignore_label is None else reference != dataset.ignore_label
        found[case] = {}
        for name, labels in dataset.classes.items():
            truth, answer = (class_mask(each, labels) & counted for each in (reference, prediction))
            found[case][name] = score(truth, answer, spacing, tolerance)
    return found


def class_mask(labels: NDArray[Any], members: Sequence[int]) -> NDArray[np.bool_]:
    """Where a label map has one of the labels of a class."""
    return np.isin(np.rint(labels), members)


def case_dice(scores: Scores) -> dict[str, float]:
    """Mean Dice over the classes of each case."""
    return {case: known_mean(each.dice for each in by_class.values()) for case, by_class in scores.items()}


def class_scores(scores: Scores, name: str) -> list[Score]:
    """The scores of one class over all cases."""
    return [by_class[name] for by_class in scores.values()]


def to_json(scores: Scores) -> dict[str, Any]:
    """Plain values; a NaN becomes null."""

    def plain(value: float) -> float | None:
        return None if value != value else value

    return {
        case: {name: {key: plain(value) for key, value in asdict(each).items()} for name, each in by_class.items()}
        for case, by_class in scores.items()
    }


def voxel_shares(dataset: RawDataset, cases: Sequence[str]) -> Mapping[str, float]:
    """Share of all voxels that each class has in the references of some cases."""
    voxels, counts = 0, dict.fromkeys(dataset.classes, 0)
    for case in cases:
        labels, _ = read_volume(dataset.label(case))
        voxels += labels.size
        for name, members in dataset.classes.items():
            counts[name] += int(class_mask(labels, members).sum())
    return {name: count / max(1, voxels) for name, count in counts.items()}
