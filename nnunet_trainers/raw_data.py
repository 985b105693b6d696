"""nnU-Net's own reading of a raw data set: its labels, its list of cases and its reader of images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np


class RejectedByNnUNet(ValueError):
    """nnU-Net does not take the data set; the message is nnU-Net's."""


def known_labels(content: Mapping[str, Any]) -> list[int]:
    """Every value that nnU-Net expects in a label map.

    Raises:
        RejectedByNnUNet: it does not take the labels.
    """
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    try:
        manager = LabelManager(content["labels"], content.get("regions_class_order"))
    except Exception as error:  # it asserts, raises and stumbles
        raise RejectedByNnUNet(_words(error)) from None
    found = [int(label) for label in manager.all_labels]
    found += [manager.ignore_label] if manager.has_ignore_label else []
    if (np.diff(found) != 1).any():
        raise RejectedByNnUNet(f"labels must be consecutive, got {found}")
    return found


def training_files(folder: Path, content: Mapping[str, Any]) -> dict[str, tuple[list[str], str]]:
    """Case -> image files and label file, whether they exist or not.

    Raises:
        RejectedByNnUNet: it finds no way to list them.
    """
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    try:
        found = get_filenames_of_train_images_and_targets(str(folder), deepcopy(dict(content)))
    except Exception as error:
        raise RejectedByNnUNet(_words(error)) from None
    return {str(case): (list(files["images"]), str(files["label"])) for case, files in found.items()}


def reader(content: Mapping[str, Any], example: str | None) -> Any:
    """The class that reads the files of a data set.

    Args:
        content: of dataset.json.
        example: an image that the reader must be able to read.

    Raises:
        RejectedByNnUNet: there is no such reader.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return determine_reader_writer_from_dataset_json(dict(content), example, verbose=False)
    except Exception as error:
        raise RejectedByNnUNet(_words(error)) from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
