"""An nnU-Net raw data set: what is in it, what is missing, and its volumes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.checking import rules
from monai_segloss.datalist import file_names, numbers_by_name, read_description
from monai_segloss.datalist.soft_labels import FRACTIONS, RATERS
from monai_segloss.demo.problem import DemoError
from monai_segloss.files import atomic, write_json

NIFTI = (".nii.gz", ".nii")
FOLDS = 5
SOFT_LABELS = (RATERS, FRACTIONS)
VOLUME_FORMATS = (*NIFTI, ".nrrd", ".mha")


@dataclass(frozen=True)
class RawDataset:
    """A raw data set as nnU-Net wants it.

    Args:
        folder: with imagesTr, labelsTr and dataset.json; maybe imagesTs and labelsTs.
        content: of dataset.json.
        cases: names of the training cases.
        tests: names of the cases that have an image in imagesTs and a label in labelsTs.
    """

    folder: Path
    content: Mapping[str, Any]
    cases: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def ending(self) -> str:
        """Ending of every image and label file."""
        return str(self.content["file_ending"])

    @property
    def channels(self) -> int:
        """How many image files a case has."""
        return len(self.content["channel_names"])

    @property
    def ignore_label(self) -> int | None:
        """Label of the voxels that must not count."""
        return numbers_by_name(self.content["labels"]).get("ignore", (None,))[0]

    @property
    def classes(self) -> dict[str, tuple[int, ...]]:
        """Labels of each foreground class; a region has more than one."""
        numbers = numbers_by_name(self.content["labels"])
        return {name: each for name, each in numbers.items() if name not in ("background", "ignore")}

    @property
    def regions(self) -> bool:
        """Whether a class is made of several labels."""
        return any(len(labels) > 1 for labels in self.classes.values())

    def fingerprint(self) -> str:
        """Changes when a file comes, goes or changes its size."""
        files = [file for case in (*self.cases, *self.tests) for file in (*self.images(case), self.label(case))]
        facts = [f"{file.name} {file.stat().st_size}" for file in files] + [json.dumps(self.content, sort_keys=True)]
        soft = [file for name in SOFT_LABELS for depth in ("*", "*/*") for file in (self.folder / name).glob(depth)]
        facts += sorted(f"{file.relative_to(self.folder)} {file.stat().st_size}" for file in soft if file.is_file())
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]

    def images(self, case: str) -> list[Path]:
        """Image files of a training or test case, one per channel."""
        split = "imagesTs" if case in self.tests else "imagesTr"
        return [self.folder / split / f"{case}_{channel:04d}{self.ending}" for channel in range(self.channels)]

    def label(self, case: str) -> Path:
        """Label file of a training or test case."""
        return self.folder / ("labelsTs" if case in self.tests else "labelsTr") / f"{case}{self.ending}"


def read_dataset(folder: Path, least: int = FOLDS, formats: Sequence[str] | None = VOLUME_FORMATS) -> RawDataset:
    """Look at a raw data set without reading its volumes.

    Args:
        folder: with imagesTr, labelsTr and dataset.json.
        least: cases that are needed.
        formats: endings that can be read; None: those of nnU-Net.

    Raises:
        DemoError: one sentence that names the file or the entry that is missing or wrong.
    """
    _require(folder.is_dir(), f"--data {folder} is not a folder")
    for name in ("dataset.json", "imagesTr", "labelsTr"):
        _require((folder / name).exists(), f"--data {folder} is no nnU-Net raw data set: {name} is missing in it")
    try:
        content = read_description(folder)
    except ValueError as error:
        raise DemoError(str(error).rstrip(".")) from None
    _check_content(folder / "dataset.json", content, formats)
    ending = content["file_ending"]
    cases = file_names(folder / "labelsTr", ending)
    why = "nnU-Net's five folds need" if least == FOLDS else "to train on some cases and hold out others takes"
    files = "file that ends" if len(cases) == 1 else "files that end"
    _require(len(cases) >= least, f"{folder / 'labelsTr'} has {len(cases)} {files} in {ending}, {why} at least {least}")
    tests = file_names(folder / "labelsTs", ending) if (folder / "imagesTs").is_dir() else ()
    if set(cases) & set(tests):
        raise DemoError(f"case {min(set(cases) & set(tests))!r} is in labelsTr and in labelsTs of {folder}; rename one")
    dataset = RawDataset(folder, content, cases, tests)
    for case in (*cases, *tests):
        for image in dataset.images(case):
            _require(image.is_file(), f"{image} is missing: it is the image of {dataset.label(case)}")
    for name in file_names(folder / "imagesTr", ending):
        label = dataset.label(re.sub(r"_\d{4}$", "", name))
        _require(label.is_file(), f"{label} is missing: it is the label of {folder / 'imagesTr' / (name + ending)}")
    return dataset


def _check_content(path: Path, content: Mapping[str, Any], formats: Sequence[str] | None) -> None:
    counted = {**content, "numTraining": 0}  # linking writes the right number
    faults = rules.faults(counted, (*rules.STRUCTURE, *rules.LABELS))
    _require(not faults, f"{path} {' and '.join(faults)}")
    _require(
        "dataset" not in content, f"{path} lists files itself ('dataset'): this command reads imagesTr and labelsTr"
    )
    numbers = numbers_by_name(content["labels"], path)
    _require(set(numbers) - {"background", "ignore"} != set(), f"{path} names no class besides the background")
    ending = content["file_ending"]
    known = formats is None or ending in formats
    _require(known, f"{path}: the demo reads volumes ({', '.join(formats or ())}), not {ending!r}")


def _require(fine: bool, sentence: str) -> None:
    if not fine:
        raise DemoError(sentence)


def nnunet_name(folder: Path) -> str:
    """The name under which a folder is known to nnU-Net: its own if it is one (``Dataset004_X``), else made from it."""
    if re.fullmatch(r"Dataset\d{3}_\w+", folder.name, re.ASCII):
        return folder.name
    words = re.findall(r"[a-zA-Z0-9]+", folder.name)
    return "Dataset001_" + ("".join(word.capitalize() for word in words) or "Data")


def link_dataset(source: RawDataset, target: Path) -> None:
    """Make a raw data set appear elsewhere: its folders linked (copied where links are impossible), its JSON written.

    The source is only read.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs", *SOFT_LABELS):
        if (source.folder / name).is_dir() and not (target / name).exists():
            _link(source.folder / name, target / name)
    # nnU-Net insists on the count; people who take cases out of a set forget it.
    write_json(target / "dataset.json", {**source.content, "numTraining": len(source.cases)})


