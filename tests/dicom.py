"""DICOM as a scanner writes it: series of slices through ITK, and element by element what ITK does not write."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = "1.2.826.0.1.3680043.2.1125."
"""A public prefix of UIDs for tests."""


def rotation(*degrees: float) -> NDArray[np.float64]:
    """Directions of the image axes: turned around x, y and z, one after the other."""
    found = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        found = turn @ found
    return found


def geometry(image: NDArray[Any], spacing: Any, direction: Any, origin: Any, tilt: float = 0.0) -> NDArray[np.float64]:
    """Affine (4, 4) from the indices of ``image`` (x, y, z) to millimeters in LPS, DICOM's own coordinates.

    Under a gantry tilt, in degrees, each slice is shifted along its columns, at the same distance along the normal.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(direction) * np.asarray(spacing)
    affine[:3, 2] += np.tan(np.deg2rad(tilt)) * spacing[2] * np.asarray(direction)[:, 1]
    affine[:3, 3] = origin
    return affine


def write_series(
    folder: Path,
    image: NDArray[Any],
    spacing: Any,
    direction: Any,
    origin: Any,
    uid: int = 1,
    shuffle: bool = True,
    tilt: float = 0.0,
    places: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Write ``image`` (x, y, z) as one series of 16-bit slices, whose names are not in their order; its LPS affine.

    ``places`` are the indices at which the slices lie, where they are not 0, 1, 2 ...
    """
    import itk

    folder.mkdir(parents=True, exist_ok=True)
    affine = geometry(image, spacing, direction, origin, tilt)
    names = np.random.default_rng(uid).permutation(image.shape[2]) if shuffle else np.arange(image.shape[2])
    for z in range(image.shape[2]):
        piece = itk.image_from_array(np.ascontiguousarray(image[:, :, z : z + 1].T.astype(np.int16)))
        piece.SetSpacing([float(x) for x in spacing])
        place = z if places is None else places[z]
        piece.SetOrigin([float(x) for x in affine[:3, :3] @ (0, 0, place) + affine[:3, 3]])
        piece.SetDirection(itk.matrix_from_array(np.asarray(direction, dtype=np.float64)))
        tags = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{ROOT}{uid}.{z + 1}",
            "0020|000d": f"{ROOT}{uid}.9000",
            "0020|000e": f"{ROOT}{uid}.9001",
            "0020|0013": str(z + 1),
            "0008|0021": "20200101",
        }
        for tag, value in tags.items():
            piece.GetMetaDataDictionary()[tag] = value
        io = itk.GDCMImageIO.New()
        io.KeepOriginalUIDOn()
        itk.imwrite(piece, str(folder / f"IM{names[z]:04d}{'_' + str(uid) if uid > 1 else ''}.dcm"), imageio=io)
    return affine


CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
SYNTAXES = {True: "1.2.840.10008.1.2.1", False: "1.2.840.10008.1.2"}
"""Little endian with and without value representations in the file."""
POSITION, ORIENTATION, SPACING, THICKNESS = 0x00200032, 0x00200037, 0x00280030, 0x00180050
SHARED, PER_FRAME, FRAMES, SLOPE, INTERCEPT = 0x52009229, 0x52009230, 0x00280008, 0x00281053, 0x00281052
KINDS = {
    **dict.fromkeys((POSITION, ORIENTATION, SPACING, THICKNESS, SLOPE, INTERCEPT), "DS"),
    **dict.fromkeys((0x00020002, 0x00020003, 0x00020010, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E), "UI"),
    **dict.fromkeys(
        (0x00280002, 0x00280006, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103), "US"
    ),
    **dict.fromkeys((0x00080060, 0x00280004), "CS"),
    **dict.fromkeys((FRAMES, 0x00200013), "IS"),
    0x00080021: "DA",
    0x7FE00010: "OW",
}
Elements = Mapping[int, Any]


def numbers(values: Any) -> str:
    """As a decimal string of DICOM, of 16 characters each at most."""
    return "\\".join(f"{float(x):.10g}"[:16] for x in np.ravel(values))


def encode(elements: Elements, explicit: bool = True, undefined: bool = False) -> bytes:
    """Elements by tag: text, numbers of 16 bits, bytes, or a list of further elements as a sequence of items."""
    out = b""
    for tag, value in sorted(elements.items()):
        kind = "SQ" if isinstance(value, list) else KINDS[tag]
        length = None
        if isinstance(value, list):
            items = [encode(item, explicit, undefined) for item in value]
            ends = [struct.pack("<HHI", 0xFFFE, 0xE00D, 0)] if undefined else [b""]
            sizes = [0xFFFFFFFF if undefined else len(item) for item in items]
            data = b"".join(
                struct.pack("<HHI", 0xFFFE, 0xE000, size) + item + ends[0]
                for size, item in zip(sizes, items, strict=True)
            )
            if undefined:
                length, data = 0xFFFFFFFF, data + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        elif isinstance(value, int):
            data = struct.pack("<H", value)
        else:
            data = value if isinstance(value, bytes) else str(value).encode()
            data += (b"\0" if kind == "UI" else b" ") * (len(data) % 2)
        length = len(data) if length is None else length
        out += struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if not explicit:
            out += struct.pack("<I", length)
        elif kind in ("SQ", "OW"):
            out += kind.encode() + struct.pack("<HI", 0, length)
        else:
            out += kind.encode() + struct.pack("<H", length)
        out += data
    return out


def write_file(
    path: Path, image: NDArray[Any], tags: Elements, uid: str, explicit: bool = True, undefined: bool = False
) -> None:
    """One file of ``image`` (x, y, frames) with further or other tags; a tag that is None is left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = ENHANCED_CT if PER_FRAME in tags else CT
    about = encode({0x00020002: kind, 0x00020003: uid, 0x00020010: SYNTAXES[explicit]})
    content = {
        0x00080016: kind,
        0x00080018: uid,
        0x00080021: "20200101",
        0x00080060: "CT",
        0x0020000D: f"{ROOT}77.9000",
        0x0020000E: f"{ROOT}77.9001",
        0x00280002: 1,
        0x00280004: "MONOCHROME2",
        0x00280010: image.shape[1],
        0x00280011: image.shape[0],
        0x00280100: 16,
        0x00280101: 16,
        0x00280102: 15,
        0x00280103: 1,
        0x7FE00010: image.T.astype("<i2").tobytes(),
        **tags,
    }
    kept = {tag: value for tag, value in content.items() if value is not None}
    length = b"\x02\0\0\0UL\x04\0" + struct.pack("<I", len(about))
    path.write_bytes(b"\0" * 128 + b"DICM" + length + about + encode(kept, explicit, undefined))


def write_slices(
    folder: Path, image: NDArray[Any], affine: NDArray[np.float64], changes: Elements, at: int = 1
) -> None:
    """A series of slices, of which number ``at`` has changed tags."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    for z in range(image.shape[2]):
        tags = {
            POSITION: numbers((affine @ (0, 0, z, 1))[:3]),
            ORIENTATION: numbers((affine[:3, :2] / lengths[:2]).T),
            SPACING: numbers(lengths[1::-1]),
            0x00200013: str(z + 1),
            **(changes if z == at else {}),
        }
        write_file(folder / f"{z}.dcm", image[:, :, z : z + 1], tags, f"{ROOT}77.{z + 1}")


def write_frames(
    path: Path,
    image: NDArray[Any],
    affine: NDArray[np.float64],
    order: Sequence[int],
    changes: Mapping[int, Elements] | None = None,
    tags: Elements | None = None,
    **layout: bool,
) -> None:
    """An enhanced file whose frames are the slices of ``image`` in ``order``; ``changes`` of functional groups by frame."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    shared = {
        0x00209116: [{ORIENTATION: numbers((affine[:3, :2] / lengths[:2]).T)}],
        0x00289110: [{SPACING: numbers(lengths[1::-1]), THICKNESS: numbers(lengths[2])}],
    }
    frames = []
    for index, z in enumerate(order):
        group = {0x00209113: [{POSITION: numbers((affine @ (0, 0, z, 1))[:3])}], **((changes or {}).get(index, {}))}
        frames.append({tag: value for tag, value in group.items() if value is not None})
    content = {FRAMES: str(len(order)), SHARED: [shared], PER_FRAME: frames, **(tags or {})}
    write_file(path, image[:, :, list(order)], content, f"{ROOT}78.1", **layout)
