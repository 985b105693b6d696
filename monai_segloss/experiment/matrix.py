"""What is compared: losses with their settings, seeds and folds on one data set, as plain data, and the runs that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from monai_segloss import config
from monai_segloss.config import sentence
from monai_segloss.core.errors import nearest
from monai_segloss.experiment.arms import Arm
from monai_segloss.experiment.backends import backend

MORE_SEEDS = 2
"""Seeds that the baseline has more than the other arms: from them comes the noise of training again."""


class MatrixError(ValueError):
    """A comparison that cannot be made, in one sentence."""


@dataclass(frozen=True)
class Run:
    """One training of a comparison.

    Args:
        arm: its name.
        seed: of weights, batches and augmentation.
        fold: held out.
        trainer, configuration: by which the backend knows it.
        epochs, iterations: its length.
    """

    arm: str
    seed: int
    fold: int
    trainer: str
    configuration: str
    epochs: int
    iterations: int

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.arm} seed {self.seed} fold {self.fold}"

    @property
    def key(self) -> str:
        """In names of files."""
        return f"{self.arm}-seed{self.seed}-fold{self.fold}"


class Matrix(BaseModel):
    """A comparison.

    Args:
        data: nnU-Net raw data set; or
        demo: generated volumes instead: true for a body with three classes, head for a skull.
        arms: losses with their settings.
        backend: that trains: nnunet, or bundle for the bundle of this package.
        baseline: name of the arm that the others are compared with; default: the first.
        seeds: trainings of each arm and fold, with the seeds 0, 1, ...
        baseline_seeds: of the baseline; default: two more.
        folds: of the cross-validation, held out one by one.
        splits: how many folds the cross-validation has.
        patients: JSON file, name of a case -> name of its patient, whose cases lie in one fold and are one patient in the
            statistics; default: each case is a patient of its own.
        validation_fold: leave the fold after the held-out one out of training too: 60-20-20 where there are five.
        configuration: of nnU-Net's plans; the bundle has none.
        epochs, iterations: length of a training.
        lr: initial learning rate; None: the backend's own.
        optimizer: adam; None: the backend's own.
        batch_size, patch_size, features: of the network instead of those of the bundle, or of nnU-Net's plans for a GPU:
            samples of a batch, voxels of a patch along each axis (of nnU-Net's plans; x, y and z for the bundle), and
            channels of the first stage, doubled from stage to stage, by nnU-Net up to the planned most.
        device: cpu, cuda or mps.
        tolerance, sizes, tubes: of the measures, see `measures.Options`.
        margin: see `statistics.Settings`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path | None = None
    demo: bool | Literal["head"] = False
    arms: tuple[Arm, ...] = Field(min_length=1)
    backend: Literal["nnunet", "bundle"] = "nnunet"
    baseline: str = ""
    seeds: int = Field(2, description="trainings of each arm and fold")
    baseline_seeds: int = Field(0, description="trainings of the baseline and fold; 0: two more than the others")
    folds: tuple[int, ...] = Field((0,), min_length=1)
    splits: int = Field(5, ge=2)
    patients: Path | None = None
    validation_fold: bool = False
    configuration: Literal["2d", "3d_fullres", "3d_lowres"] = "3d_fullres"
    epochs: int = Field(100, ge=1)
    iterations: int = Field(250, ge=1)
    lr: float | None = Field(None, gt=0)
    optimizer: Literal["adam"] | None = None
    batch_size: int | None = Field(None, ge=1)
    patch_size: tuple[int, ...] | None = Field(None, min_length=2, max_length=3)
    features: int | None = Field(None, ge=1)
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    tolerance: float = Field(1.0, gt=0, description="of the surface Dice, mm")
    sizes: tuple[float, ...] = Field((), description="edges of the size classes of components, mm³")
    tubes: bool = False
    margin: float = Field(0.0, ge=0)

    @field_validator("seeds")
    @classmethod
    def _several(cls, seeds: int) -> int:
        if seeds < 2:
            raise ValueError(
                f"seeds must be at least 2, got {seeds}: from one training it cannot be said whether another loss or "
                "another seed made a difference."
            )
        return seeds

    @model_validator(mode="after")
    def _fits(self) -> Matrix:
        if bool(self.demo) == (self.data is not None):
            raise ValueError("give either data, an nnU-Net raw data set, or demo for generated volumes.")
        names = [arm.name for arm in self.arms]
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"two arms are called {twice!r}: give one of them another name.")
        nnunet = backend("nnunet")
        trained = Counter(nnunet.names(self, arm, 0, 1, 1) for arm in self.arms)
        (trainer, _), count = trained.most_common(1)[0]
        if count > 1:
            raise ValueError(f"two arms are the same training, {trainer.removesuffix('_seed0_1epochs_1iterations')}.")
        if len(names) < 2:
            raise ValueError(f"a comparison needs at least two arms, got {names[0]!r} alone.")
        if self.baseline and self.baseline not in names:
            raise ValueError(f"baseline {self.baseline!r} is none of the arms {', '.join(names)}.")
        if self.baseline_seeds and self.baseline_seeds < self.seeds:
            raise ValueError(
                f"baseline_seeds must be at least seeds ({self.seeds}), got {self.baseline_seeds}: each arm is paired with "
                "a training of the baseline from the same seed."
            )
        wrong = [fold for fold in self.folds if fold < 0]
        if wrong or len(set(self.folds)) < len(self.folds):
            raise ValueError(f"folds must be different numbers from 0, got {', '.join(map(str, self.folds))}.")
        return self

    @property
    def reference(self) -> Arm:
        """The baseline."""
        return next(arm for arm in self.arms if arm.name == (self.baseline or self.arms[0].name))

    def count(self, arm: Arm) -> int:
        """Seeds of an arm."""
        return self.seeds if arm != self.reference else self.baseline_seeds or self.seeds + MORE_SEEDS

    def run(self, arm: Arm, seed: int, fold: int, epochs: int | None = None, iterations: int | None = None) -> Run:
        """A training of an arm; a shorter one where epochs and iterations are given."""
        length = epochs or self.epochs, iterations or self.iterations
        return Run(arm.name, seed, fold, *backend(self.backend).names(self, arm, seed, *length), *length)

    def runs(self) -> list[Run]:
        """All of them, seed by seed, so that every arm has a result early."""
        return [*self._runs()]

    def _runs(self) -> Iterator[Run]:
        for seed in range(max(map(self.count, self.arms))):
            for fold in self.folds:
                yield from (self.run(arm, seed, fold) for arm in self.arms if seed < self.count(arm))


def matrix(content: Mapping[str, Any]) -> Matrix:
    """A comparison from plain data.

    Raises:
        MatrixError: one sentence on what is wrong.
    """
    unknown = next((key for key in content if key not in Matrix.model_fields), None)
    if unknown is not None:
        hint = nearest(str(unknown), Matrix.model_fields) or "."
        raise MatrixError(f"a comparison has no key {unknown!r}{hint} It has {', '.join(Matrix.model_fields)}.")
    try:
        return Matrix.model_validate(content)
    except ValidationError as error:
        raise MatrixError(sentence(error)) from None


def json_schema() -> dict[str, Any]:
    """JSON schema of the file of a comparison."""
    schema, loss = Matrix.model_json_schema(), config.json_schema()
    own = {"name": {"type": "string"}, "lr": {"type": "number"}, "trainer": {"type": "string"}}
    flat = {"type": "object", "properties": {**own, **loss["properties"]}, "additionalProperties": False}
    schema["$defs"] = {"Arm": {"anyOf": [{"type": "string"}, {**flat, "allOf": loss["allOf"]}]}}
    return schema
