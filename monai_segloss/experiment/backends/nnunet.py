"""Runs of a comparison by nnU-Net's own programs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from monai_segloss.demo.dataset import read_dataset
from monai_segloss.demo.problem import DemoError
from monai_segloss.demo.progress import Epoch, bar_listener, read_epochs
from monai_segloss.experiment import sources
from monai_segloss.experiment.backends import Backend
from monai_segloss.experiment.costs import ITERATIONS, PATCHES, Cost
from monai_segloss.experiment.network import set_network
from monai_segloss.experiment.running import Task
from monai_segloss.files import read_json, write_json

if TYPE_CHECKING:
    from monai_segloss.demo.dataset import RawDataset
    from monai_segloss.experiment.arms import Arm
    from monai_segloss.experiment.comparison import Comparison
    from monai_segloss.experiment.matrix import Matrix

PLANS = "nnUNetPlans"
STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+): ?(.*?)\s*$", re.M)


@dataclass(frozen=True)
class NNUNetTask(Task):
    """A training of nnU-Net; it predicts what it holds out itself."""

    RESULTS: ClassVar[str] = "nnUNet_results"

    @property
    def fold(self) -> Path:
        """nnU-Net's folder of the run."""
        model = f"{self.run.trainer}__{PLANS}__{self.run.configuration}"
        return self.results / self.dataset / model / f"fold_{self.run.fold}"

    @property
    def predictions(self) -> Path:
        return self.fold / "validation"

    @property
    def labels(self) -> Path:
        return self.work / "nnUNet_preprocessed" / self.dataset / "gt_segmentations"

    @property
    def product(self) -> Path:
        return self.predictions / "summary.json"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        number = str(int(self.dataset.removeprefix("Dataset").split("_")[0]))
        command = ["nnUNetv2_train", number, self.run.configuration, str(self.run.fold), "-tr", self.run.trainer]
        command += ["-device", self.device, "--npz"]
        if (self.fold / "checkpoint_final.pth").exists():
            command += ["--val"]
        elif any(self.fold.glob("checkpoint_*.pth")):
            command += ["--c"]
        yield "train", command

    def extra(self) -> dict[str, str]:
        """No worker on a CPU besides, and a checkpoint after each epoch."""
        alone = {"nnUNet_n_proc_DA": "0"} if self.device == "cpu" else {}
        return {**super().extra(), **alone, "segloss_save_every": "1"}

    def epochs(self) -> list[Epoch]:
        if not self.log.exists():
            return []
        with open(self.log, encoding="utf-8", errors="replace") as lines:
            return read_epochs(lines)

    def curves(self) -> None:
        return None

    def facts(self) -> dict[str, Any]:
        return sources.facts(self.fold.parent, self.fold)

    def cost(self) -> Cost:
        log = self.log.read_text(encoding="utf-8", errors="replace")
        stamps = [(datetime.fromisoformat(when).timestamp(), what) for when, what in STAMP.findall(log)]
        trained = next(when for when, what in reversed(stamps) if what.startswith("Training done"))
        epoch = self.epochs()[-1].seconds
        end = self.log.stat().st_mtime
        predicting = [when for when, what in stamps if what.startswith("predicting ")]
        case = (predicting[-1] - predicting[0]) / (len(predicting) - 1) if len(predicting) > 1 else end - trained
        checkpoints = [file.stat().st_size for file in self.fold.glob("checkpoint_*.pth")]
        return Cost(
            max(0.0, self.seconds() - epoch - len(predicting) * case),
            epoch / (ITERATIONS + PATCHES),
            case,
            max(checkpoints, default=0),
            sum(file.stat().st_size for file in self.predictions.iterdir()) // max(1, len(predicting)),
        )


class NNUNetBackend(Backend):
    """nnU-Net with the trainers of this package."""

    NAME = "nnunet"
    PACKAGES = ("nnunetv2", "nibabel", "matplotlib", "jinja2")
    DEMO: ClassVar = {"lr": 0.05}
    task = NNUNetTask

    def names(self, matrix: Matrix, arm: Arm, seed: int, epochs: int, iterations: int) -> tuple[str, str]:
        """The trainer, and the configuration in the plans that has the loss of an arm, or any."""
        planned = f"{matrix.configuration}_{arm.name}" if arm.planned else matrix.configuration
        return arm.trainer_name(seed, epochs, iterations, matrix.lr, matrix.optimizer), planned

    def configuration(self, matrix: Matrix) -> str:
        return matrix.configuration

    def refuse(self, matrix: Matrix, source: RawDataset | None) -> None:
        """Everything is nnU-Net's."""

    def plan(self, comparison: Comparison) -> None:
        title, matrix, plans = (
            "nnUNetv2_plan_and_preprocess",
            comparison.matrix,
            comparison.preprocessed / f"{PLANS}.json",
        )
        if not comparison.stages.done("plan", plans):
            cases, processes = read_dataset(comparison.raw, 2, None).cases, str(comparison.processes)
            with comparison.display.stage(title) as step, comparison.stages.stage("plan"):
                shutil.rmtree(comparison.preprocessed, ignore_errors=True)
                comparison.preprocessed.mkdir(parents=True)
                (comparison.work / NNUNetTask.RESULTS).mkdir(exist_ok=True)
                command = [
                    title,
                    "-d",
                    comparison.number,
                    "-c",
                    matrix.configuration,
                    "-np",
                    processes,
                    "-npfp",
                    processes,
                ]
                command += [] if comparison.source is None else ["--verify_dataset_integrity"]
                comparison.programs.run(command, "plan", bar_listener(step, len(cases)))
                if matrix.configuration not in read_json(plans)["configurations"]:
                    raise DemoError(
                        f"nnU-Net plans no {matrix.configuration} for {comparison.name}: choose another one"
                    )
                set_network(plans, matrix)
        write_json(comparison.preprocessed / "splits_final.json", comparison.held_out())
        _write_losses(plans, matrix)
        _preprocess_soft_labels(comparison)


def _write_losses(plans: Path, matrix: Matrix) -> None:
    """Configurations for the losses that the name of a trainer cannot hold."""
    from nnunet_trainers.building import plain
    from nnunet_trainers.plans import PlansError, add_configuration

    for arm in matrix.arms:
        if arm.planned:
            loss = plain(arm.config.model_dump(exclude_defaults=True))
            try:
                add_configuration(plans, matrix.configuration, arm.name, loss)
            except PlansError as error:
                raise DemoError(f"arm {arm.name!r}: {error}") from None


def _preprocess_soft_labels(comparison: Comparison) -> None:
    """As nnU-Net preprocesses labels, where an arm is trained on them."""
    from nnunet_trainers.soft_labels import FOLDER

    soft = any(arm.soft for arm in comparison.matrix.arms)
    if not soft or comparison.stages.done("soft_labels", comparison.preprocessed / FOLDER):
        return
    command = ["segloss", "nnunet", "soft-labels", comparison.number, comparison.matrix.configuration]
    with comparison.display.stage("segloss nnunet soft-labels"), comparison.stages.stage("soft_labels"):
        comparison.programs.run([*command, "-np", str(comparison.processes)], "soft_labels", lambda text: None)
