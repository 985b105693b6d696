"""Soft labels in nnU-Net: preprocessed once as nnU-Net preprocesses the image, then cropped and augmented along with it.

The loader hands an image and a segmentation to the transforms and rounds the latter.  So the soft labels travel as further
channels of the image up to the first transform, which makes them the ``regression_target`` of batchgeneratorsv2:
interpolated, mirrored and padded with 0 like the image, and left alone by noise, blur and contrast.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from monai_segloss.datalist.soft_labels import SoftLabelError

FOLDER, KEY = "soft_labels", "segloss"
"""The folder next to the preprocessed images, and the entry of a file that says what it was made from."""


def channels(manager: LabelManager) -> tuple[tuple[int, ...], ...]:
    """The labels of each channel of a soft label: of a foreground class, or of a region."""
    known = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    return tuple(tuple(map(int, each)) if isinstance(each, tuple | list) else (int(each),) for each in known)


def place(base: Path, configuration: ConfigurationManager) -> Path:
    """Where the soft labels for the images of a configuration are, in the folder of the preprocessed data set."""
    return base / FOLDER / configuration.data_identifier


def grid_of(
    properties: Mapping[str, Any],
    plans: PlansManager,
    configuration: ConfigurationManager,
    parts: Sequence[Sequence[int]],
) -> dict[str, Any]:
    """What decides about the voxels of a preprocessed case, as plain JSON."""
    crop = [[int(x) for x in each] for each in properties["bbox_used_for_cropping"]]
    before = [float(properties["spacing"][axis]) for axis in plans.transpose_forward]
    target = [float(x) for x in configuration.spacing]
    target = [*before[: len(before) - len(target)], *target]  # slices of a 2-D configuration stay as they are
    shape = compute_new_shape([high - low for low, high in crop], before, target)
    found = {"crop": crop, "spacing": [*before, *target], "shape": [int(x) for x in shape]}
    return {**found, "axes": list(plans.transpose_forward), "channels": [list(each) for each in parts]}


def mark_of(file: Path) -> dict[str, Any] | None:
    """What a preprocessed soft label was made from; None where there is none."""
    return None if (found := _opened(file)) is None else _mark(found)


def _opened(file: Path) -> Any:
    mapped = {} if os.name == "nt" else {"mmap_mode": "r"}
    try:
        return blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, **mapped)
    except (OSError, RuntimeError):
        return None


def _mark(opened: Any) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(opened.schunk.meta[KEY])
    except (KeyError, ValueError):
        return None
    return found


class ChannelsAfter:
    """The channels of an image followed by those of its soft label, read where they are asked for."""

    def __init__(self, image: Any, soft: Any) -> None:
        self.parts = (image, soft)
        self.shape = (image.shape[0] + soft.shape[0], *image.shape[1:])
        self.ndim, self.dtype = len(self.shape), np.dtype(np.float32)

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        return np.concatenate([np.asarray(part[index], dtype=np.float32) for part in self.parts])


class SoftLabelDataset:
    """A data set of nnU-Net whose images carry their soft labels as further channels."""

    def __init__(self, dataset: Any, source: Source) -> None:
        self.dataset, self.source = dataset, source
        self.identifiers = dataset.identifiers

    def __getitem__(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        return self.load_case(identifier)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, Any]:
        """Image with soft label, segmentation, that of the stage before, properties."""
        image, segmentation, before, properties = self.dataset.load_case(identifier)
        soft = self.source.open(identifier, properties)
        if soft.shape[1:] != image.shape[1:]:
            raise SoftLabelError(
                f"{identifier} has the shape {tuple(image.shape[1:])}, by the plans {tuple(soft.shape[1:])}: preprocess the "
                "images again (nnUNetv2_preprocess)"
            )
        return ChannelsAfter(image, soft), segmentation, before, properties


@dataclass(frozen=True)
class Source:
    """The preprocessed soft labels of a configuration.

    Args:
        plans: of the data set.
        configuration: of the plans.
        manager: of its labels.
        base: folder of the preprocessed data set.
    """

    plans: PlansManager
    configuration: ConfigurationManager
    manager: LabelManager
    base: Path

    @classmethod
    def of(cls, trainer: Any) -> Source:
        """Those of a trainer."""
        base = Path(trainer.preprocessed_dataset_folder_base)
        return cls(trainer.plans_manager, trainer.configuration_manager, trainer.label_manager, base)

    @property
    def folder(self) -> Path:
        """Where they are."""
        return place(self.base, self.configuration)

    @property
    def cases(self) -> list[str]:
        """The preprocessed cases."""
        folder = str(self.base / self.configuration.data_identifier)
        return sorted(infer_dataset_class(folder).get_identifiers(folder))

    def digest(self) -> str:
        """What tells these soft labels from others.

        Raises:
            SoftLabelError: a case has none, or the first one was made for another preprocessed image.
        """
        cases = self.cases
        marks = {case: mark_of(self.folder / f"{case}.b2nd") for case in cases}
        missing = [case for case, mark in marks.items() if mark is None]
        if missing:
            lack = f"{len(missing)} of {len(cases)} cases ({missing[0]} first) have no preprocessed soft label"
            raise SoftLabelError(f"{lack}: run {self.command}")
        images = self.base / self.configuration.data_identifier
        self.open(cases[0], load_pickle(str(images / f"{cases[0]}.pkl")))
        sources = json.dumps({case: mark["source"] for case, mark in marks.items() if mark is not None})
        return hashlib.sha256(sources.encode()).hexdigest()[:12]

    def open(self, case: str, properties: Mapping[str, Any]) -> Any:
        """The soft label (C, *S) of a preprocessed case, of which nnU-Net keeps the properties.

        Raises:
            SoftLabelError: there is none, or it was made for another preprocessed image.
        """
        found = _opened(self.folder / f"{case}.b2nd")
        mark = None if found is None else _mark(found)
        grid = grid_of(properties, self.plans, self.configuration, channels(self.manager))
        if mark is None or mark["grid"] != grid:
            what = "no preprocessed soft label" if mark is None else "a soft label that was made for another image grid"
            raise SoftLabelError(f"{case} has {what}: run {self.command}")
        return found

    @property
    def command(self) -> str:
        """The command that makes them."""
        name = self.plans.plans_name
        return (
            f"segloss nnunet soft-labels {self.plans.dataset_name}{'' if name == 'nnUNetPlans' else f' --plans {name}'}"
        )
