"""What a network has learned that predicts nothing yet: its probability of each class where the class is and elsewhere.

A class is predicted where its probability is the largest of all, a region where its own is above 1/2.  A training too
short for that can still have found the place: Dice is 0 then, but the class is many times as probable inside of its voxels
as outside.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from monai_segloss.checking.volumes import read_image
from monai_segloss.demo.dataset import RawDataset, read_dataset
from monai_segloss.demo.pipeline import Demo
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.settings import Arm


def predicted_probabilities(demo: Demo, arm: Arm) -> dict[str, dict[str, float]]:
    """By class, over the cases that have it, its mean probability ``inside`` and ``outside`` of it, and the ``largest``.

    Raises:
        DemoError: nnU-Net fails.
    """
    dataset, folder = read_dataset(demo.raw), demo.work / "probabilities"
    shutil.rmtree(folder, ignore_errors=True)
    command = [*demo.predict_command(arm, folder), "--save_probabilities"]
    with demo.programs.only_here():
        demo.programs.run(command, f"probabilities{arm.suffix}", lambda line: None)
    rows = [by_class(dataset, folder, case) for case in demo.cases()]
    shutil.rmtree(folder)
    found = {}
    for name in dataset.classes:
        inside, outside, largest = zip(*(row[name] for row in rows if name in row), strict=True)
        means = {"inside": mean(inside), "outside": mean(outside), "largest": max(largest)}
        found[name] = {what: round(value, 4) for what, value in means.items()}
    return found


def by_class(dataset: RawDataset, folder: Path, case: str) -> dict[str, tuple[float, float, float]]:
    """Of one case: by class that it has the mean probability inside and outside of its voxels, and the largest.

    Args:
        dataset: with the reference.
        folder: with what ``nnUNetv2_predict --save_probabilities`` wrote.
        case: which.
    """
    p: NDArray[np.floating] = np.load(folder / f"{case}.npz")["probabilities"]
    reference, predicted = (read_image(file)[0] for file in (dataset.label(case), folder / f"{case}{dataset.ending}"))
    if not np.array_equal(decided(p, dataset), predicted):
        raise DemoError(f"{case}: nnU-Net's probabilities are not those of its prediction")
    found = {}
    for channel, (name, labels) in enumerate(dataset.classes.items()):
        own, here = p[channel if dataset.regions else labels[0]], np.isin(np.rint(reference), labels)
        if here.any():
            found[name] = float(own[here].mean()), float(own[~here].mean()), float(own.max())
    return found


def decided(p: NDArray[np.floating], dataset: RawDataset) -> NDArray[np.integer]:
    """The label of each voxel that nnU-Net makes of probabilities (C, *S)."""
    if not dataset.regions:
        return p.argmax(0)
    found = np.zeros(p.shape[1:], np.int64)
    for own, label in zip(p, dataset.content["regions_class_order"], strict=True):
        found[own > 0.5] = label
    return found
