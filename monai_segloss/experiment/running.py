"""One run of a comparison: the programs of its backend, until it is done or cannot be, wherever it is started."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from monai_segloss.demo.problem import DemoError, DiskFullError, DivergedError, KilledError
from monai_segloss.demo.process import Programs, environment
from monai_segloss.demo.progress import Epoch
from monai_segloss.demo.stages import Stages
from monai_segloss.experiment.costs import Cost
from monai_segloss.experiment.matrix import Run
from monai_segloss.experiment.sources import Source
from monai_segloss.files import read_json, write_json

WAITING, RUNNING, DONE, FAILED, DIVERGED = "waiting", "running", "done", "failed", "diverged"
TRIAL = "smoke"
"""Folder of the two iterations that every arm is tried with."""


@dataclass(frozen=True)
class Task(ABC):
    """A run and its place, as plain data that another machine understands.

    Args:
        work: folder of the comparison, shared by all machines.
        settings: of the comparison, see `Stages`.
        run: what is trained.
        dataset, configuration: names, as the tables have them.
        device: cpu, cuda or mps.
        retries: how often a run that was killed from outside goes on.
        trial: one of the two iterations before the first run.
    """

    RESULTS: ClassVar[str]
    """Folder of what runs leave."""

    work: Path
    settings: Mapping[str, Any]
    run: Run
    dataset: str
    configuration: str
    device: str = "cpu"
    retries: int = 2
    trial: bool = False

    # -- what a backend says ----------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def fold(self) -> Path:
        """The run's own results, alone in a folder of its model."""

    @property
    @abstractmethod
    def predictions(self) -> Path:
        """Held-out cases, with their probabilities."""

    @property
    @abstractmethod
    def labels(self) -> Path:
        """Their references."""

    @property
    @abstractmethod
    def product(self) -> Path:
        """What is there once the run is done."""

    @abstractmethod
    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """What is left to do: name of a log, and the command; the next one is asked for when the last one has ended well."""

    @abstractmethod
    def epochs(self) -> list[Epoch]:
        """Those that are over."""

    @abstractmethod
    def curves(self) -> Sequence[Mapping[str, Any]] | None:
        """Their rows in the tables; None where nnU-Net's own logs have them."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """For the table of runs, whether the run was finished or not."""

    @abstractmethod
    def cost(self) -> Cost:
        """What a trial took that is done."""

    def extra(self) -> dict[str, str]:
        """Variables where the user has not set them: one thread on a CPU, so that its bits depend on nothing else."""
        return {"OMP_NUM_THREADS": "1"} if self.device == "cpu" else {}

    # -- where it is ------------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """In names of files."""
        return f"{TRIAL}-{self.run.arm}" if self.trial else self.run.key

    @property
    def results(self) -> Path:
        """Folder of what runs leave."""
        return self.work / (TRIAL if self.trial else self.RESULTS)

    @property
    def folder(self) -> Path:
        """Logs and state of the run."""
        return self.work / "runs" / self.key

    @property
    def log(self) -> Path:
        """What the program says that trains."""
        return self.folder / "logs" / "train.log"

    @property
    def raw(self) -> Path:
        """The raw data set."""
        return self.work / "nnUNet_raw" / self.dataset

    @property
    def stages(self) -> Stages:
        """The markers of the comparison."""
        return Stages(self.work, self.settings)

    # -- how far it is ----------------------------------------------------------------------------------------------

    def seconds(self) -> float:
        """Of all attempts."""
        return self.stages.seconds(self.key)

    def state(self) -> str:
        """Where the run is; a failed one may be tried again."""
        if self.stages.done(self.key, self.product):
            return DONE
        ended: str = self.ended().get("state", "")
        return ended or (RUNNING if self.stages.attempts(self.key) else WAITING)

    def ended(self) -> dict[str, Any]:
        """State and reason of a run that ended by an error."""
        found: dict[str, Any] = read_json(self._end) if self._end.exists() else {}
        return found if found.get("trainer") == self.run.trainer else {}

    @property
    def _end(self) -> Path:
        return self.folder / "ended.json"

    def finish(self, state: str, reason: str) -> None:
        """Note that the run ended by an error."""
        write_json(self._end, {"state": state, "reason": reason, "trainer": self.run.trainer})

    def forget(self) -> None:
        """Let a run that ended by an error be tried again."""
        self._end.unlink(missing_ok=True)

    def description(self) -> dict[str, Any]:
        """Of the data set, for who reads labels and predictions."""
        found: dict[str, Any] = read_json(self.raw / "dataset.json")
        return found

    def source(self) -> Source:
        """The run for the tables."""
        state = self.state()
        return Source(
            self.run.name,
            self.run.arm,
            self.run.seed,
            str(self.run.fold),
            self.dataset,
            self.configuration,
            self.predictions,
            self.labels,
            self.description(),
            {"reason": self.ended().get("reason", ""), **self.facts()},
            state if state in (DONE, DIVERGED) else FAILED,
            self.raw / "imagesTr",
            self.curves(),
        )


def execute(task: Task, stop: threading.Event | None = None) -> str:
    """Bring a run to its end and return its state; one that is done or has diverged is left as it is.

    Args:
        task: the run.
        stop: ends the program when set.

    Raises:
        DiskFullError: others would not get further either.
        DemoError: somebody else is at work in the folder of the run.
    """
    if task.state() in (DONE, DIVERGED):
        return task.state()
    task.folder.mkdir(parents=True, exist_ok=True)
    variables = {**environment(task.work, task.device, 1), "nnUNet_results": str(task.results)}
    programs = Programs(task.folder, variables, stop)
    with programs.only_here():
        task.forget()
        for attempt in range(task.retries + 1):
            try:
                with task.stages.stage(task.key):
                    for name, command in task.commands():
                        programs.run(command, name, lambda text: None, task.extra())
                break
            except DiskFullError:
                raise
            except KilledError as error:
                if attempt == task.retries:
                    task.finish(FAILED, str(error))
            except DemoError as error:
                task.finish(DIVERGED if isinstance(error, DivergedError) else FAILED, str(error))
                break
    return task.state()
