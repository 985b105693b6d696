"""Which forms the entries of a ``dataset.json`` may have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_entries(description: Path, content: Mapping[str, Any]) -> None:
    """Refuse a description whose parts have other forms than the two layouts know."""
    for key, kinds, wanted in _FORMS:
        if key in content and not isinstance(content[key], kinds):
            raise ValueError(f"{description}: {key} must be {wanted}, got {content[key]!r}.")
    listed = [*content.get("validation", ()), *content.get("test", ())]
    listed += content["training"] if isinstance(content.get("training"), list) else []
    entries = [{"image": each} if isinstance(each, str) else each for each in listed]
    entries += [
        {"image": case.get("images"), "label": case.get("label", "")} if isinstance(case, Mapping) else case
        for case in content.get("dataset", {}).values()
    ]
    for each in entries:
        images = each.get("image") if isinstance(each, Mapping) else None
        files = [images] if isinstance(images, str) else images
        label = each.get("label", "") if isinstance(each, Mapping) else None
        if not files or not isinstance(files, list) or not all(isinstance(file, str) for file in (*files, label)):
            raise ValueError(f"{description}: a case must name its image (one file or a list) and label, got {each!r}.")


_FORMS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("file_ending", str, "text, as '.nii.gz'"),
    ("channel_names", (dict, list), "a mapping of numbers to names"),
    ("modality", (dict, list), "a mapping of numbers to names"),
    ("dataset", dict, "a mapping of cases to images and label"),
    ("validation", list, "a list of cases"),
    ("test", list, "a list of cases"),
)
