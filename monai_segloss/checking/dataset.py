"""Whether nnU-Net and our bundles can train on an nnU-Net raw data set; every image and label is opened."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_segloss import datalist
from monai_segloss.checking import CannotCheck, Finding, rules
from monai_segloss.checking.soft_labels import check_soft_labels
from monai_segloss.checking.volumes import Case, Expected, Opened, open_all, plain_reader

if TYPE_CHECKING:
    from monai_segloss import LossInfo

Numbers = Mapping[str, tuple[int, ...]]
INSTALL = "pip install 'monai-segloss[nnunet]'"
MOST_JOBS, MEGABYTES_PER_JOB = 8, 50


def check_dataset(folder: Path, info: LossInfo | None = None, jobs: int | None = None) -> list[Finding]:
    """Findings about a raw data set.

    What nnU-Net refuses is an error.  So is a file that cannot be trained on: unreadable, not finite, or not on the grid of
    its label.

    Args:
        folder: with a dataset.json.
        info: a loss that is to be trained on it.
        jobs: processes that open files; None: as many as the files are worth, at most one per core.

    Raises:
        CannotCheck: a process was ended.
    """
    try:
        content = datalist.read_description(folder)
    except ValueError as error:
        return [Finding("error", str(error))]
    broken = rules.faults(content, rules.STRUCTURE)
    if broken:
        return [Finding("error", f"dataset.json {fault}.") for fault in broken]
    found = list(_findings(folder, content, info, jobs))
    if not any(finding.level == "error" for finding in found):
        found += _refused_by_bundles(folder, content)
    return found


def _findings(folder: Path, content: Mapping[str, Any], info: LossInfo | None, jobs: int | None) -> Iterator[Finding]:
    nnunet = importlib.util.find_spec("nnunetv2") is not None
    if not nnunet:
        text = "nnU-Net is not installed: its labels, its list of cases and its readers were not asked"
        yield Finding("warning", f"{text}, only what is known of them was checked ({INSTALL}).")
    refused, known = _read_labels(content, nnunet)
    yield from (Finding("error", f"dataset.json {fault}.") for fault in refused)
    numbers = {} if refused else _numbers(content)
    try:
        training = _training_cases(folder, content, nnunet)
    except ValueError as error:
        yield Finding("error", f"{error}.")
        return
    yield from _count(content, training)
    if not refused:
        yield from _fits(info, numbers)
        yield from _labeled_classes(folder, content, [case.name for case in training])
    stray = _stray_labels(folder, content, training)
    for case in stray:
        wanted = f"{case.name}_0000{content['file_ending']}"
        yield Finding("warning", f"{case.name}: {wanted} is missing from imagesTr, so nnU-Net leaves its label out.")
    cases = [*training, *stray, *_test_cases(folder, content)]
    reader = _reader(content, cases, nnunet)
    if reader is None:
        text = f"no installed package opens files that end in {content['file_ending']}: none was opened"
        yield Finding("error" if nnunet else "warning", f"{text} ({INSTALL}).")
    expected = Expected(len(content["channel_names"]), known, numbers.get("ignore", (None,))[0])
    opened = _open(cases, expected, reader, jobs)
    if numbers:
        labels = {label for name, each in numbers.items() if name != "ignore" for label in each} - {0}
        yield from check_soft_labels(
            folder,
            content,
            labels,
            training,
            info,
            lambda soft: _open(soft, replace(expected, channels=1), reader, jobs),
        )
    for each in opened:
        yield from (Finding("error", f"{each.name}: {text}.") for text in each.errors)
        yield from (Finding("warning", f"{each.name}: {text}.") for text in each.warnings)
    yield from _classes(numbers, [each for each in opened[: len(training)] if each.voxels])
    yield from _grids([each for each in opened[: len(training)] if each.shape])
    wrong = sum(bool(each.errors) for each in opened)
    if wrong:
        yield Finding("error", f"{wrong} of {len(cases)} cases have errors.")
    elif reader is not None:
        files = sum(len(case.images) + (case.label is not None) for case in cases)
        yield Finding("ok", f"{len(cases)} cases: {files} files were opened with {reader.__name__}")


def _read_labels(content: Mapping[str, Any], nnunet: bool) -> tuple[list[str], frozenset[int] | None]:
    """What is wrong with the labels, and else the values of a label map.

    nnU-Net decides, where it is installed, and the rules explain.
    """
    explained = rules.faults(content, rules.LABELS)
    if not nnunet:
        return explained, None if explained else frozenset(rules.known_labels(content))
    from nnunet_trainers import raw_data

    try:
        return [], frozenset(raw_data.known_labels(content))
    except raw_data.RejectedByNnUNet as error:
        return explained or [f"has labels that nnU-Net refuses: {error}"], None


def _numbers(content: Mapping[str, Any]) -> Numbers:
    try:
        return datalist.numbers_by_name(content["labels"])
    except ValueError:  # what nnU-Net takes nevertheless; our bundles refuse it, and say so
        return {}


def _training_cases(folder: Path, content: Mapping[str, Any], nnunet: bool) -> list[Case]:
    """Those of nnU-Net's list where it is installed; the files may be missing."""
    for name in ("imagesTr", "labelsTr"):
        if "dataset" not in content and not (folder / name).is_dir():
            raise ValueError(f"{folder} has no folder {name}")
    if nnunet:
        from nnunet_trainers import raw_data

        files = raw_data.training_files(folder, content)
    else:
        items = datalist.training_items(folder, content)
        files = {_stem(item["label"], content): (item["image"], item["label"]) for item in items}
    return [Case(name, tuple(map(Path, images)), Path(label)) for name, (images, label) in files.items()]


