"""DICOM volumes whose geometry follows from the position of every slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.engine.dicom_frames import frame_tags
from monai_segloss.engine.errors import DataError

Array = NDArray[np.float64]
Tags = Mapping[str, str]
UNEVEN = 0.01
"""Largest deviation of a slice from its place, as a share of the distance between slices."""
TURNED = 1e-3
"""Largest difference of two directions that count as the same; files round to six digits and fewer."""

POSITION, ORIENTATION, SPACING = "0020|0032", "0020|0037", "0028|0030"
BETWEEN, THICKNESS, SLOPE, INTERCEPT = "0018|0088", "0018|0050", "0028|1053", "0028|1052"
FRAMES, SAMPLES, ROWS, COLUMNS = "0028|0008", "0028|0002", "0028|0010", "0028|0011"
NAMES = {
    POSITION: "ImagePositionPatient",
    ORIENTATION: "ImageOrientationPatient",
    SPACING: "PixelSpacing",
    BETWEEN: "SpacingBetweenSlices",
    THICKNESS: "SliceThickness",
    SLOPE: "RescaleSlope",
    INTERCEPT: "RescaleIntercept",
    SAMPLES: "SamplesPerPixel",
    ROWS: "Rows",
    COLUMNS: "Columns",
}
WAY_OUT = "; convert it to NIfTI with a program that knows the scanner, such as dcm2niix"


@dataclass(frozen=True)
class Slice:
    """A slice, or a frame of a multi-frame file, as its tags have it; ``name`` is for messages."""

    name: str
    tags: Tags

    def numbers(self, tag: str, count: int) -> Array:
        """The values of a tag.

        Raises:
            DataError: the tag is missing or holds something else.
        """
        text = self.tags.get(tag, "").strip()
        if not text:
            raise DataError(f"{self.name} has no {_called(tag)}, and so no known geometry{WAY_OUT}.")
        try:
            values = np.array([float(each) for each in text.split("\\")])
        except ValueError:
            values = np.empty(0)
        if len(values) != count or not np.isfinite(values).all():
            raise DataError(f"{self.name}: {_called(tag)} must be {count} numbers, got {text!r}.")
        return values


def read_dicom(path: Path) -> tuple[NDArray[Any], Array]:
    """The image (X, Y, Z) of a folder with one series, or of one file, and its affine to mm in RAS.

    Origin and distance of the slices come from the positions of all slices. Slices that are shifted against each other, as
    under a gantry tilt, give an affine with this shear.

    Raises:
        FileNotFoundError: a folder without a DICOM series.
        DataError: several series, slices that are missing, doubled, turned or not evenly spaced, or a missing tag.
    """
    import itk

    files = _series(path) if path.is_dir() else [path]
    headers = [Slice(str(file), _header(file)) for file in files]
    _refuse_different(headers, (ROWS, COLUMNS, SAMPLES))
    if headers[0].tags.get(SAMPLES, "1").strip() != "1":
        raise DataError(f"{files[0]} is a color image: {_called(SAMPLES)} is {headers[0].tags[SAMPLES].strip()}.")
    slices = [each for header in headers for each in _frames(header)]
    if len(slices) > len(files) > 1:
        raise DataError(f"{path} holds several files of several frames each; give each file a folder of its own.")
    order, affine = geometry(slices, str(path))
    if len(files) == 1:
        return itk.array_from_image(itk.imread(str(files[0]), pixel_type=itk.F)).T[..., order], affine
    return itk.array_from_image(itk.imread([str(files[i]) for i in order], pixel_type=itk.F)).T, affine


def _frames(header: Slice) -> list[Slice]:
    """The slices of a file: itself, or the frames of an enhanced file."""
    count = int(header.tags.get(FRAMES, "").strip() or 1)
    if count == 1 and header.tags.get(POSITION, "").strip():
        return [header]
    frames = frame_tags(Path(header.name))
    if count == 1 and not frames:
        return [header]
    if len(frames) != count:
        raise DataError(
            f"{header.name} has {count} frames, but PerFrameFunctionalGroupsSequence (5200,9230) has {len(frames)}, so that "
            f"the geometry is not known{WAY_OUT}."
        )
    slices = [Slice(f"frame {i + 1} of {header.name}", tags) for i, tags in enumerate(frames)]
    _refuse_different(slices, (SLOPE, INTERCEPT))  # ITK rescales a file by one pair of numbers
    return slices


def geometry(slices: Sequence[Slice], name: str) -> tuple[list[int], Array]:
    """The order of slices along their normal, and the affine from (column, row, slice) to mm in RAS.

    Args:
        slices: of one volume.
        name: of the volume, for messages.

    Raises:
        DataError: as `read_dicom`.
    """
    _refuse_different(slices, (ORIENTATION, SPACING))
    directions = slices[0].numbers(ORIENTATION, 6).reshape(2, 3)
    lengths = slices[0].numbers(SPACING, 2)  # between rows, between columns
    if not np.allclose(directions @ directions.T, np.eye(2), atol=TURNED):
        raise DataError(f"{slices[0].name}: {_called(ORIENTATION)} is not two unit vectors at a right angle.")
    if not (lengths > 0).all():
        raise DataError(f"{slices[0].name}: {_called(SPACING)} must be positive, got {lengths.tolist()}.")
    normal = np.cross(*directions)
    positions = np.array([each.numbers(POSITION, 3) for each in slices])
    order = np.argsort(positions @ normal, kind="stable").tolist()
    ordered = [slices[i] for i in order]
    step = _step(ordered, positions[order], normal, name)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([directions[0] * lengths[1], directions[1] * lengths[0], step], axis=1)
    affine[:3, 3] = positions[order[0]]
    return order, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _step(slices: Sequence[Slice], positions: Array, normal: Array, name: str) -> Array:
    """From one slice to the next, in mm."""
    if len(slices) == 1:
        tag = BETWEEN if slices[0].tags.get(BETWEEN, "").strip() else THICKNESS
        distance = abs(float(slices[0].numbers(tag, 1)[0]))
        if distance == 0:
            raise DataError(f"{slices[0].name}: {_called(tag)} of its only slice must be positive, got 0.")
        return normal * distance
    steps = np.diff(positions, axis=0)
    along = steps @ normal
    usual = float(np.median(along))
    doubled = int(np.argmin(along))
    if along[doubled] <= UNEVEN * usual or usual <= 0:
        raise DataError(
            f"{name} has two slices at one place: {_called(POSITION)} of {_short(slices[doubled])} and of "
            f"{_short(slices[doubled + 1])} is the same along their normal. Give each volume a folder of its own."
        )
    step: Array = (positions[-1] - positions[0]) / (len(slices) - 1)
    even = positions[0] + np.arange(len(slices))[:, None] * step
    off = np.linalg.norm(positions - even, axis=1)
    if off.max() > UNEVEN * usual:
        like = np.median(steps, axis=0)
        gap = int(np.argmax(np.linalg.norm(steps - like, axis=1)))
        raise DataError(
            f"the DICOM series {name} has slices that are missing or not evenly spaced (off by {off.max():.3g} mm), so that "
            f"no affine is right: by {_called(POSITION)}, {_short(slices[gap + 1])} lies "
            f"{np.linalg.norm(steps[gap]):.4g} mm from {_short(slices[gap])}, where {np.linalg.norm(like):.4g} mm is usual."
        )
    return step


def _refuse_different(slices: Sequence[Slice], tags: Sequence[str]) -> None:
    first = slices[0]
    for tag in tags:
        for each in slices[1:]:
            here, there = (x.tags.get(tag, "").strip() for x in (each, first))
            if here == there:
                continue
            count = len(there.split("\\"))
            if np.allclose(each.numbers(tag, count), first.numbers(tag, count), rtol=1e-4, atol=1e-4):
                continue
            raise DataError(
                f"{each.name} and {_short(first)} differ in {_called(tag)} ({here!r}, {there!r}): they are no slices of one "
                "volume. Give each volume a folder of its own."
            )


def _called(tag: str) -> str:
    return f"{NAMES[tag]} ({tag.replace('|', ',')})"


def _short(each: Slice) -> str:
    return each.name if each.name.startswith("frame") else Path(each.name).name


def _header(file: Path) -> dict[str, str]:
    import itk

    reader = itk.GDCMImageIO.New()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    about = reader.GetMetaDataDictionary()
    return {key: str(about[key]) for key in about.GetKeys()}


def _series(folder: Path) -> list[Path]:
    """The files of the one series in a folder."""
    import itk

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")  # as MONAI's ITKReader tells series apart
    names.SetDirectory(str(folder))
    found = names.GetSeriesUIDs()
    if len(found) == 0:
        raise FileNotFoundError(f"{folder} holds no DICOM series.")
    if len(found) > 1:
        raise DataError(f"{folder} holds {len(found)} DICOM series; give each series a folder of its own.")
    return [Path(file) for file in names.GetFileNames(found[0])]
