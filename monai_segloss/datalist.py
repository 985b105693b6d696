"""Read a data set folder, nnU-Net's raw layout or a Decathlon datalist, into the items MONAI's transforms load."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Datalist", "list_images", "output_name", "read"]

Item = dict[str, Any]


@dataclass(frozen=True)
class Datalist:
    """The cases of one data set: ``{"image": [file per channel], "label": file}``.

    Attributes:
        training: labeled cases, sorted by name.
        validation: labeled cases that the data set itself sets apart; empty if it does not.
        test: cases without a label.
        channels: input channels of an image.
        num_classes: labels 0 to ``num_classes - 1``, background included.
    """

    training: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]
    channels: int
    num_classes: int

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

    def _held_out(self, fold: int | str, folds: int) -> set[int]:
        if self.validation or fold == "all":
            return set()
        folds = min(folds, len(self.training))
        if folds < 2 or fold not in range(folds):
            raise ValueError(f"fold must be 'all' or 0 to {folds - 1} for {len(self.training)} cases, got {fold!r}.")
        order = np.arange(len(self.training))
        np.random.RandomState(12345).shuffle(order)  # nnU-Net's seed, scikit-learn's KFold
        return set(np.array_split(order, folds)[int(fold)].tolist())


def read(dataset_dir: str | Path) -> Datalist:
    """Read ``dataset_dir/dataset.json``.

    Args:
        dataset_dir: a folder in nnU-Net's raw layout (``imagesTr``, ``labelsTr``, ``file_ending`` in the JSON file) or
            with a Decathlon datalist (a list ``training`` of image and label paths in the JSON file).

    Raises:
        FileNotFoundError: the folder, its ``dataset.json`` or a file it names is missing.
        ValueError: neither layout; an ignore label, regions or a gap in the labels.
    """
    folder = Path(dataset_dir)
    description = folder / "dataset.json"
    if not description.is_file():
        raise FileNotFoundError(
            f"dataset_dir must be a folder with a dataset.json (nnU-Net raw or Decathlon), got {str(dataset_dir)!r}."
        )
    content = json.loads(description.read_text(encoding="utf-8"))
    if isinstance(content.get("training"), list):
        training, validation, test = (_listed(folder, content.get(key, [])) for key in _DECATHLON)
    elif "file_ending" in content:
        training, validation, test = _raw(folder, content), [], _images(folder / "imagesTs", content["file_ending"])
    else:
        raise ValueError(f"{description} has neither 'file_ending' (nnU-Net raw) nor a list 'training' (Decathlon).")
    _check_files(description, training, validation)
    channels = content.get("channel_names") or content.get("modality") or {"0": "image"}
    return Datalist(tuple(training), tuple(validation), tuple(test), len(channels), _num_classes(content, description))


_DECATHLON = ("training", "validation", "test")


def list_images(images_dir: str | Path, file_ending: str = ".nii.gz") -> list[Item]:
    """Images of a folder as items; files ``CASE_0000``, ``CASE_0001`` ... are the channels of one case.

    Args:
        images_dir: the folder.
        file_ending: with the dot.

    Raises:
        FileNotFoundError: no such file in the folder.
    """
    items = _images(Path(images_dir), file_ending)
    if not items:
        raise FileNotFoundError(f"images_dir {str(images_dir)!r} has no file that ends in {file_ending!r}.")
    return items


def output_name(meta: Mapping[str, Any] | None, saver: Any) -> dict[str, Any]:
    """Name of a saved prediction for MONAI's ``SaveImaged``: the case, without nnU-Net's channel number."""
    file = Path(str((meta or {}).get("filename_or_obj", "prediction"))).name
    return {"subject": _case(file, "".join(re.findall(r"\.nii\.gz$|\.[^.]+$", file))), "idx": None}


def _images(folder: Path, file_ending: str) -> list[Item]:
    cases: dict[str, list[str]] = {}
    for path in sorted(folder.glob(f"*{file_ending}")):
        cases.setdefault(_case(path.name, file_ending), []).append(str(path))
    return [{"image": files} for files in cases.values()]


def _case(file: str, file_ending: str) -> str:
    return re.sub(r"_\d{4}$", "", file.removesuffix(file_ending))


def _raw(folder: Path, content: Mapping[str, Any]) -> list[Item]:
    if "dataset" in content:  # nnU-Net's explicit list of files
        entries = sorted(content["dataset"].items())
        return [_absolute(folder, {"image": case["images"], "label": case["label"]}) for _, case in entries]
    ending = content["file_ending"]
    items = _images(folder / "imagesTr", ending)
    for item in items:
        item["label"] = str(folder / "labelsTr" / f"{_case(Path(item['image'][0]).name, ending)}{ending}")
    return items


def _listed(folder: Path, entries: list[Any]) -> list[Item]:
    items = [_absolute(folder, entry if isinstance(entry, Mapping) else {"image": entry}) for entry in entries]
    return sorted(items, key=lambda item: Path(item["image"][0]).name)


def _absolute(folder: Path, entry: Mapping[str, Any]) -> Item:
    images = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
    item: Item = {"image": [str(folder / image) for image in images]}
    if "label" in entry:
        item["label"] = str(folder / entry["label"])
    return item


def _check_files(description: Path, *lists: list[Item]) -> None:
    cases = [item for items in lists for item in items]
    for item in cases:
        if "label" not in item:
            raise ValueError(f"{description}: the training image {item['image'][0]} has no label.")
    files = [file for item in cases for file in (*item["image"], item["label"])]
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        raise FileNotFoundError(f"{description}: {len(missing)} files are missing, the first is {missing[0]}.")
    if not files:
        raise FileNotFoundError(f"{description}: the data set has no labeled case.")


def _num_classes(content: Mapping[str, Any], description: Path) -> int:
    labels = content.get("labels", {})
    if "ignore" in labels:
        raise ValueError(f"{description} has an ignore label, which the bundle does not take: use an nnU-Net trainer.")
    named = labels if "background" in labels else {name: value for value, name in labels.items()}
    if any(isinstance(value, list) for value in named.values()):
        raise ValueError(f"{description} defines regions, which the bundle does not take: use an nnU-Net trainer.")
    values = sorted(int(value) for value in named.values())
    if len(values) < 2 or values != list(range(len(values))):
        raise ValueError(f"{description}: labels must be 0 (background), 1, 2 ... without a gap, got {values}.")
    return len(values)