def _stem(file: Path | str, content: Mapping[str, Any]) -> str:
    return Path(file).name.removesuffix(content["file_ending"])


def _count(content: Mapping[str, Any], training: Sequence[Case]) -> Iterator[Finding]:
    stated, ending = content["numTraining"], content["file_ending"]
    if len(training) != stated:
        yield Finding("error", f"dataset.json has numTraining {stated}, and there are {len(training)} training cases.")
    elif not training:
        yield Finding("error", f"there is no training case: imagesTr has no file CASE_0000{ending}.")
    for case in training:
        if not case.images:
            yield Finding(
                "error", f"{case.name}: no image {case.name}_0000{ending}; names end in the channel's number."
            )


def _stray_labels(folder: Path, content: Mapping[str, Any], training: Sequence[Case]) -> list[Case]:
    """Labels without an image."""
    known, ending = {case.name for case in training}, content["file_ending"]
    names = () if "dataset" in content else datalist.file_names(folder / "labelsTr", ending)
    return [Case(name, (), folder / "labelsTr" / f"{name}{ending}") for name in names if name not in known]


def _test_cases(folder: Path, content: Mapping[str, Any]) -> Iterator[Case]:
    for item in datalist.unlabeled_items(folder, content):
        name = datalist.case_name({"filename_or_obj": item["image"][0]})
        label = folder / "labelsTs" / f"{name}{content['file_ending']}"
        yield Case(f"{name} (imagesTs)", tuple(map(Path, item["image"])), label if label.is_file() else None)


def _reader(content: Mapping[str, Any], cases: Sequence[Case], nnunet: bool) -> Any:
    """The class that opens the files, nnU-Net's where it is installed; None where there is none."""
    if not nnunet:
        return plain_reader(content["file_ending"])
    from nnunet_trainers import raw_data

    # nnU-Net tries the first image; where that one is broken, the ending alone decides
    for example in (next((str(file) for case in cases for file in case.images if file.is_file()), None), None):
        try:
            return raw_data.reader(content, example)
        except raw_data.RejectedByNnUNet:
            continue
    return None