def link_files(files: list[Path], target: Path) -> None:
    """Fill a new folder with links to files (copies where links are impossible)."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in files:
        _link(file, target / file.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source.resolve(), target, target_is_directory=source.is_dir())
    except (OSError, NotImplementedError):
        with atomic(target) as part:
            shutil.copytree(source, part) if source.is_dir() else shutil.copyfile(source, part)


def read_volume(path: Path) -> tuple[NDArray[Any], tuple[float, ...]]:
    """Read a 3-D volume in one orientation, whatever its file has: axes (z, y, x) to head, back and left.

    Returns:
        the array, and the edge lengths of a voxel in mm in the order of its axes.
    """
    if path.name.endswith(NIFTI):
        return _read_nifti(path)
    import SimpleITK

    image: Any = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")
    return SimpleITK.GetArrayFromImage(image), tuple(image.GetSpacing()[::-1])


def _read_nifti(path: Path) -> tuple[NDArray[Any], tuple[float, ...]]:
    import nibabel

    image = nibabel.as_closest_canonical(nibabel.load(path))
    if len(image.shape) != 3:
        raise DemoError(f"{path} has {len(image.shape)} dimensions, the demo needs 3")
    array = np.asanyarray(image.dataobj)[::-1, ::-1].T
    return array, tuple(float(edge) for edge in image.header.get_zooms()[::-1])
