"""What a run of the demo is asked to do, and the trainers that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_segloss.demo.dataset import RawDataset
from monai_segloss.demo.generate import Size
from monai_segloss.demo.problem import DemoError

BASELINE = "dice_ce"
# nnU-Net's own rate (0.01) is made for 250,000 iterations; the few of the demo need a higher one.
EPOCHS, ITERATIONS, LR = 9, 25, 0.05
DATA_ITERATIONS = 50
QUICK, QUICK_LENGTH = Size(train=5, test=3, extent=(45.0, 20.0, 20.0)), (2, 2)
DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class Settings:
    """Everything that decides about the result.

    Args:
        loss: key of the registry.
        data: folder of an nnU-Net raw data set, or None for the generated one.
        device: cpu, cuda or mps.
        epochs: length of the training.
        iterations: training steps per epoch.
        lr: initial learning rate; None: nnU-Net's own.
        seed: of the generated volumes, of the weights and of the order of training.
        fold: of the five-fold cross-validation.
        tolerance: of the normalized surface Dice in mm; None: one voxel edge, the shortest of the plan.
        quick: tiny generated volumes.
    """

    loss: str
    data: str | None
    device: str
    epochs: int
    iterations: int
    lr: float | None
    seed: int
    fold: int
    tolerance: float | None
    quick: bool

    @property
    def size(self) -> Size:
        """How much to generate."""
        return QUICK if self.quick else Size()

    def options(self) -> dict[str, Any]:
        """What the trained results depend on, by the names of the command line."""
        return {f"--{name}": value for name, value in vars(self).items() if name != "tolerance"}


@dataclass(frozen=True)
class Arm:
    """One training.

    Args:
        loss: key of the registry.
        trainer: its name for nnU-Net.
        suffix: of the names of its stages.
    """

    loss: str
    trainer: str
    suffix: str = ""


def arms(settings: Settings, baseline: bool) -> list[Arm]:
    """The trainings: the loss that is asked for, and nnU-Net's own next to it.

    Raises:
        DemoError: no trainer has the loss, or it is the baseline itself.
    """
    if baseline and settings.loss == BASELINE:
        raise DemoError(f"--baseline trains {BASELINE} alongside the loss, so --loss must be another one")
    found = [Arm(settings.loss, trainer_name(settings, settings.loss))]
    return found + [Arm(BASELINE, trainer_name(settings, BASELINE), "-baseline")] * baseline


def check_device(device: str) -> None:
    """Refuse a device that is not there."""
    import torch

    if device not in DEVICES:
        raise DemoError(f"--device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise DemoError("--device cuda: torch finds no usable NVIDIA GPU here; use --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise DemoError("--device mps: torch finds no Apple GPU here; use --device cpu")


def trainer_name(settings: Settings, loss: str) -> str:
    """The name nnU-Net knows the training by: loss, learning rate, seed, epochs and iterations.

    Raises:
        DemoError: no trainer has this loss.
    """
    from nnunet_trainers import naming, trainers

    by_key = {each.key: name for name, each in trainers.plain().items() if each.key}
    if loss not in by_key:
        known = ", ".join(sorted(by_key))
        raise DemoError(f"--loss {loss}: there is no nnU-Net trainer for it, because {_lack(loss)}; use one of {known}")
    start = by_key[loss]
    wanted = naming.TrainerName(
        start.removeprefix(naming.PREFIX), {}, settings.lr, settings.seed, settings.epochs, settings.iterations
    )
    name = naming.encode(wanted, trainers.find(start).name_parameters())
    try:
        trainers.find(name)
    except naming.TrainerNameError as error:
        raise DemoError(str(error)) from None
    return name


def _lack(loss: str) -> str:
    """What keeps nnU-Net from training a loss."""
    import monai_segloss

    needs = [each.key for each in monai_segloss.find(loss).needs]
    return f"it needs {', '.join(needs)} alongside the label" if needs else "it cannot be trained by nnU-Net alone"


def resolve_loss(name: str) -> str:
    """The key of a loss by any of its names.

    Raises:
        DemoError: there is none; with the nearest names.
    """
    import monai_segloss
    from monai_segloss.core.errors import UnknownLoss

    try:
        return monai_segloss.find(name).key
    except UnknownLoss as error:
        raise DemoError(f"--loss: {str(error.args[0]).rstrip('.')}") from None


def refuse_unsupported(loss: str, dataset: RawDataset) -> None:
    """Refuse what a loss cannot do before any work is done."""
    from monai_segloss.config import LossConfig
    from nnunet_trainers.building import DatasetProperties
    from nnunet_trainers.building import refuse_unsupported as refuse

    properties = DatasetProperties(
        regions=dataset.regions, ignore_label=dataset.ignore_label, batch_dice=False, dimensions=3
    )
    try:
        refuse(LossConfig(loss=loss), properties)
    except NotImplementedError as error:
        raise DemoError(f"--loss {loss}: {error}") from None


def versions() -> Mapping[str, str]:
    """What the result depends on, by package."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"Python": platform.python_version()}
    for name in ("monai-segloss", "nnunetv2", "torch", "numpy", "nibabel"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def machine(device: str) -> str:
    """The hardware in words."""
    import os
    import platform

    import torch

    cores = f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}"
    return f"{torch.cuda.get_device_name()} and {cores}" if device == "cuda" else cores


def default_out(data: RawDataset | None) -> Path:
    """Work folder where none is asked for: one per data set."""
    return Path("segloss-demo" if data is None else f"segloss-demo-{data.folder.name}")
