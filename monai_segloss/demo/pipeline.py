"""The run: from raw volumes to the report, each stage once, with the programs a user of nnU-Net would call."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_segloss.demo import generate, measure, report
from monai_segloss.demo.dataset import RawDataset, link_dataset, link_files, nnunet_name, read_dataset
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.process import Programs, environment, workers
from monai_segloss.demo.progress import Display, Step, bar_listener, read_epochs, train_listener
from monai_segloss.demo.settings import Arm, Settings
from monai_segloss.demo.stages import Stages
from monai_segloss.files import read_json, write_json, write_text

CONFIGURATION, PLANS = "3d_fullres", "nnUNetPlans"


@dataclass
class Demo:
    """One run in one work folder.

    Args:
        work: the folder.
        settings: what is asked for.
        arms: the training, maybe a baseline next to it.
        command: what the user typed, for the report.
        source: the user's data set; None for the generated one.
        display: where progress goes.
        fresh: remove earlier results.
    """

    work: Path
    settings: Settings
    arms: Sequence[Arm]
    command: str
    source: RawDataset | None
    display: Display
    fresh: bool = False
    processes: int = field(init=False)
    stages: Stages = field(init=False)
    programs: Programs = field(init=False)

    def __post_init__(self) -> None:
        self.work = self.work.absolute()
        files = {} if self.source is None else {"files of --data": self.source.fingerprint()}
        self.stages = Stages(self.work, {**self.settings.options(), **files})
        # Starting a process takes longer than reading all the small generated volumes.
        self.processes = 1 if self.source is None else workers()
        self.programs = Programs(self.work, environment(self.work, self.settings.device, self.processes))

    def run(self) -> Path:
        """Do what is not done yet and return the report.

        Raises:
            DemoError: with one sentence.
        """
        self.stages.refuse_foreign()
        self.work.mkdir(parents=True, exist_ok=True)
        with self.programs.only_here():
            self.stages.open(self.fresh)
            self.display.say(f"Work folder: {self.work}")
            self._data()
            self._plan()
            for arm in self.arms:
                self._train(arm)
                self._predict(arm)
            return self._report()

    # -- places ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the data set for nnU-Net."""
        return "Dataset001_SeglossDemo" if self.source is None else nnunet_name(self.source.folder)

    @property
    def number(self) -> str:
        """Number of the data set for nnU-Net."""
        return str(int(self.name[7:10]))

    @property
    def raw(self) -> Path:
        """The raw data set in the work folder."""
        return self.work / "nnUNet_raw" / self.name

    @property
    def preprocessed(self) -> Path:
        """Plans, splits and preprocessed volumes."""
        return self.work / "nnUNet_preprocessed" / self.name

    def fold(self, arm: Arm) -> Path:
        """Results of one training."""
        model = f"{arm.trainer}__{PLANS}__{CONFIGURATION}"
        return self.work / "nnUNet_results" / self.name / model / f"fold_{self.settings.fold}"

    def predictions(self, arm: Arm) -> Path:
        """Predicted label maps of one training."""
        return self.work / "predictions" / arm.trainer

    # -- stages ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _stage(self, stage: str, title: str) -> Iterator[Step]:
        with self.display.stage(title) as step, self.stages.stage(stage):
            yield step
        self._tell(stage, title)

    def _tell(self, stage: str, title: str, note: str = "") -> None:
        self.display.say(f"{title:<52} {report.duration(self.stages.seconds(stage)):>9} {note}".rstrip())

    def _skip(self, stage: str, title: str, *products: Path) -> bool:
        if not self.stages.done(stage, *products):
            return False
        self._tell(stage, title, "(done earlier)")
        return True

    def _data(self) -> None:
        title = "generate volumes" if self.source is None else "link the data set"
        if self._skip("data", title, self.raw / "dataset.json"):
            return
        with self._stage("data", title):
            if self.source is None:
                generate.make_dataset(self.raw, self.settings.seed, self.settings.size)
            else:
                link_dataset(self.source, self.raw)

    def _plan(self) -> None:
        title = "nnUNetv2_plan_and_preprocess"
        plans = self.preprocessed / f"{PLANS}.json"
        if self._skip("plan", title, plans):
            return
        dataset, processes = read_dataset(self.raw), str(self.processes)
        with self._stage("plan", title) as step:
            shutil.rmtree(self.preprocessed, ignore_errors=True)
            self.preprocessed.mkdir(parents=True)
            (self.work / "nnUNet_results").mkdir(exist_ok=True)
            command = [title, "-d", self.number, "-c", CONFIGURATION, "-np", processes, "-npfp", processes]
            command += [] if self.source is None else ["--verify_dataset_integrity"]
            self.programs.run(command, "plan", bar_listener(step, len(dataset.cases)))
            if CONFIGURATION not in read_json(plans)["configurations"]:
                raise DemoError(f"nnU-Net plans no {CONFIGURATION} for {self.name}: the demo needs volumes, not slices")
            if self.source is None:
                write_json(self.preprocessed / "splits_final.json", generate.make_splits(list(dataset.cases)))

    def _train(self, arm: Arm) -> None:
        stage, title = f"train{arm.suffix}", f"nnUNetv2_train -tr {arm.trainer}"
        final = self.fold(arm) / "checkpoint_final.pth"
        if self._skip(stage, title, final):
            return
        started = any(self.fold(arm).glob("checkpoint_*.pth"))
        command = ["nnUNetv2_train", self.number, CONFIGURATION, str(self.settings.fold), "-tr", arm.trainer]
        command += ["-device", self.settings.device, *(["--c"] if started else [])]
        with self._stage(stage, title) as step:
            listen = train_listener(step, self.settings.epochs, list(read_dataset(self.raw).classes))
            # On a CPU augmentation inside the training costs little, and makes runs of one seed equal bit for bit.
            here = {"nnUNet_n_proc_DA": "0"} if self.settings.device == "cpu" else {}
            self.programs.run(command, stage, listen, here)

    def _predict(self, arm: Arm) -> None:
        stage, title = f"predict{arm.suffix}", f"nnUNetv2_predict -tr {arm.trainer}"
        target, dataset, cases = self.predictions(arm), read_dataset(self.raw), self.cases()
        if self._skip(stage, title, *(target / f"{case}{dataset.ending}" for case in cases)):
            return
        with self._stage(stage, title) as step:
            # A killed run can leave half a file: predict again, it takes seconds.
            shutil.rmtree(target, ignore_errors=True)
            link_files([image for case in cases for image in dataset.images(case)], self.work / "inputs")
            self.programs.run(self.predict_command(arm, target), stage, bar_listener(step, len(cases), "done with "))

    def predict_command(self, arm: Arm, target: Path) -> list[str]:
        """nnU-Net's command that predicts the linked inputs into a folder."""
        command = ["nnUNetv2_predict", "-i", str(self.work / "inputs"), "-o", str(target), "-d", self.number]
        command += ["-c", CONFIGURATION, "-f", str(self.settings.fold), "-tr", arm.trainer]
        return [*command, "-device", self.settings.device, "-npp", "1", "-nps", "1"]

    def cases(self) -> list[str]:
        """Cases that are predicted: labeled test cases, else the validation cases of the fold."""
        dataset = read_dataset(self.raw)
        return list(dataset.tests) or self.split()["val"]

    def split(self) -> dict[str, list[str]]:
        """Training and validation cases of the fold."""
        found: dict[str, list[str]] = read_json(self.preprocessed / "splits_final.json")[self.settings.fold]
        return found

    def _report(self) -> Path:
        target = self.work / "report.html"
        with self.display.stage("measure and report"), self.stages.stage("report"):
            results = [self._result(arm) for arm in self.arms]
            scores = {result.trainer: measure.to_json(result.scores) for result in results}
            write_json(self.work / "scores.json", {"nsd_tolerance_mm": self.tolerance(), "trainers": scores})
            write_text(target, report.render(self._facts(results)))
        self._tell("report", "measure and report")
        for line in report.summary_lines(results, list(read_dataset(self.raw).classes)):
            self.display.say(line)
        return target

    def _result(self, arm: Arm) -> report.Result:
        log = self.work / "logs" / f"train{arm.suffix}.log"
        with open(log, encoding="utf-8", errors="replace") as lines:
            epochs = read_epochs(lines)
        scores = measure.measure(read_dataset(self.raw), self.cases(), self.predictions(arm), self.tolerance())
        return report.Result(arm.trainer, arm.loss, epochs, scores, self.predictions(arm))

    def _facts(self, results: list[report.Result]) -> report.ReportData:
        names = ["data", "plan", *(f"{what}{arm.suffix}" for arm in self.arms for what in ("train", "predict"))]
        times = {name: (self.stages.seconds(name), self.stages.attempts(name)) for name in names}
        return report.ReportData(
            settings=self.settings,
            command=self.command,
            dataset=read_dataset(self.raw),
            source=self.source.folder if self.source else None,
            split=self.split(),
            cases=self.cases(),
            plan=self.plan(),
            tolerance=self.tolerance(),
            times=times,
            results=results,
        )

    def plan(self) -> Mapping[str, Any]:
        """The planned configuration that is trained."""
        found: Mapping[str, Any] = read_json(self.preprocessed / f"{PLANS}.json")["configurations"][CONFIGURATION]
        return found

    def tolerance(self) -> float:
        """Of the surface Dice in mm: as asked, else the shortest voxel edge of the plan."""
        if self.settings.tolerance is not None:
            return self.settings.tolerance
        return round(min(self.plan()["spacing"]), 2)


def needed_space(arms: int, source: RawDataset | None) -> int:
    """Bytes a run needs: three checkpoints per training, and compressed volumes in their preprocessed form."""
    if source is None:
        return arms * 3 * 10**8
    files = [image for case in (*source.cases, *source.tests) for image in source.images(case)]
    return arms * 15 * 10**8 + 8 * sum(file.stat().st_size for file in files)


def check_space(work: Path, needed: int, free: Callable[[Path], int] | None = None) -> None:
    """Refuse to begin where the disk is too full.

    Raises:
        DemoError: says how much is needed and how much there is.
    """
    there = work.absolute()
    while not there.exists():
        there = there.parent
    available = free(there) if free else shutil.disk_usage(there).free
    if available < needed:
        raise DemoError(
            f"--out {work} needs {needed / 1e9:.1f} GB of free disk space and has {available / 1e9:.1f} GB: "
            "delete files or choose another --out"
        )
