"""A comparison from raw volumes to its tables: plan once, two iterations of each arm, then every run that is not done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from monai_segloss.datalist.soft_labels import FRACTIONS, RATERS, SoftLabelError, find
from monai_segloss.demo import generate, heads
from monai_segloss.demo.dataset import RawDataset, link_dataset, nnunet_name, read_dataset
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.process import Programs, environment, workers
from monai_segloss.demo.progress import Display
from monai_segloss.demo.stages import Stages
from monai_segloss.experiment import queue
from monai_segloss.experiment.backends import Backend, backend
from monai_segloss.experiment.costs import EPOCHS, ITERATIONS, Estimate, estimate, free
from monai_segloss.experiment.folds import make_folds, read_patients
from monai_segloss.experiment.matrix import Matrix, Run
from monai_segloss.experiment.measures import Options
from monai_segloss.experiment.measuring import measure_runs
from monai_segloss.experiment.network import SETTINGS
from monai_segloss.experiment.queue import Cluster, Show
from monai_segloss.experiment.running import DIVERGED, DONE, Task
from monai_segloss.experiment.smoke import smoke
from monai_segloss.experiment.tables import Tables
from monai_segloss.files import write_json

DEMO_NAME, DEMO_SIZE, DEMO_FOLDS = "Dataset001_SeglossCompare", generate.Size(train=24, test=0), 3
"""Eight generated cases are held out: with fewer than six the signed-rank test cannot reject."""
HEADS = generate.Size(train=40, test=0, extent=heads.EXTENT)


@dataclass
class Comparison:
    """A comparison in its folder.

    Args:
        work: the folder.
        matrix: what is compared.
        display: where progress goes.
        jobs: runs at a time on this machine.
        cluster: that runs them instead.
    """

    work: Path
    matrix: Matrix
    display: Display
    jobs: int = 1
    cluster: Cluster | None = None
    source: RawDataset | None = field(init=False, default=None)
    backend: Backend = field(init=False)
    stages: Stages = field(init=False)
    programs: Programs = field(init=False)
    patients: Mapping[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.work = self.work.absolute()
        self.backend = backend(self.matrix.backend)
        self.backend.refuse_missing_packages()
        if self.matrix.data is not None:
            self.source = read_dataset(self.matrix.data, 2, None)
            if self.matrix.patients is not None:
                self.patients = read_patients(self.matrix.patients, list(self.source.cases))
        self._refuse()
        self.processes = 1 if self.source is None else workers()
        self.stages = Stages(self.work, self._settings(), "segloss compare", "--output", "")
        self.programs = Programs(self.work, environment(self.work, self.matrix.device, self.processes))

    def _settings(self) -> dict[str, object]:
        """What all runs of the folder have in common; arms, seeds and folds may be added later."""
        data, same = self.matrix.data, ("configuration", "epochs", "iterations", "lr", "device")
        files = {} if self.source is None else {"files of --data": self.source.fingerprint()}
        network = {f"--{x}".replace("_", "-"): getattr(self.matrix, x) for x in SETTINGS}
        asked = {option: value for option, value in network.items() if value is not None}
        asked |= {
            f"--{x}": getattr(self.matrix, x) for x in ("optimizer", "validation_fold") if getattr(self.matrix, x)
        }
        asked |= {"--backend": self.matrix.backend} if self.matrix.backend != "nnunet" else {}
        asked |= {"--demo": self.matrix.demo} if self.matrix.demo == "head" else {}
        common = {f"--{x}": getattr(self.matrix, x) for x in same}
        folds = {"--splits": self.matrix.splits} if self.matrix.splits != 5 else {}
        whose = {"--patients": dict(self.patients)} if self.patients else {}
        return {"--data": data and str(data.resolve()), **files, **common, **asked, **folds, **whose}

    def _refuse(self) -> None:
        """Refuse folds that there are not, and losses that cannot do what the data set asks for."""
        from nnunet_trainers.building import DatasetProperties, refuse_unsupported

        self.backend.refuse(self.matrix, self.source)
        folds, why = self._folds(), "" if self.fewer_folds is None else f", since {self.fewer_folds}"
        if folds < 2:
            raise DemoError(f"a comparison needs two folds or more: there is {folds}{why}")
        if self.matrix.validation_fold and folds < 3:
            raise DemoError(f"validation_fold needs three folds or more: there are {folds}{why}")
        if max(self.matrix.folds) >= folds:
            raise DemoError(f"--fold {max(self.matrix.folds)}: the {folds} folds are 0 to {folds - 1}{why}")
        regions, ignore = (False, None) if self.source is None else (self.source.regions, self.source.ignore_label)
        dimensions = 2 if self.matrix.configuration == "2d" else 3
        for arm in self.matrix.arms:
            try:
                refuse_unsupported(arm.config, DatasetProperties(regions, ignore, False, dimensions, arm.soft))
            except NotImplementedError as error:
                raise DemoError(f"arm {arm.name!r}: {error}") from None
            if arm.soft and not self._has_soft_labels():
                where = "the generated volumes have" if self.source is None else f"{self.source.folder} has"
                raise DemoError(
                    f"arm {arm.name!r} is trained on soft labels, and {where} neither {RATERS} nor {FRACTIONS}"
                )

    def _has_soft_labels(self) -> bool:
        if self.source is None:
            return False
        labels = {label for each in self.source.classes.values() for label in each}
        try:
            return find(self.source.folder, self.source.ending, labels, self.source.cases) is not None
        except SoftLabelError as error:
            raise DemoError(str(error)) from None

    # -- places ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the data set for nnU-Net."""
        return DEMO_NAME if self.source is None else nnunet_name(self.source.folder)

    @property
    def number(self) -> str:
        """Of the data set, as nnU-Net's commands take it."""
        return str(int(self.name[7:10]))

    @property
    def raw(self) -> Path:
        """The raw data set in the folder."""
        return self.work / "nnUNet_raw" / self.name

    @property
    def preprocessed(self) -> Path:
        """Plans, splits and preprocessed volumes."""
        return self.work / "nnUNet_preprocessed" / self.name

    @property
    def unit(self) -> str:
        """What a fold holds out: patients where they are given, else cases."""
        return "patient" if self.patients else "case"

    @property
    def fewer_folds(self) -> str | None:
        """Why there are fewer folds than ``--splits`` asks for, as part of a sentence; None if there are not."""
        folds, asked = self._folds(), self.matrix.splits
        if self.source is None or folds == asked:
            return None
        return f"--splits {asked} asks for {asked} folds and the data set has {folds} {self.unit}{'s' * (folds != 1)}"

    def _folds(self) -> int:
        """At most as many as there are patients; a case without a patient is its own."""
        if self.source is None:
            return min(self.matrix.splits, HEADS.train) if self.matrix.demo == "head" else DEMO_FOLDS
        return min(self.matrix.splits, len({self.patients.get(case, case) for case in self.source.cases}))

    def splits(self) -> list[dict[str, list[str]]]:
        """Cases of each fold, maybe without those of the next one in training."""
        found = self._cross_validation()
        if not self.matrix.validation_fold:
            return found
        following = [set(each["val"]) for each in (*found[1:], found[0])]
        return [
            {"train": [case for case in each["train"] if case not in left], "val": each["val"]}
            for each, left in zip(found, following, strict=True)
        ]

    def _cross_validation(self) -> list[dict[str, list[str]]]:
        """As nnU-Net splits; the generated body in three folds."""
        cases = list(read_dataset(self.raw, 2, None).cases)
        if self.source is None:
            return generate.make_splits(cases, self._folds())
        return make_folds(cases, self._folds(), self.patients)

    def held_out_patients(self) -> set[str]:
        """The patients that the runs are measured on; a case without a patient is its own."""
        splits = self.splits()
        return {self.patients.get(case, case) for fold in self.matrix.folds for case in splits[fold]["val"]}

    def held_out(self) -> list[dict[str, list[str]]]:
        """The folds, and one more that the two iterations hold out: at most two cases."""
        splits = self.splits()
        first = splits[self.matrix.folds[0]]
        return [*splits, {"train": first["train"], "val": first["val"][:2]}]

    def tasks(self) -> list[Task]:
        """Every run."""
        return [self._task(run) for run in self.matrix.runs()]

    def _task(self, run: Run, trial: bool = False) -> Task:
        about = (self.name, self.backend.configuration(self.matrix), self.matrix.device)
        return self.backend.task(self.work, self.stages.settings, run, *about, retries=0 if trial else 2, trial=trial)

    # -- what is done ---------------------------------------------------------------------------------------------

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the folder.

        Raises:
            DemoError: it is somebody's, or of a comparison with other settings.
        """
        self.stages.refuse_foreign()
        self.work.mkdir(parents=True, exist_ok=True)
        with self.programs.only_here():
            self.stages.open(False)
            write_json(self.work / "comparison.json", self.matrix.model_dump(mode="json", exclude_defaults=True))
            yield

    def prepare(self) -> Estimate:
        """Data, plan and two iterations of every arm; what the runs that are not done will take.

        Raises:
            DemoError: an arm fails in these iterations, or something before them.
        """
        self._data()
        self.backend.plan(self)
        splits = self.splits()
        costs = {}
        for arm in self.matrix.arms:
            run = self.matrix.run(arm, 0, len(splits), EPOCHS, ITERATIONS)
            with self.display.stage(f"two iterations of {arm.name}"):
                costs[arm.name] = smoke(self._task(run, trial=True))
        cases = {number: len(each["val"]) for number, each in enumerate(splits)}
        left = [task.run for task in self.tasks() if task.state() not in (DONE, DIVERGED)]
        return estimate(self.matrix, left, costs, cases, self.jobs)

    def _data(self) -> None:
        if self.stages.done("data", self.raw / "dataset.json"):
            return
        with self.display.stage("data"), self.stages.stage("data"):
            if self.matrix.demo == "head":
                generate.make_dataset(self.raw, 0, HEADS, heads.make_head, heads.LABELS)
            elif self.source is None:
                generate.make_dataset(self.raw, 0, DEMO_SIZE)
            else:
                link_dataset(self.source, self.raw)

    def run(self, expected: Estimate, show: Show) -> None:
        """Every run that is not done.

        Raises:
            DemoError: the disk is too full, or fills up.
        """
        if free(self.work) < expected.bytes:
            raise DemoError(
                f"--output {self.work} needs {expected.bytes / 1e9:.1f} GB of free disk space for the runs that are not "
                f"done, and has {free(self.work) / 1e9:.1f} GB: delete files or choose another --output"
            )
        tasks = [task for task in self.tasks() if task.state() not in (DONE, DIVERGED)]
        if self.cluster is not None:
            queue.on_ray(tasks, self.cluster, show)
        else:
            queue.here(tasks, self.jobs, show)

    def measure(self) -> Tables:
        """The tables of all runs, also of those that failed."""
        sources = [task.source() for task in self.tasks()]
        options = Options(self.matrix.tolerance, self.matrix.sizes, self.matrix.tubes)
        with self.display.stage("measure") as step:
            done = iter(range(1, len(sources) + 1))
            return measure_runs(
                sources, self.work, options, self.patients, self.jobs, lambda _: step(next(done), len(sources))
            )
