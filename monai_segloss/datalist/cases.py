"""Read a data set folder, nnU-Net's raw layout or a Decathlon datalist, into the items MONAI's transforms load."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monai_segloss.datalist.forms import check_entries
from monai_segloss.datalist.labels import Labels
from monai_segloss.datalist.names import names_of, telling_kind, without_channel

Item = dict[str, Any]
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of volumes in one file; a DICOM series is a folder."""


@dataclass(frozen=True)
class Datalist:
    """The cases of one data set: ``{"image": [file per channel], "label": file}``; a DICOM series is a folder.

    Attributes:
        training: labeled cases, sorted by name.
        validation: labeled cases that the data set itself sets apart; empty if it does not.
        test: cases without a label.
        channels: input channels of an image.
        labels: what the label maps hold.
        identifiers: file of a label -> nnU-Net's name of the case, where ``dataset.json`` lists the files of each.
    """

    training: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]
    channels: int
    labels: Labels
    identifiers: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Outputs of the network."""
        return self.labels.channels

    def train_items(self, fold: int | str = 0, folds: int = 5) -> list[Item]:
        """Cases to train on; see ``val_items``."""
        held_out = self._held_out(fold, folds)
        return [dict(item) for index, item in enumerate(self.training) if index not in held_out]

    def val_items(self, fold: int | str = 0, folds: int = 5) -> list[Item]:
        """Cases to validate on: the data set's own, else the fold that nnU-Net's default split gives these names.

        Args:
            fold: 0 to ``folds - 1``, or ``"all"``: train and validate on every case.
            folds: as many as there are cases, if there are fewer.

        Raises:
            ValueError: no such fold.
        """
        if self.validation:
            return [dict(item) for item in self.validation]
        held_out = self._held_out(fold, folds)
        return [dict(item) for index, item in enumerate(self.training) if not held_out or index in held_out]

    def test_items(self) -> list[Item]:
        """Cases without a label.

        Raises:
            FileNotFoundError: there are none.
        """
        if not self.test:
            raise FileNotFoundError("the data set has no test images: name a folder of images as images_dir.")
        return [dict(item) for item in self.test]

    def names(self, item: Item) -> tuple[str, ...]:
        """Every name that a file may have for a labeled case, see `names_of`."""
        return names_of(item["image"][0], item["label"], self.identifiers)

    def named(self, items: Iterable[Item]) -> dict[str, Item]:
        """Items by the first kind of their `names` that tells all labeled cases of the data set apart."""
        kind = telling_kind({self.names(item) for item in (*self.training, *self.validation)})
        return {self.names(item)[kind]: item for item in items}

    def split_names(self, fold: int | str = 0) -> tuple[set[str], set[str]]:
        """All `names` of the cases to train on, and of those to validate on."""
        split = (self.train_items(fold), self.val_items(fold))
        training, validation = ({name for item in items for name in self.names(item)} for items in split)
        return training, validation

    def _held_out(self, fold: int | str, folds: int) -> set[int]:
        if self.validation or fold == "all":
            return set()
        folds = min(folds, len(self.training))
        if folds < 2 or isinstance(fold, bool) or fold not in range(folds):
            raise ValueError(f"fold must be 'all' or 0 to {folds - 1} for {len(self.training)} cases, got {fold!r}.")
        order = np.arange(len(self.training))
        np.random.RandomState(12345).shuffle(order)  # nnU-Net's seed, scikit-learn's KFold
        return set(np.array_split(order, folds)[int(fold)].tolist())


def read(dataset_dir: str | Path, labeled: bool = True) -> Datalist:
    """Read ``dataset_dir/dataset.json``.

    Args:
        dataset_dir: a folder in nnU-Net's raw layout (``imagesTr``, ``labelsTr``, ``file_ending`` in the JSON file; an
            image may be a folder with a DICOM series instead of a file) or with a Decathlon datalist (a list
            ``training`` of image and label paths in the JSON file).
        labeled: the labeled cases must be there; without, ``dataset.json`` alone is enough.

    Raises:
        FileNotFoundError: the folder, its ``dataset.json`` or a file it names is missing.
        ValueError: neither layout, labels that make no sense, or a case with another number of channels.
    """
    folder = Path(str(dataset_dir))
    description = folder / "dataset.json"
    if not description.is_file():
        raise FileNotFoundError(
            f"dataset_dir must be a folder with a dataset.json (nnU-Net raw or Decathlon), got {str(dataset_dir)!r}."
        )
    content = read_description(folder)
    check_entries(description, content)
    if isinstance(content.get("training"), list):
        training, validation, test = (_listed(folder, content.get(key, [])) for key in _DECATHLON)
    elif "file_ending" in content:
        training, validation, test = training_items(folder, content), [], unlabeled_items(folder, content)
    else:
        raise ValueError(f"{description} has neither 'file_ending' (nnU-Net raw) nor a list 'training' (Decathlon).")
    labels = Labels.read(content, description)
    channels = len(content.get("channel_names") or content.get("modality") or {"0": "image"})
    if labeled:
        _check_files(description, [*training, *validation])
        _check_channels(str(description), [*training, *validation], channels)
    return Datalist(tuple(training), tuple(validation), tuple(test), channels, labels, _identifiers(folder, content))


_DECATHLON = ("training", "validation", "test")


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``dataset.json``.

    Raises:
        ValueError: it is no JSON object, or its ``labels`` are none.
    """
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(content).__name__}.")
    if not isinstance(content.get("labels", {}), dict):
        raise ValueError(f"{path} must hold a JSON object, with 'labels' as another one.")
    return content


