"""Two iterations and two held-out cases of every arm before the first run: does it train, how long, how much disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from monai_segloss.demo.problem import DemoError
from monai_segloss.experiment.matrix import Matrix, Run
from monai_segloss.experiment.running import DONE, Task, execute
from monai_segloss.files import read_json, write_json

FOLDER, EPOCHS, ITERATIONS = "smoke", 1, 2
VALIDATION_COST = 1 / 3
"""Of an iteration of the online validation, which has no backward, against one of the training."""
STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+): ?(.*?)\s*$", re.M)


@dataclass(frozen=True)
class Cost:
    """What two iterations and two held-out cases took.

    Args:
        start: seconds of what a run does once.
        iteration: seconds of one; the first ones are slow.
        case: seconds to predict a held-out case and to write its probabilities.
        checkpoint, volume: bytes of a checkpoint and of the files of a held-out case.
    """

    start: float
    iteration: float
    case: float
    checkpoint: int
    volume: int

    def seconds(self, epochs: int, iterations: int, cases: int) -> float:
        """Of a run."""
        epoch = (iterations + max(1, iterations // 5) * VALIDATION_COST) * self.iteration
        return self.start + epochs * epoch + cases * self.case

    def bytes(self, cases: int) -> int:
        """Of a finished run: the best and the last checkpoint, and the held-out cases."""
        return 2 * self.checkpoint + cases * self.volume


def smoke(task: Task) -> Cost:
    """The cost of an arm, measured once.

    Args:
        task: of two iterations, with two held-out cases.

    Raises:
        DemoError: it failed.
    """
    kept, key = task.work / FOLDER / "costs.json", f"{task.run.trainer} {task.run.configuration}"
    known = read_json(kept) if kept.exists() else {}
    if key not in known:
        task.forget()
        if execute(task) != DONE:
            reason = task.ended().get("reason", "it did not end")
            raise DemoError(f"arm {task.run.arm!r} fails in two iterations, before any run has begun: {reason}")
        known[key] = asdict(_cost(task))
        write_json(kept, known)
        shutil.rmtree(task.fold.parent, ignore_errors=True)
    return Cost(**known[key])


def _cost(task: Task) -> Cost:
    log = task.log.read_text(encoding="utf-8", errors="replace")
    stamps = [(datetime.fromisoformat(when).timestamp(), what) for when, what in STAMP.findall(log)]
    trained = next(when for when, what in reversed(stamps) if what.startswith("Training done"))
    epoch = task.epochs()[-1].seconds
    end = task.log.stat().st_mtime
    predicting = [when for when, what in stamps if what.startswith("predicting ")]
    case = (predicting[-1] - predicting[0]) / (len(predicting) - 1) if len(predicting) > 1 else end - trained
    files = [*(task.fold / "validation").iterdir()]
    checkpoints = [file.stat().st_size for file in task.fold.glob("checkpoint_*.pth")]
    return Cost(
        max(0.0, task.seconds() - epoch - len(predicting) * case),
        epoch / (ITERATIONS + VALIDATION_COST),
        case,
        max(checkpoints, default=0),
        sum(file.stat().st_size for file in files) // max(1, len(predicting)),
    )


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
