"""One run of a comparison: nnU-Net's own program, until it is done or cannot be, wherever it is started."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_segloss.demo.problem import DemoError, DiskFullError, DivergedError, KilledError
from monai_segloss.demo.process import Programs, environment
from monai_segloss.demo.progress import Epoch, read_epochs
from monai_segloss.demo.stages import Stages
from monai_segloss.experiment import sources
from monai_segloss.experiment.matrix import Run
from monai_segloss.experiment.sources import Source
from monai_segloss.files import read_json, write_json

PLANS, RESULTS = "nnUNetPlans", "nnUNet_results"
WAITING, RUNNING, DONE, FAILED, DIVERGED = "waiting", "running", "done", "failed", "diverged"


@dataclass(frozen=True)
class Task:
    """A run and its place, as plain data that another machine understands.

    Args:
        work: folder of the comparison, shared by all machines.
        settings: of the comparison, see `Stages`.
        run: what is trained.
        dataset, configuration: names, as the tables have them.
        device: cpu, cuda or mps.
        retries: how often a run that was killed from outside goes on.
        results: name of the folder of nnU-Net's results.
    """

    work: Path
    settings: Mapping[str, Any]
    run: Run
    dataset: str
    configuration: str
    device: str = "cpu"
    retries: int = 2
    results: str = RESULTS

    @property
    def key(self) -> str:
        """In names of files."""
        return self.run.key if self.results == RESULTS else f"{self.results}-{self.run.arm}"

    @property
    def folder(self) -> Path:
        """Logs and state of the run."""
        return self.work / "runs" / self.key

    @property
    def log(self) -> Path:
        """What nnU-Net says."""
        return self.folder / "logs" / "train.log"

    @property
    def fold(self) -> Path:
        """nnU-Net's folder of the run."""
        model = f"{self.run.trainer}__{PLANS}__{self.run.configuration}"
        return self.work / self.results / self.dataset / model / f"fold_{self.run.fold}"

    @property
    def preprocessed(self) -> Path:
        """Plans, splits and labels."""
        return self.work / "nnUNet_preprocessed" / self.dataset

    @property
    def stages(self) -> Stages:
        """The markers of the comparison."""
        return Stages(self.work, self.settings)

    def seconds(self) -> float:
        """Of all attempts."""
        return self.stages.seconds(self.key)

    def state(self) -> str:
        """Where the run is; a failed one may be tried again."""
        if self.stages.done(self.key, self.fold / "validation" / "summary.json"):
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

    def epochs(self) -> list[Epoch]:
        """Those that are over, from the log."""
        if not self.log.exists():
            return []
        with open(self.log, encoding="utf-8", errors="replace") as lines:
            return read_epochs(lines)

    def command(self) -> list[str]:
        """nnU-Net's command that begins the run or goes on with it."""
        number = str(int(self.dataset.removeprefix("Dataset").split("_")[0]))
        command = ["nnUNetv2_train", number, self.run.configuration, str(self.run.fold), "-tr", self.run.trainer]
        command += ["-device", self.device, "--npz"]
        if (self.fold / "checkpoint_final.pth").exists():
            return [*command, "--val"]
        return [*command, *(["--c"] if any(self.fold.glob("checkpoint_*.pth")) else [])]

    def source(self) -> Source:
        """The run for the tables."""
        state, description = self.state(), read_json(self.work / "nnUNet_raw" / self.dataset / "dataset.json")
        facts = {"reason": self.ended().get("reason", ""), **sources.facts(self.fold.parent, self.fold)}
        return Source(
            self.run.name,
            self.run.arm,
            self.run.seed,
            str(self.run.fold),
            self.dataset,
            self.configuration,
            self.fold / "validation",
            self.preprocessed / "gt_segmentations",
            description,
            facts,
            state if state in (DONE, DIVERGED) else FAILED,
            self.work / "nnUNet_raw" / self.dataset / "imagesTr",
        )

    def finish(self, state: str, reason: str) -> None:
        """Note that the run ended by an error."""
        write_json(self._end, {"state": state, "reason": reason, "trainer": self.run.trainer})

    def forget(self) -> None:
        """Let a run that ended by an error be tried again."""
        self._end.unlink(missing_ok=True)


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
    programs = Programs(task.folder, variables(task), stop)
    with programs.only_here():
        task.forget()
        for attempt in range(task.retries + 1):
            try:
                with task.stages.stage(task.key):
                    programs.run(task.command(), "train", lambda text: None, extra(task))
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


def variables(task: Task) -> dict[str, str]:
    """The environment of a run."""
    found = environment(task.work, task.device, 1)
    return {**found, "nnUNet_results": str(task.work / task.results)}


def extra(task: Task) -> dict[str, str]:
    """What a run gets where the user has not set it: one thread and no worker on a CPU, so that its bits depend on nothing
    else, and a checkpoint after each epoch."""
    alone = {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0"} if task.device == "cpu" else {}
    return {**alone, "segloss_save_every": "1"}
