"""What the labels of a data set look like: shares, components, sizes, thinness, spacing, empty cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_segloss import datalist
from monai_segloss.checking.labels import label_reader, read_label

PARTIAL = "labeled_classes.json"
"""Of nnU-Net's trainers: which classes each case has labels of."""


@dataclass(frozen=True)
class ClassFacts:
    """One class over the cases that were read.

    Args:
        name: of the class.
        share: of all voxels that count.
        present: share of the cases that have it.
        components: median of their number, over the cases that have it.
        size: median volume of a component in mm³ (mm² in 2-D).
        elongation: median over cases of the length of the skeleton per component, over the width that its volume then has;
            NaN where scikit-image is missing.
    """

    name: str
    share: float
    present: float
    components: float
    size: float
    elongation: float


@dataclass(frozen=True)
class Fingerprint:
    """A data set, as far as its labels tell.

    Args:
        cases: that were read.
        known: that there are.
        dimensions: 2 or 3.
        spacing: median edge lengths of a voxel in mm.
        classes: foreground classes.
        regions: whether a class has several labels.
        ignore: whether there is an ignore label.
        partial: whether some cases have labels of some classes only.
    """

    cases: int
    known: int
    dimensions: int
    spacing: tuple[float, ...]
    classes: tuple[ClassFacts, ...]
    regions: bool
    ignore: bool
    partial: bool

    @property
    def anisotropy(self) -> float:
        """Largest over smallest edge of a voxel."""
        return max(self.spacing) / min(self.spacing)


def fingerprint(
    folder: Path, most: int = 40, advance: Callable[[int, int], None] = lambda done, count: None
) -> Fingerprint:
    """Read the labels of a data set.

    Args:
        folder: nnU-Net's raw layout or a Decathlon datalist.
        most: cases to read, evenly spread over the names.
        advance: called with the number of cases read and to read.

    Raises:
        ValueError: no labeled case, labels that make no sense, or one that cannot be read.
        OSError: a file is missing.
    """
    found = datalist.read(folder)
    content = datalist.read_description(folder)
    items = [each for each in found.training if "label" in each]
    if not items:
        raise ValueError(f"{folder} has no labeled case.")
    numbers = datalist.numbers_by_name(content["labels"])
    classes = {name: each for name, each in numbers.items() if name not in ("background", "ignore")}
    chosen = [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))]
    reader = label_reader(content, str(chosen[0]["image"][0]))
    facts, spacings = [], []
    for i, item in enumerate(chosen):
        label, spacing = read_label(reader, Path(item["label"]))
        facts.append(_case(label, spacing, classes, numbers.get("ignore", ())))
        spacings.append(spacing)
        advance(i + 1, len(chosen))
    shortest = min(map(len, spacings))
    middle = np.median([each[-shortest:] for each in spacings], axis=0)
    return Fingerprint(
        len(chosen),
        len(items),
        shortest,
        tuple(map(float, middle)),
        tuple(_summary(name, [each[name] for each in facts]) for name in classes),
        any(len(each) > 1 for each in classes.values()),
        "ignore" in numbers,
        (folder / PARTIAL).is_file(),
    )


def _case(
    label: NDArray[Any], spacing: Sequence[float], classes: Mapping[str, Sequence[int]], ignore: Sequence[int]
) -> dict[str, tuple[float, ...]]:
    """Class -> voxels, voxels that count, components, median size, elongation."""
    total = int((~np.isin(label, ignore)).sum())
    found: dict[str, tuple[float, ...]] = {}
    for name, members in classes.items():
        mask = np.isin(label, members)
        labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * math.prod(spacing)
        size = float(np.median(sizes)) if count else math.nan
        elongation = _elongation(mask, spacing, count) if count else math.nan
        found[name] = (float(mask.sum()), float(total), float(count), size, elongation)
    return found


def _elongation(mask: NDArray[np.bool_], spacing: Sequence[float], components: int) -> float:
    """Length of the skeleton per component over the width of a tube of that length and the mask's volume."""
    try:
        from skimage.morphology import skeletonize
    except ImportError:
        return math.nan
    box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in ndimage.find_objects(mask.astype(np.uint8))[0])
    step = math.prod(spacing) ** (1 / mask.ndim)
    length = max(int(skeletonize(mask[box]).sum()), components) * step
    section = mask.sum() * math.prod(spacing) / length
    return float(length / components / section ** (1 / (mask.ndim - 1)))


def _summary(name: str, cases: Sequence[tuple[float, ...]]) -> ClassFacts:
    table = np.array(cases)
    there = table[table[:, 0] > 0]
    middle = np.median(there[:, 2:], axis=0) if len(there) else np.full(3, math.nan)
    share = float(table[:, 0].sum() / max(1.0, table[:, 1].sum()))
    return ClassFacts(name, share, len(there) / len(table), *map(float, middle))
