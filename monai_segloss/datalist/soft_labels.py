"""Soft labels of an nnU-Net raw data set: label maps of several raters, or a fraction per class, alongside ``labelsTr``.

labelsTr_raters/RATER/CASE.nii.gz    label maps of one rater; the soft label is the mean over the raters of a case
labelsTr_soft/CASE_0001.nii.gz       fractions of label 1, from 0 to 1; CASE_0000, the background, may be left out
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.core.errors import nearest
from monai_segloss.datalist.cases import file_names

RATERS, FRACTIONS = "labelsTr_raters", "labelsTr_soft"
"""The two folders; a data set has one of them."""
TOLERANCE = 1e-3
"""How far fractions may lie outside of [0, 1] and their sum above 1 by rounding."""


class SoftLabelError(ValueError):
    """Soft labels that do not fit the data set."""


@dataclass(frozen=True)
class SoftLabels:
    """The files of the soft labels.

    Args:
        folder: `RATERS` or `FRACTIONS` of a data set.
        files: case -> name of a rater, or label as four digits -> file.
    """

    folder: Path
    files: Mapping[str, Mapping[str, Path]]

    @property
    def by_raters(self) -> bool:
        """Whether the files are label maps of raters."""
        return self.folder.name == RATERS

    @property
    def words(self) -> str:
        """What there is, in one line."""
        if not self.by_raters:
            return f"{self.folder.name}: fractions of {len(self.files)} cases"
        counts = [len(each) for each in self.files.values()]
        raters = {name for each in self.files.values() for name in each}
        shares = ", ".join(f"{counts.count(n)} by {n}" for n in sorted(set(counts), reverse=True))
        return f"{self.folder.name}: {len(raters)} raters, cases: {shares}"


def find(folder: Path, ending: str, labels: Collection[int], cases: Collection[str]) -> SoftLabels | None:
    """The soft labels of a data set, or None.

    Args:
        folder: of the raw data set.
        ending: of its files, with the dot.
        labels: of the foreground.
        cases: that are trained on.

    Raises:
        SoftLabelError: both folders are there, a case or class has no file, or a file belongs to none.
    """
    there = [folder / name for name in (RATERS, FRACTIONS) if (folder / name).is_dir()]
    if len(there) > 1:
        raise SoftLabelError(f"{folder} has {RATERS} and {FRACTIONS}; keep one of them")
    if not there:
        return None
    listed = _of_raters(there[0], ending) if there[0].name == RATERS else _of_classes(there[0], ending, labels)
    files: dict[str, dict[str, Path]] = {case: {} for case in sorted(cases)}
    for case, name, file in listed:
        if case not in files:
            raise SoftLabelError(f"{file} belongs to no training case{nearest(case, files)}")
        files[case][name] = file
    missing = [case for case, each in files.items() if not each]
    if missing:
        raise SoftLabelError(f"{there[0]} has no file of {len(missing)} of {len(files)} cases ({missing[0]} first)")
    for case, each in files.items() if there[0].name == FRACTIONS else ():
        lack = next((label for label in sorted(labels) if f"{label:04d}" not in each), None)
        if lack is not None:
            raise SoftLabelError(f"{there[0]} lacks {case}_{lack:04d}{ending}, the fractions of label {lack}")
    return SoftLabels(there[0], files)


def _of_raters(folder: Path, ending: str) -> Iterator[tuple[str, str, Path]]:
    raters = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    if not raters:
        raise SoftLabelError(f"{folder} has no folder: expected one for each rater, with CASE{ending} in it")
    for rater in raters:
        names = file_names(rater, ending)
        if not names:
            raise SoftLabelError(f"{rater} has no file that ends in {ending}")
        yield from ((name, rater.name, rater / f"{name}{ending}") for name in names)


def _of_classes(folder: Path, ending: str, labels: Collection[int]) -> Iterator[tuple[str, str, Path]]:
    for name in file_names(folder, ending):
        match = re.fullmatch(r"(.+)_(\d{4})", name)
        if match is None or int(match[2]) not in {0, *labels}:
            known = ", ".join(f"{label:04d}" for label in sorted(labels))
            raise SoftLabelError(
                f"{folder / name}{ending} must be named CASE_LABEL{ending} with a label out of {known}"
            )
        yield match[1], match[2], folder / f"{name}{ending}"


def read_files(files: Mapping[str, Path], by_raters: bool, reader: Any) -> tuple[NDArray[Any], Mapping[str, Any]]:
    """All files of a case in one array (N, *S), and the properties of the first.

    Args:
        files: of the case.
        by_raters: whether they are label maps.
        reader: an object with nnU-Net's ``read_images`` and ``read_seg``.

    Raises:
        SoftLabelError: a file has several channels, or two of them differ in shape.
    """
    arrays, about = [], dict[str, Any]()
    for file in files.values():
        array, facts = reader.read_seg(str(file)) if by_raters else reader.read_images([str(file)])
        if len(array) != 1:
            raise SoftLabelError(f"{file} holds {len(array)} channels, expected one")
        about = about or facts
        arrays.append(array[0])
    first, *others = files.values()
    for file, array in zip(others, arrays[1:], strict=True):
        if array.shape != arrays[0].shape:
            raise SoftLabelError(f"{file} has the shape {array.shape}, {first} {arrays[0].shape}")
    return np.stack(arrays), about


def mean_of_raters(
    maps: Sequence[NDArray[Any]] | NDArray[Any], labels: Sequence[int], ignore: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The share of the raters who gave each label, (C, *S), and where at least one rater labeled, (*S).

    Args:
        maps: label maps (N, *S).
        labels: one channel each.
        ignore: label of voxels that a rater left out: the mean is over the others, and 0 where there are none.

    Example:
        >>> import numpy as np
        >>> from monai_segloss.datalist.soft_labels import mean_of_raters
        >>> mean_of_raters(np.array([[0, 1, 1, 9], [0, 0, 1, 9]]), [1], ignore=9)[0].tolist()
        [[0.0, 0.5, 1.0, 0.0]]
    """
    raters = np.asarray(maps)
    voters = np.full(raters.shape[1:], len(raters)) if ignore is None else (raters != ignore).sum(0)
    most = np.maximum(voters, 1, dtype=np.float32)
    return np.stack([(raters == label).sum(0, dtype=np.float32) / most for label in labels]), voters > 0


def fault_of_raters(array: NDArray[Any], known: Collection[int]) -> str | None:
    """What is wrong with label maps, as the end of a sentence about their case."""
    strange = array[~np.isin(array, list(known))]
    if not strange.size:
        return None
    return f"holds the label {strange[0]:.9g} ({strange.size} voxels), which is not in dataset.json"


def fault_of_fractions(array: NDArray[Any], background: bool) -> str | None:
    """What is wrong with the fractions (C, *S) of a case, as the end of a sentence about it.

    Args:
        array: one channel per class.
        background: whether the background is among them, so that they sum to 1.
    """
    strange = array[~((array >= -TOLERANCE) & (array <= 1 + TOLERANCE))]
    if strange.size:
        return f"holds {strange[0]:.6g} ({strange.size} values), expected fractions from 0 to 1"
    total = array.sum(0)
    off = total[np.abs(total - 1) > TOLERANCE] if background else total[total > 1 + TOLERANCE]
    if off.size:
        wanted = "1" if background else "at most 1 without the background"
        return f"has classes that sum to {off[0]:.6g} ({off.size} voxels), expected {wanted}"
    return None
