"""Opening the images and the label of a case, in several processes; nothing here imports torch."""

from __future__ import annotations

import importlib.util
import io
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.datalist import ENDINGS
from monai_segloss.datalist.soft_labels import fault_of_fractions

NIFTI = (".nii.gz", ".nii")
LABELS = 65536
"""Labels are below it."""


@dataclass(frozen=True)
class Case:
    """Files of a case, there or not.

    Args:
        name: of the case.
        images: files of its image.
        label: its label map, if it has one.
        background: the images are fractions of classes, with that of the background among them or not; None: they are not.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    background: bool | None = None


@dataclass(frozen=True)
class Expected:
    """What every case of a data set must hold.

    Args:
        channels: of an image.
        known: labels; None: any.
        ignore: label of voxels that nobody annotated.
    """

    channels: int
    known: frozenset[int] | None = None
    ignore: int | None = None


@dataclass
class Opened:
    """What was found in the files of a case.

    Args:
        name: of the case.
        errors: why it cannot be trained on.
        warnings: what looks wrong.
        voxels: label -> number of voxels.
        shape: of the image, in array axis order.
        spacing: in mm, in array axis order.
    """

    name: str
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    voxels: dict[float, int] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()


def open_all(cases: Sequence[Case], expected: Expected, reader: Any, jobs: int) -> Iterator[Opened]:
    """What is in the files of each case, in the order of the cases.

    Args:
        cases: to open.
        expected: in every case.
        reader: class with nnU-Net's ``read_images`` and ``read_seg``; None: only look whether the files are there.
        jobs: processes; 1: this one.
    """
    if jobs == 1:
        yield from (examine(case, expected, reader) for case in cases)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _end_when_interrupted) as pool:
        with _interrupts_wait():
            futures = [pool.submit(examine, case, expected, reader) for case in cases]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def examine(case: Case, expected: Expected, reader: Any) -> Opened:
    """Open the files of a case."""
    found = Opened(case.name)
    with redirect_stdout(io.StringIO()):  # readers print
        image = [_opened(found, file, reader, "read_images") for file in case.images]
        label = None if case.label is None else _opened(found, case.label, reader, "read_seg")
    parts = [part for part in image if part is not None]
    if parts and len(parts) == len(image):
        if case.background is None:
            _look_at_image(found, expected, parts)
        elif len({part.array.shape for part in parts}) == 1:
            fault = fault_of_fractions(np.concatenate([part.array for part in parts]), case.background)
            found.errors += [] if fault is None else [fault]
    if label is not None:
        _look_at_label(found, expected, label)
    for other in (*parts[1:], *([label] if parts and label is not None else [])):
        _compare(found, parts[0], other)
    return found


@dataclass(frozen=True)
class _File:
    """An array (C, *S) with its place in the world; ``affine`` takes an index (x, y, z) to mm."""

    name: str
    array: NDArray[Any]
    spacing: tuple[float, ...]
    affine: NDArray[np.floating] | None


def _opened(found: Opened, file: Path, reader: Any, method: str) -> _File | None:
    if not file.is_file():
        found.errors.append(f"{file.name} is missing from {file.parent}")
        return None
    if reader is None:
        return None
    try:
        array, about = getattr(reader(), method)([str(file)] if method == "read_images" else str(file))
        _look_for_strange_values(found, file, array, about)
        return _File(file.name, array, tuple(float(x) for x in about["spacing"]), affine(about))
    except Exception as error:
        # the last line: ITK begins with a place in its sources
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[-1].rpartition("ERROR: ")[2].rstrip(".") if file.stat().st_size else "it has 0 bytes"
        found.errors.append(f"{file.name} cannot be read: {reason}")
        return None


def affine(about: Mapping[str, Any]) -> NDArray[np.floating] | None:
    """Of the properties that a reader gives; None where it gives none."""
    if "sitk_stuff" in about:
        facts = about["sitk_stuff"]
        n = len(facts["spacing"])
        axes = min(n, 3)  # the fourth is that of the channels
        affine = np.eye(axes + 1)
        affine[:axes, :axes] = np.reshape(facts["direction"], (n, n))[:axes, :axes] * facts["spacing"][:axes]
        affine[:axes, axes] = facts["origin"][:axes]
        return affine
    facts = about.get("nibabel_stuff", {})
    return facts.get("reoriented_affine", facts.get("original_affine"))


def _look_for_strange_values(found: Opened, file: Path, array: NDArray[Any], about: Mapping[str, Any]) -> None:
    hidden = ""
    if "sitk_stuff" in about and file.name.endswith(NIFTI) and importlib.util.find_spec("nibabel"):
        import nibabel

        stored = nibabel.load(file).dataobj
        if np.issubdtype(stored.dtype, np.floating):
            array, hidden = np.asanyarray(stored), ", which ITK reads as 0"
    strange = array.size - int(np.isfinite(array).sum())
    if strange:
        kinds = {"NaN": np.isnan(array).any(), "infinite": np.isinf(array).any()}
        what = " or ".join(kind for kind in kinds if kinds[kind])
        found.errors.append(f"{file.name} holds {strange} voxels that are {what}{hidden}")


def _look_at_image(found: Opened, expected: Expected, parts: Sequence[_File]) -> None:
    found.shape, found.spacing = parts[0].array.shape[1:], parts[0].spacing
    channels = sum(len(part.array) for part in parts)
    if channels != expected.channels:
        one = f"{parts[0].name} holds {channels} channel{'s' * (channels > 1)}"
        several = f"the files {parts[0].name} to {parts[-1].name} hold {channels} channels"
        found.errors.append(f"{one if len(parts) == 1 else several}, dataset.json names {expected.channels}")


def _look_at_label(found: Opened, expected: Expected, label: _File) -> None:
    if len(label.array) != 1:
        found.errors.append(f"{label.name} holds {len(label.array)} channels, a label map holds one")
    found.voxels = count(label.array)
    finite = [value for value in found.voxels if np.isfinite(value)]
    unknown = [value for value in finite if expected.known is not None and value not in expected.known]
    if unknown:
        listed = ", ".join(f"{value:.9g} ({found.voxels[value]} voxels)" for value in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        found.errors.append(f"{label.name} holds the label {listed}{more}, which is not in dataset.json")
    elif set(found.voxels) == {expected.ignore}:
        found.errors.append(f"{label.name} has no annotated voxel: all of them have the ignore label")
    elif set(found.voxels) == {0}:
        found.warnings.append(f"{label.name} holds background alone")


def count(label: NDArray[Any]) -> dict[float, int]:
    """Voxels of each value of a label map."""
    if np.isfinite(label).all() and (label == np.rint(label)).all() and label.min() >= 0 and label.max() < LABELS:
        counts = np.zeros(int(label.max()) + 1, np.int64)
        for plane in label.reshape(-1, *label.shape[2:]):
            counts += np.bincount(plane.astype(np.intp).ravel(), minlength=len(counts))
        return {int(value): int(counts[value]) for value in counts.nonzero()[0]}
    values, times = np.unique(label, return_counts=True)
    return {float(value): int(n) for value, n in zip(values, times, strict=True)}


def _compare(found: Opened, image: _File, other: _File) -> None:
    """Whether two files lie on one grid: shape and spacing as nnU-Net asks, place as our bundles ask."""
    for what, one, two in (
        ("shape", image.array.shape[1:], other.array.shape[1:]),
        ("spacing", image.spacing, other.spacing),
    ):
        if len(one) != len(two) or not np.allclose(one, two):
            mine, own = (tuple(round(x, 4) for x in sizes) for sizes in (two, one))
            found.errors.append(f"{other.name} has the {what} {mine}, {image.name} {own}")
            return
    if image.affine is None or other.affine is None or np.allclose(image.affine, other.affine):
        return
    axes = len(image.affine) - 1
    corners = np.array([*product(*((0, size - 1) for size in image.array.shape[: -axes - 1 : -1]), (1,))]).T
    apart = float(np.linalg.norm((image.affine - other.affine) @ corners, axis=0).max())
    voxel = float(np.linalg.norm(image.affine[:axes, :axes], axis=0).min())
    text = f"{other.name} lies up to {apart:.3g} mm away from {image.name}: origin or direction differ in their headers"
    (found.errors if apart > voxel / 2 else found.warnings).append(text)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back, in processes that start in it too."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_when_interrupted() -> None:
    """Ctrl-C reaches every process of a terminal: let this one end at once, and the first one speak."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class PlainReader:
    """Reads volumes as nnU-Net's readers do, where nnU-Net is not installed."""

    def read_images(self, files: Sequence[str]) -> tuple[NDArray[Any], Mapping[str, Any]]:
        """Array (C, *S) and properties of one file."""
        array, about = read_image(Path(files[0]))
        if array.ndim not in (3, 4):
            raise ValueError(f"expected 3 axes, or 4 with channels, got {array.ndim}")
        return array if array.ndim == 4 else array[None], about

    def read_seg(self, file: str) -> tuple[NDArray[Any], Mapping[str, Any]]:
        """Array (1, *S) and properties."""
        return self.read_images([file])


def plain_reader(file_ending: str) -> type[PlainReader] | None:
    """The reader where a package is installed that it needs for such files, else None."""
    nibabel = file_ending in NIFTI and importlib.util.find_spec("nibabel")
    sitk = file_ending in ENDINGS and importlib.util.find_spec("SimpleITK")
    return PlainReader if sitk or nibabel else None


def read_image(file: Path) -> tuple[NDArray[Any], Mapping[str, Any]]:
    """Array as it is stored, axes (z, y, x), and properties as nnU-Net names them; with SimpleITK or else nibabel."""
    if importlib.util.find_spec("SimpleITK"):
        import SimpleITK as sitk  # noqa: N813

        image = sitk.ReadImage(str(file))
        place = {"spacing": image.GetSpacing(), "origin": image.GetOrigin(), "direction": image.GetDirection()}
        return sitk.GetArrayFromImage(image), {"spacing": image.GetSpacing()[:3][::-1], "sitk_stuff": place}
    import nibabel

    volume = nibabel.load(file)
    spacing = volume.header.get_zooms()[:3][::-1]
    return np.asanyarray(volume.dataobj).T, {"spacing": spacing, "nibabel_stuff": {"original_affine": volume.affine}}
