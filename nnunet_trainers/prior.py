"""Priors from the preprocessed labels of the training cases of a fold; a trainer makes the ones that its loss wants."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from monai_segloss.core.module import SegLoss
from monai_segloss.core.prior import PriorError
from monai_segloss.core.probe import network_shape
from monai_segloss.core.taps import NetworkShape
from monai_segloss.files import read_json
from monai_segloss.prior import supply as core
from monai_segloss.prior.patches import Augmentation, Labels
from monai_segloss.prior.train import train_prior

STEPS = "segloss_prior_steps"
"""Variable of the environment: steps of a prior that a trainer trains; without it as many as usual."""


def supply(trainer: nnUNetTrainer, loss: SegLoss, shape: NetworkShape) -> None:
    """Give a prepared loss the priors that it wants: those in the folder of the run, where they are made if need be.

    Raises:
        PriorError: it cannot be trained, or was trained for other classes, another patch or spacing, or on validation cases.
    """
    core.supply(loss, lambda kind: _found_or_made(trainer, kind, shape))
    advice = f"train one with `segloss prior train DATASET --kind {{kind}} --fold {trainer.fold}`"
    training, validation = _split(trainer)
    core.refuse_leak(loss, training, validation, trainer.fold, advice)


def refuse_measured(trainer: nnUNetTrainer, loss: SegLoss) -> None:
    """Refuse bounds and rules that were measured on the label of a case that the fold validates.

    Raises:
        PriorError: there are such.
    """
    core.refuse_measured(loss, lambda: _split(trainer), trainer.fold)


def train_for_plans(
    plans: Path, configuration: str, fold: str, kind: str, file: Path, steps: int | None, device: str
) -> None:
    """Train a prior for a fold of a data set, as ``segloss prior train`` does; alongside a plans file lies the data set.

    Raises:
        PriorError: it cannot be trained.
        TapError: the network has no bottleneck for a label U-Net.
    """
    trainer = Planned(plans, configuration, fold if fold == "all" else int(fold), torch.device(device))
    shape, augmentation = _shape(trainer, kind), _augmentation(trainer)
    train_prior(kind, shape, labels(trainer), file, steps, augmentation, trainer.device)


class Planned(nnUNetTrainer):
    """What nnU-Net's trainer knows of plans and fold, without a folder for its results."""

    def __init__(self, plans: Path, configuration: str, fold: int | str, device: torch.device) -> None:
        self.plans_manager = PlansManager(str(plans))
        self.configuration_manager = self.plans_manager.get_configuration(configuration)
        self.dataset_json = read_json(plans.with_name("dataset.json"))
        self.label_manager = self.plans_manager.get_label_manager(self.dataset_json)
        self.preprocessed_dataset_folder_base = str(plans.parent)
        self.preprocessed_dataset_folder = str(plans.parent / self.configuration_manager.data_identifier)
        self.folder_with_segs_from_previous_stage = self.dataset_class = None
        self.fold, self.device, self.local_rank = fold, device, 0

    def print_to_log_file(self, *_: Any, **__: Any) -> None:
        """Nothing: there is no log."""


def labels(trainer: nnUNetTrainer) -> Labels:
    """The preprocessed labels of the training cases of the fold."""
    data = _dataset(trainer, _split(trainer)[0])
    manager = trainer.label_manager
    known: list[Any] = list(manager.foreground_regions if manager.has_regions else manager.all_labels)
    channels = tuple(tuple(each) if isinstance(each, tuple | list) else (int(each),) for each in known)
    ignored = () if manager.ignore_label is None else (int(manager.ignore_label),)

    def load(case: str) -> Any:
        return np.maximum(data.load_case(case)[1][0], 0)  # nnU-Net marks the surroundings of a body by -1

    return Labels(tuple(data.identifiers), load, channels, bool(manager.has_regions), ignored)


def _found_or_made(trainer: nnUNetTrainer, kind: str, shape: NetworkShape) -> Path:
    folder = Path(trainer.output_folder)
    file = core.file_of(kind, folder)
    if trainer.logger.resume and file.is_file():
        trainer.print_to_log_file(f"segloss prior {kind}: {file}, from before")
        return file
    more = (folder, _steps(), _augmentation(trainer), trainer.device, trainer.local_rank, trainer.print_to_log_file)
    return core.found_or_made(kind, shape, labels(trainer), *more)


def _split(trainer: nnUNetTrainer) -> tuple[list[str], list[str]]:
    training, validation = trainer.do_split()
    return list(map(str, training)), list(map(str, validation))


def _dataset(trainer: nnUNetTrainer, cases: list[str]) -> Any:
    folder = trainer.preprocessed_dataset_folder
    return infer_dataset_class(folder)(folder, cases)


def _augmentation(trainer: nnUNetTrainer) -> Augmentation:
    rotation, flat, _, mirror = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    return Augmentation(float(max(rotation)), bool(flat), tuple(mirror or ()))


def _shape(trainer: nnUNetTrainer, kind: str) -> NetworkShape:
    """The shape of the network; only a label U-Net needs it built."""
    configuration, classes = trainer.configuration_manager, trainer.label_manager.num_segmentation_heads
    size, spacing = tuple(configuration.patch_size), tuple(map(float, configuration.spacing))
    if kind != "label-unet":
        return NetworkShape(classes, size, spacing=spacing)
    channels = determine_num_input_channels(trainer.plans_manager, configuration, trainer.dataset_json)
    network = trainer.build_network_architecture(trainer.plans_manager, configuration, channels, classes, True)
    return network_shape(network, torch.zeros(1, channels, *size), ["bottleneck"], spacing=spacing)


def _steps() -> int | None:
    text = os.environ.get(STEPS)
    if text is not None and not (text.isdecimal() and int(text)):
        raise PriorError(f"{STEPS} must be a number of steps, got {text!r}.")
    return None if text is None else int(text)
