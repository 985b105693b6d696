"""Names of cases, from the files that they lie in."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


def case_name(meta: Mapping[str, Any] | None) -> str:
    """Name of the case of a loaded image, from its metadata: its file or DICOM folder without nnU-Net's channel number."""
    return without_channel(stem((meta or {}).get("filename_or_obj", "prediction")))


def output_name(meta: Mapping[str, Any] | None, saver: Any) -> dict[str, Any]:
    """Name of a saved prediction for MONAI's ``SaveImaged``: the case."""
    # MONAI takes an ending off, and would take the last part of a UID
    return {"subject": f"{case_name(meta)}.nii.gz", "idx": None}


def names_of(image: str, label: str, identifiers: Mapping[str, str]) -> tuple[str, ...]:
    """Every name that a case may have, by kind: nnU-Net's identifier, those of its image and its label, and their paths.

    Args:
        image: its first file.
        label: its file.
        identifiers: file of a label -> nnU-Net's identifier, where that is not the name of the image.
    """
    name = case_name({"filename_or_obj": image})
    return identifiers.get(label, name), name, stem(image), stem(label), label, image


def telling_kind(cases: Collection[tuple[str, ...]]) -> int:
    """The first kind of name of which no two cases have the same; the last kind if there is none."""
    kinds = list(zip(*cases, strict=True))
    return next((i for i, names in enumerate(kinds) if len(set(names)) == len(names)), -1)


def stem(file: Any) -> str:
    """Name of a file without its ending, or of a DICOM folder."""
    path = Path(str(file))
    # the name of a DICOM folder may well be a UID, of which nothing is an ending
    ending = "" if path.is_dir() else "".join(re.findall(r"\.nii\.gz$|\.[^.]+$", path.name))
    return path.name.removesuffix(ending)


def without_channel(name: str) -> str:
    """Name of an image without nnU-Net's channel number."""
    return re.sub(r"_\d{4}$", "", name)
