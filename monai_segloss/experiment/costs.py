"""Time and disk of runs, estimated from two iterations and two held-out cases of each arm."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_segloss.experiment.matrix import Matrix, Run

EPOCHS, ITERATIONS = 1, 2
"""Length of a trial."""
PATCHES = 1 / 3
"""Of an iteration of nnU-Net's online validation, which has no backward, against one of the training."""
VALIDATIONS = 10
"""Of the held-out cases while a bundle trains, at least, where it has as many epochs."""


def validation_interval(epochs: int) -> int:
    """Epochs between two validations of a bundle."""
    return max(1, epochs // VALIDATIONS)


@dataclass(frozen=True)
class Cost:
    """What two iterations and two held-out cases took.

    Args:
        start: seconds of what a run does once.
        iteration: seconds of one; the first ones are slow.
        case: seconds to predict a held-out case and to write its probabilities.
        checkpoint, volume: bytes of a checkpoint and of the files of a held-out case.
        patches: of an iteration of validation, for every fifth of the training, as nnU-Net has it.
        validation: seconds to validate a held-out case while a bundle trains.
    """

    start: float
    iteration: float
    case: float
    checkpoint: int
    volume: int
    patches: float = PATCHES
    validation: float = 0.0

    def seconds(self, epochs: int, iterations: int, cases: int) -> float:
        """Of a run."""
        epoch = (iterations + max(1, iterations // 5) * self.patches) * self.iteration
        validations = epochs // validation_interval(epochs) * cases * self.validation
        return self.start + epochs * epoch + validations + cases * self.case

    def bytes(self, cases: int) -> int:
        """Of a finished run: the best and the last checkpoint, and the held-out cases."""
        return 2 * self.checkpoint + cases * self.volume


@dataclass(frozen=True)
class Estimate:
    """What the runs that are not done will take.

    Args:
        seconds: of each of them, by name.
        bytes: of all.
    """

    seconds: Mapping[str, float]
    bytes: int


def estimate(
    matrix: Matrix, runs: Sequence[Run], costs: Mapping[str, Cost], cases: Mapping[int, int], jobs: int
) -> Estimate:
    """Time and disk of runs.

    Args:
        matrix: the comparison.
        runs: those that are not done.
        costs: of the arms, by name.
        cases: held out by each fold.
        jobs: runs at a time, of which each has a third checkpoint while it trains.
    """
    seconds = {run.name: costs[run.arm].seconds(matrix.epochs, matrix.iterations, cases[run.fold]) for run in runs}
    most = max((costs[run.arm].checkpoint for run in runs), default=0)
    return Estimate(seconds, sum(costs[run.arm].bytes(cases[run.fold]) for run in runs) + jobs * most)


def free(folder: Path) -> int:
    """Bytes that the disk of a folder has left."""
    return shutil.disk_usage(folder).free
