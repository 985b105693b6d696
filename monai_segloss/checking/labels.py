"""Label maps of a data set, read one by one."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from monai_segloss.checking.volumes import plain_reader


def label_reader(content: Mapping[str, Any], example: str) -> Any:
    """nnU-Net's reader where it is installed and has one, else one of ours.

    Args:
        content: of dataset.json.
        example: an image that it must be able to read.

    Raises:
        ValueError: no installed package opens the files.
    """
    ending = str(content.get("file_ending") or ".nii.gz")
    if importlib.util.find_spec("nnunetv2"):
        from nnunet_trainers import raw_data

        try:
            return raw_data.reader({**content, "file_ending": ending}, example)()
        except raw_data.RejectedByNnUNet:
            pass
    reader = plain_reader(ending)
    if reader is None:
        raise ValueError(f"no installed package opens files that end in {ending}: pip install 'monai-segloss[nnunet]'.")
    return reader()


def read_label(reader: Any, file: Path) -> tuple[NDArray[Any], tuple[float, ...]]:
    """A label map and its spacing, of three axes (z, y, x), or of two where there is one slice.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        with redirect_stdout(io.StringIO()):
            array, about = reader.read_seg(str(file))
    except Exception as error:  # readers raise what their libraries do
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ValueError(f"{file} cannot be read: {reason[0].rstrip('.')}.") from None
    label, spacing = array[0], tuple(float(edge) for edge in about["spacing"])
    return (label[0], spacing[1:]) if label.shape[0] == 1 else (label, spacing)
