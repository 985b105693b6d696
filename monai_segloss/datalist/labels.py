"""What the numbers in the label maps of a data set mean: classes, regions, voxels to ignore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Labels:
    """What the numbers in a label map mean.

    Attributes:
        names: of the channels that are scored: every class but the background, or every region.
        regions: labels of each region, one output channel each; empty where every voxel has one class.
        order: label that each region gets in a predicted label map, a later one over an earlier one.
        ignore: label of voxels that nobody annotated, or None.
    """

    names: tuple[str, ...]
    regions: tuple[tuple[int, ...], ...] = ()
    order: tuple[int, ...] = ()
    ignore: int | None = None

    @property
    def channels(self) -> int:
        """Outputs of the network: one per region, or one per class and one for the background."""
        return len(self.regions) or len(self.names) + 1

    @property
    def values(self) -> tuple[int, ...]:
        """Every number that a label map may hold."""
        known = {0, *(label for region in self.regions for label in region)} if self.regions else range(self.channels)
        return tuple(sorted({*known, *(() if self.ignore is None else (self.ignore,))}))

    @staticmethod
    def read(content: Mapping[str, Any], source: str | Path = "dataset.json") -> Labels:
        """Labels of the content of a ``dataset.json``: nnU-Net's name to number(s), or Decathlon's number to name.

        Args:
            content: with ``labels`` and, for regions, nnU-Net's ``regions_class_order``.
            source: the file, for messages.

        Raises:
            ValueError: a gap in the labels, an ignore label that is used twice, no or a wrong order of the regions.

        Example:
            >>> from monai_segloss.datalist import Labels
            >>> Labels.read({"labels": {"background": 0, "organ": 1, "ignore": 2}})
            Labels(names=('organ',), regions=(), order=(), ignore=2)
        """
        numbers = numbers_by_name(content.get("labels", {}), source)
        ignore = numbers.pop("ignore", None)
        if ignore is not None and (len(ignore) != 1 or any(ignore[0] in each for each in numbers.values())):
            got = ignore[0] if len(ignore) == 1 else list(ignore)
            raise ValueError(f"{source}: labels: 'ignore' must be one number of its own, got {got}.")
        single = None if ignore is None else ignore[0]
        if any(len(value) > 1 for value in numbers.values()):
            numbers.pop("background", None)
            order = content.get("regions_class_order")
            if not isinstance(order, list) or len(order) != len(numbers) or not all(type(x) is int for x in order):
                raise ValueError(
                    f"{source}: regions_class_order must list one number for each of the {len(numbers)} regions "
                    f"({', '.join(numbers)}), got {order!r}."
                )
            return Labels(tuple(numbers), tuple(numbers.values()), tuple(order), single)
        by_value = {value[0]: name for name, value in numbers.items()}
        if len(numbers) < 2 or sorted(by_value) != list(range(len(numbers))):
            found = sorted(value[0] for value in numbers.values())
            raise ValueError(f"{source}: labels must be 0 (background), 1, 2 ... without a gap, got {found}.")
        return Labels(tuple(by_value[value] for value in range(1, len(numbers))), ignore=single)


def numbers_by_name(labels: Mapping[str, Any], source: str | Path = "dataset.json") -> dict[str, tuple[int, ...]]:
    """The number or numbers of each name, background and ignore label among them, as nnU-Net or the Decathlon write them.

    Args:
        labels: of the content of a ``dataset.json``: name to number(s), also as text, or number to name.
        source: the file, for messages.

    Raises:
        ValueError: a value that is no number from 0 to 65535 and no list of them.

    Example:
        >>> from monai_segloss.datalist import numbers_by_name
        >>> numbers_by_name({"background": 0, "organ": [1], "lesion": "2", "both": [1, 2]})
        {'background': (0,), 'organ': (1,), 'lesion': (2,), 'both': (1, 2)}
    """
    named = labels if "background" in labels else {name: value for value, name in labels.items()}
    # nnU-Net takes "ignore": null for no ignore label
    return {name: _numbers(name, value, source) for name, value in named.items() if (name, value) != ("ignore", None)}


def _numbers(name: str, value: Any, source: str | Path) -> tuple[int, ...]:
    found = value if isinstance(value, list) else [value]
    try:
        numbers = tuple(int(each) for each in found)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(0 <= each <= 65535 for each in numbers):
        raise ValueError(
            f"{source}: labels: {name!r} must be a number from 0 to 65535 or a list of them, got {value!r}."
        )
    return numbers