def _open(cases: Sequence[Case], expected: Expected, reader: Any, jobs: int | None) -> list[Opened]:
    from rich.console import Console
    from rich.progress import track

    files = [file for case in cases for file in (*case.images, case.label) if file is not None and file.is_file()]
    if jobs is None:
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = min(MOST_JOBS, cores, 1 + int(megabytes / MEGABYTES_PER_JOB))
    console = Console(stderr=True)
    opening = open_all(cases, expected, reader, min(jobs, len(cases) or 1))
    shown = track(
        opening, "Opening files", len(cases), console=console, transient=True, disable=not console.is_terminal
    )
    try:
        return list(shown)
    except BrokenProcessPool:
        raise CannotCheck(
            f"a process that opens files was ended from outside, often for lack of memory: try --jobs {max(1, jobs // 2)}."
        ) from None


def _fits(info: LossInfo | None, numbers: Numbers) -> Iterator[Finding]:
    if info is None:
        return
    regions = any(len(each) > 1 for each in numbers.values())
    for present, word in ((regions, "regions"), ("ignore" in numbers, "ignore"), (not regions, "labels")):
        if present and word not in info.support:
            yield Finding("error", f"{info.key} does not support {word}, which this data set has.")
    if info.needs:
        yield Finding("ok", f"{info.key} computes what it needs itself: {', '.join(spec.key for spec in info.needs)}")


def _labeled_classes(folder: Path, content: Mapping[str, Any], cases: Sequence[str]) -> Iterator[Finding]:
    """The file that the losses for partial labels read."""
    from nnunet_trainers import partial_labels

    path = partial_labels.find([str(folder)])
    if path is None:
        return
    try:
        partial_labels.read(path, content["labels"], cases)
    except ValueError as error:
        yield Finding("error", f"{error}.")
    else:
        yield Finding("ok", f"{path.name}: the labeled classes of {len(cases)} cases")


def _classes(numbers: Numbers, opened: Sequence[Opened]) -> Iterator[Finding]:
    """How often each class occurs."""
    total = sum(sum(each.voxels.values()) for each in opened)
    for name, parts in numbers.items() if total else ():
        voxels = [sum(each.voxels.get(number, 0) for number in set(parts)) for each in opened]
        cases = sum(n > 0 for n in voxels)
        if cases:
            share = f"{100 * sum(voxels) / total:.3g} % of the voxels"
            yield Finding("ok", f"class {name!r}: in {cases} of {len(opened)} cases, {share}")
        elif name != "ignore":
            yield Finding("warning", f"class {name!r} is empty in all {len(opened)} cases.")


def _grids(opened: Sequence[Opened]) -> Iterator[Finding]:
    """Spacings and sizes; of 2-D images without the axis that nnU-Net adds."""
    if not opened:
        return
    shapes, spacings = np.array([each.shape for each in opened]), np.array([each.spacing for each in opened])
    if (shapes[:, 0] == 1).all():
        shapes, spacings = shapes[:, 1:], spacings[:, 1:]
    low, high = (tuple(round(float(x), 4) for x in edge(spacings, axis=0)) for edge in (np.min, np.max))
    yield Finding("ok", f"voxel spacing {low} to {high} mm, in array axis order")
    yield Finding("ok", f"sizes {tuple(shapes.min(0).tolist())} to {tuple(shapes.max(0).tolist())} voxels")
    if max(high) > 2 * min(high):
        yield Finding("warning", "the voxels are anisotropic: losses that measure distances need the spacing.")


def _refused_by_bundles(folder: Path, content: Mapping[str, Any]) -> Iterator[Finding]:
    """What nnU-Net takes and our bundles do not read."""
    if content["file_ending"] not in datalist.ENDINGS:
        text = f"bundles of this package read volumes ({', '.join(datalist.ENDINGS)}), not {content['file_ending']}."
        yield Finding("warning", text)
    try:
        datalist.read(folder)
    except (ValueError, OSError) as error:
        yield Finding("warning", f"bundles of this package refuse the data set: {error}")
