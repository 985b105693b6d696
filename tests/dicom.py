"""DICOM series written with ITK, as a scanner would: one file per slice, oblique directions, anisotropic spacing."""

from __future__ import annotations

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


def geometry(image: NDArray[Any], spacing: Any, direction: Any, origin: Any) -> NDArray[np.float64]:
    """Affine (4, 4) from the indices of ``image`` (x, y, z) to millimeters in LPS, DICOM's own coordinates."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(direction) * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine


def write_series(
    folder: Path, image: NDArray[Any], spacing: Any, direction: Any, origin: Any, uid: int = 1, shuffle: bool = True
) -> NDArray[np.float64]:
    """Write ``image`` (x, y, z) as one series of 16-bit slices, whose names are not in their order; its LPS affine."""
    import itk

    folder.mkdir(parents=True, exist_ok=True)
    affine = geometry(image, spacing, direction, origin)
    names = np.random.default_rng(uid).permutation(image.shape[2]) if shuffle else np.arange(image.shape[2])
    for z in range(image.shape[2]):
        piece = itk.image_from_array(np.ascontiguousarray(image[:, :, z : z + 1].T.astype(np.int16)))
        piece.SetSpacing([float(x) for x in spacing])
        piece.SetOrigin([float(x) for x in affine[:3, :3] @ (0, 0, z) + affine[:3, 3]])
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
