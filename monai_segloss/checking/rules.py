"""What nnU-Net asks of a ``dataset.json``; each rule says what is wrong, as the end of a sentence about the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

Content = Mapping[str, Any]
Rule = Callable[[Content], Iterator[str]]
KEYS = ("channel_names", "labels", "numTraining", "file_ending")


def faults(content: Content, rules: tuple[Rule, ...]) -> list[str]:
    """What the first broken rule says; a rule takes for granted what the rules before it ask."""
    return next((found for found in ([*rule(content)] for rule in rules) if found), [])


def known_labels(content: Content) -> list[int]:
    """Every value of a label map, of a content that breaks no rule."""
    ignore = content["labels"].get("ignore")
    return _annotated(content) + ([] if ignore is None else [int(ignore)])


def _names_to_numbers(content: Content) -> Iterator[str]:
    labels = content.get("labels")
    if labels and all(number.isdecimal() and isinstance(name, str) for number, name in labels.items()):
        yield (
            "maps numbers to names of labels as the Decathlon and nnU-Net v1 do, and nnU-Net v2 wants names to numbers: "
            "convert the data set with nnUNetv2_convert_MSD_dataset or nnUNetv2_convert_old_nnUNet_dataset"
        )


def _has_keys(content: Content) -> Iterator[str]:
    missing = [key for key in KEYS if key not in content]
    if missing:
        yield f"lacks {', '.join(missing)}"


def _types(content: Content) -> Iterator[str]:
    for key in ("channel_names", *(("dataset",) if "dataset" in content else ())):
        if not isinstance(content[key], dict):
            yield f"needs {key!r} as a JSON object, got {content[key]!r}"
    for key, kind, words in (("file_ending", str, "text, like '.nii.gz'"), ("numTraining", int, "a whole number")):
        if not isinstance(content[key], kind):
            yield f"needs {key!r} as {words}, got {content[key]!r}"


def _listed_files(content: Content) -> Iterator[str]:
    for case, files in content.get("dataset", {}).items():
        fine = isinstance(files, dict) and isinstance(files.get("images"), list) and isinstance(files.get("label"), str)
        if not fine:
            yield f"needs a list 'images' and one file 'label' for the case {case!r} in 'dataset', got {files!r}"


def _background(content: Content) -> Iterator[str]:
    labels = content["labels"]
    found = labels.get("background")
    if isinstance(found, list) or _number(found) != 0:
        yield (
            f"needs the label 'background': 0, got {found!r}"
            if "background" in labels
            else ("needs the label 'background': 0, which it does not name")
        )


def _numbers(content: Content) -> Iterator[str]:
    for name, value in content["labels"].items():
        if name != "ignore" and any(_number(each) is None for each in _list(value)):
            yield f"gives the label {name!r} the value {value!r}; expected a whole number or a list of them"


def _ignore(content: Content) -> Iterator[str]:
    ignore, highest = content["labels"].get("ignore"), max(_annotated(content))
    if ignore is not None and not isinstance(ignore, int):
        yield f"gives the label 'ignore' the value {ignore!r}; expected one whole number"
    elif ignore is not None and ignore != highest + 1:
        yield f"gives the label 'ignore' the value {ignore}; it must be the highest label, {highest + 1}"


def _consecutive(content: Content) -> Iterator[str]:
    found = _annotated(content)
    if any(high - low != 1 for low, high in pairwise(found)):
        yield f"must have consecutive labels from 0, got {', '.join(map(str, found))}"


def _regions(content: Content) -> Iterator[str]:
    labels, order = content["labels"], content.get("regions_class_order")
    if not any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
        return
    regions = [name for name, value in labels.items() if name != "ignore" and value != 0 and set(_list(value)) != {0}]
    if not isinstance(order, list) or len(order) != len(regions):
        yield (
            f"needs 'regions_class_order', a list of one label for each of its {len(regions)} regions "
            f"({', '.join(regions)}), got {order!r}"
        )


def _number(value: Any) -> int | None:
    """The whole number that nnU-Net reads, also from text."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _annotated(content: Content) -> list[int]:
    """Every label but the one to ignore, sorted."""
    return sorted({int(x) for name, value in content["labels"].items() if name != "ignore" for x in _list(value)})


STRUCTURE: tuple[Rule, ...] = (_names_to_numbers, _has_keys, _types, _listed_files)
"""What must hold before the rest of the file can be read."""
LABELS: tuple[Rule, ...] = (_background, _numbers, _ignore, _consecutive, _regions)
"""What nnU-Net asks of ``labels`` and ``regions_class_order``."""
