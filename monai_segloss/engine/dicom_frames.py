"""Tags of each frame of an enhanced multi-frame DICOM file, which ITK does not hand out."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from monai_segloss.engine.errors import DataError

Buffer = bytes | mmap.mmap
DataSet = dict[int, Any]
"""Tag to bytes, or to the data sets of a sequence."""

SHARED, PER_FRAME, PIXELS = 0x52009229, 0x52009230, 0x7FE00010
SEQUENCES = (SHARED, PER_FRAME, 0x00209113, 0x00209116, 0x00289110, 0x00289145)
"""Sequences that are read: the functional groups; in them position, orientation, pixel measures, rescaling."""
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Value representations with a length of 32 bits (DICOM PS3.5, 7.1.2)."""
ITEM_END, SEQUENCE_END, UNDEFINED = 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF
TRANSFER_SYNTAX, IMPLICIT = 0x00020010, "1.2.840.10008.1.2"
OTHER = {"1.2.840.10008.1.2.1.99": "deflated", "1.2.840.10008.1.2.2": "big endian"}
"""Transfer syntaxes that no scanner of today writes; every one but these and the implicit one is explicit."""


def frame_tags(file: Path) -> list[dict[str, str]]:
    """Per frame, in the order of the frames, the text of its tags as ``{"0020|0032": "1\\2\\3"}``; shared ones in each.

    A file without functional groups gives an empty list.

    Raises:
        DataError: a file whose elements cannot be read.
    """
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            content = _content(data)
        except (struct.error, ValueError) as error:
            raise DataError(f"{file}: the tags of its frames cannot be read: {error}.") from None
    shared = _texts(content.get(SHARED) or [{}])
    return [{**shared, **_texts([frame])} for frame in content.get(PER_FRAME, [])]


def _texts(groups: list[DataSet]) -> dict[str, str]:
    """Text of the tags in the functional groups of one item."""
    found: dict[str, str] = {}
    for group in groups:
        for value in group.values():
            for item in value if isinstance(value, list) else ():
                for tag, text in item.items():
                    if isinstance(text, bytes):
                        found[f"{tag >> 16:04x}|{tag & 0xFFFF:04x}"] = text.decode("ascii", "replace").rstrip("\0 ")
    return found


def _content(data: Buffer) -> DataSet:
    length = struct.unpack_from("<I", data, 140)[0]  # of the file's own group, which comes first and is explicit
    start = 144 + length
    about, _ = _data_set(data, 144, start, explicit=True)
    syntax = about[TRANSFER_SYNTAX].decode("ascii").rstrip("\0 ") if TRANSFER_SYNTAX in about else IMPLICIT
    if syntax in OTHER:
        raise ValueError(f"its transfer syntax is {OTHER[syntax]}")
    return _data_set(data, start, len(data), explicit=syntax != IMPLICIT)[0]


def _data_set(data: Buffer, at: int, end: int, explicit: bool) -> tuple[DataSet, int]:
    """The elements up to ``end``, to the end of an item of undefined length or to the pixels, and where they end."""
    found: DataSet = {}
    while at < end:
        group, element = struct.unpack_from("<HH", data, at)
        tag = group << 16 | element
        if tag == ITEM_END:
            return found, at + 8
        if tag == PIXELS:
            break
        kind = data[at + 4 : at + 6] if explicit else b""
        if explicit and kind not in LONG:
            length, value = struct.unpack_from("<H", data, at + 6)[0], at + 8
        else:
            value = at + (12 if explicit else 8)
            length = struct.unpack_from("<I", data, value - 4)[0]
        if length == UNDEFINED or tag in SEQUENCES:
            # unknown elements of undefined length are implicit (PS3.5, 6.2.2)
            stop = end if length == UNDEFINED else value + length
            found[tag], at = _items(data, value, stop, explicit and kind != b"UN")
        else:
            found[tag], at = data[value : value + length], value + length
    return found, at


def _items(data: Buffer, at: int, end: int, explicit: bool) -> tuple[list[DataSet], int]:
    """The data sets of a sequence, and where it ends."""
    found: list[DataSet] = []
    while at < end:
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if group << 16 | element == SEQUENCE_END:
            return found, at
        stop = end if length == UNDEFINED else at + length
        item, after = _data_set(data, at, stop, explicit)
        found.append(item)
        at = after if length == UNDEFINED else stop
    return found, at
