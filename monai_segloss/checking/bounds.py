"""Bounds of the labels of a fold's training cases: nothing of a validation case is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai_segloss import datalist
from monai_segloss.checking.labels import label_reader, read_label
from monai_segloss.files import read_json
from monai_segloss.prior.bounds import BoundsError, Volume, measure_bounds

AXES = ("zyx", "xyz")
Item = dict[str, Any]


def training_cases(found: datalist.Datalist, fold: int | str, splits: Path | None) -> dict[str, Item]:
    """The training cases of a fold by name: of nnU-Net's file of splits, else those of its default split.

    Raises:
        BoundsError: the file has no such fold, or names a case that the data set has not.
        ValueError: there is no such fold.
    """
    if splits is None or fold == "all":
        return found.named(found.train_items(fold))
    folds = read_json(splits)
    if int(fold) not in range(len(folds)):
        raise BoundsError(f"fold must be 'all' or 0 to {len(folds) - 1}, as in {splits}, got {fold}.")
    known = found.named(found.training)
    names = list(map(str, folds[int(fold)]["train"]))
    missing = [name for name in names if name not in known]
    if missing:
        raise BoundsError(f"{splits} names the case {missing[0]!r}, which the data set has not.")
    return {name: known[name] for name in names}


def bounds_of_fold(
    folder: Path,
    fold: int | str,
    splits: Path | None = None,
    axes: str = "zyx",
    between: Sequence[float] = (0.0, 1.0),
    advance: Callable[[int, int], None] = lambda done, count: None,
) -> dict[str, Any]:
    """The content of a file of bounds.

    Args:
        folder: nnU-Net's raw layout or a Decathlon datalist.
        fold: number, or all.
        splits: nnU-Net's ``splits_final.json``.
        axes: order of the axes of centroids and spreads: "zyx", as nnU-Net reads volumes, or "xyz", as MONAI does.
        between: the quantiles that are the bounds.
        advance: called with the number of cases read and to read.

    Raises:
        ValueError, OSError: no such data set or fold, or a label that cannot be read.
    """
    if axes not in AXES:
        raise BoundsError(f"axes must be one of {', '.join(AXES)}, got {axes!r}.")
    found, content = datalist.read(folder), datalist.read_description(folder)
    items = training_cases(found, fold, splits)
    numbers = datalist.numbers_by_name(content["labels"])
    classes = {name: numbers[name] for name in datalist.Labels.read(content).names}
    first = next(iter(items.values()), None)
    if first is None:
        raise BoundsError(f"fold {fold} of {folder} has no training case.")
    reader = label_reader(content, str(first["image"][0]))

    def load(case: str) -> Volume:
        label, spacing = read_label(reader, Path(items[case]["label"]))
        return (label, spacing) if axes == "zyx" else (label.T, spacing[::-1])

    low, high = between
    measured = measure_bounds(list(items), load, classes, numbers.get("ignore", ()), (low, high), advance)
    about = {
        "dataset": folder.name,
        "fold": fold,
        "axes": axes,
        "versions": {"monai-segloss": version("monai-segloss")},
    }
    return {"format": measured.pop("format"), **about, **measured}