def training_items(folder: Path, content: Mapping[str, Any]) -> list[Item]:
    """The labeled cases of an nnU-Net raw data set, sorted by name, whether their labels exist or not."""
    if "dataset" in content:  # nnU-Net's explicit list of files
        entries = sorted(content["dataset"].items())
        return [_absolute(folder, {"image": case["images"], "label": case["label"]}) for _, case in entries]
    ending = content["file_ending"]
    items = _images(folder / "imagesTr", (ending,))
    for item in items:
        case = without_channel(Path(item["image"][0]).name.removesuffix(ending))
        item["label"] = str(folder / "labelsTr" / f"{case}{ending}")
    return items


def _identifiers(folder: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """Of nnU-Net's explicit list of files: file of a label -> name of the case."""
    listed = content.get("dataset", {}).items() if "file_ending" in content else ()
    return {str(folder / os.path.expandvars(case.get("label", ""))): name for name, case in listed}


def unlabeled_items(folder: Path, content: Mapping[str, Any]) -> list[Item]:
    """The cases in ``imagesTs`` of an nnU-Net raw data set."""
    return _images(folder / "imagesTs", (content["file_ending"],))


def file_names(folder: Path, ending: str) -> tuple[str, ...]:
    """Names of the files of a folder that end so, without the ending, sorted; hidden files are left out."""
    files = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return tuple(sorted(name.removesuffix(ending) for name in files if name.endswith(ending) and name[0] != "."))


def list_images(images_dir: str | Path, file_ending: str | None = None, channels: int | None = None) -> list[Item]:
    """Images of a folder as items; files ``CASE_0000``, ``CASE_0001`` ... are the channels of one case.

    A folder in it is a DICOM series and is named like a file, ``CASE`` or ``CASE_0000``. A folder of DICOM files is one
    case by itself.

    Args:
        images_dir: the folder.
        file_ending: with the dot; None: any volume and any DICOM series.
        channels: files of every case, if known; a single file may hold several.

    Raises:
        FileNotFoundError: no such file in the folder.
        ValueError: a case has another number of channels.
    """
    folder = Path(str(images_dir))
    items = _images(folder, ENDINGS if file_ending is None else (file_ending,))
    if not items and file_ending is None and _is_series(folder):
        items = [{"image": [str(folder)]}]
    if not items:
        wanted = "no image (NIfTI, NRRD, MetaImage or a DICOM series)" if file_ending is None else "no file that"
        ending = "" if file_ending is None else f" ends in {file_ending!r}"
        raise FileNotFoundError(f"images_dir {str(images_dir)!r} has {wanted}{ending}.")
    if channels is not None:
        _check_channels(f"images_dir {str(images_dir)!r}", items, channels)
    return items


def _is_series(folder: Path) -> bool:
    """Whether a folder holds a DICOM file: the mark at byte 128."""
    return any(is_dicom(path) for path in sorted(folder.iterdir()) if path.is_file()) if folder.is_dir() else False


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: the mark at byte 128."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _images(folder: Path, endings: tuple[str, ...]) -> list[Item]:
    cases: dict[str, list[str]] = {}
    for path, case in sorted(_volumes(folder, endings)):
        cases.setdefault(case, []).append(str(path))
    return [{"image": files} for _, files in sorted(cases.items())]


def _volumes(folder: Path, endings: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Volumes and DICOM series in a folder, each with its case."""
    for path in folder.iterdir() if folder.is_dir() else ():
        ending = next((each for each in endings if path.name.endswith(each)), None)
        if path.name.startswith("."):
            continue
        if path.is_dir() and _is_series(path):
            yield path, without_channel(path.name)
        elif ending is not None and path.is_file():
            yield path, without_channel(path.name.removesuffix(ending))


def _listed(folder: Path, entries: list[Any]) -> list[Item]:
    items = [_absolute(folder, entry if isinstance(entry, Mapping) else {"image": entry}) for entry in entries]
    return sorted(items, key=lambda item: Path(item["image"][0]).name)


def _absolute(folder: Path, entry: Mapping[str, Any]) -> Item:
    images = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    item: Item = {"image": [str(folder / os.path.expandvars(image)) for image in images]}
    if "label" in entry:
        item["label"] = str(folder / os.path.expandvars(entry["label"]))
    return item


def _check_files(description: Path, cases: list[Item]) -> None:
    for item in cases:
        if "label" not in item:
            raise ValueError(f"{description}: the training image {item['image'][0]} has no label.")
    missing = [file for item in cases for file in (*item["image"], item["label"]) if not Path(file).exists()]
    if missing:
        raise FileNotFoundError(f"{description}: {len(missing)} files are missing, the first is {missing[0]}.")
    if not cases:
        raise FileNotFoundError(f"{description}: the data set has no labeled case.")


def _check_channels(source: str, cases: list[Item], channels: int) -> None:
    for item in cases:
        if len(item["image"]) not in (1, channels):  # one file may hold all channels
            raise ValueError(
                f"{source}: {item['image'][0]} is 1 of {len(item['image'])} channels, expected {channels}."
            )
