"""Loading volumes: NIfTI through nibabel, everything else (NRRD, MetaImage, DICOM series) through ITK."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection, PathLike
from monai.data import ImageReader, NibabelReader
from monai.transforms import LoadImaged
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys, ensure_tuple, ensure_tuple_rep
from numpy.typing import NDArray

from monai_segloss.datalist.cases import is_dicom
from monai_segloss.engine.dicom import read_dicom
from monai_segloss.engine.errors import DataError

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Volume:
    """The content of one file: voxels (X, Y, Z, C), the affine to mm in RAS, and what else the header says."""

    name: str
    voxels: NDArray[Any]
    affine: NDArray[Any]
    header: Mapping[Any, Any]


class VolumeReader(ImageReader):
    """Reads NIfTI through nibabel, NRRD, MetaImage and DICOM through ITK, and refuses what it cannot trust.

    Which reader reads a file follows from its name alone, not from the packages that happen to be installed. A folder is
    a DICOM series, a DICOM file by itself holds one or several frames. ITK is imported with the first file that needs it.
    One more axis than the three of space holds channels; axes of one entry do not count.

    Raises:
        FileNotFoundError: no such file, or a folder without DICOM files.
        DataError: a file that cannot be read, is no volume, holds NaN or infinite values, or lies on another grid than the
            other channels; a DICOM series whose geometry is not known or not that of one volume.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whatever the name, this reader tries."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[Volume]:
        """The files, each of which holds one or several channels."""
        volumes = [_volume(Path(str(file))) for file in ensure_tuple(data)]
        for volume in volumes[1:]:
            _refuse_other_grid(volumes[0], volume)
        return volumes

    def get_data(self, img: Sequence[Volume]) -> tuple[NDArray[Any], dict[Any, Any]]:
        """The array, (X, Y, Z) or with several channels (C, X, Y, Z), and its metadata; the affine is in RAS."""
        first = img[0]
        voxels = first.voxels if len(img) == 1 else np.concatenate([each.voxels for each in img], axis=-1)
        several = voxels.shape[-1] > 1
        meta = {
            **first.header,
            MetaKeys.ORIGINAL_AFFINE: first.affine,
            MetaKeys.AFFINE: first.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(voxels.shape[:3]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if several else float("nan"),
        }
        return np.moveaxis(voxels, -1, 0) if several else voxels[..., 0], meta


class LoadVolumed(LoadImaged):
    """MONAI's ``LoadImaged`` with `VolumeReader`, and with no other reader that takes what this one refuses.

    Args:
        keys: of the file names; a list of names is the channels of one image.
        channels: how many an image must have, one number for all keys or one for each; None: any.
        options: as for ``monai.transforms.LoadImaged``, but for ``reader``.

    Raises:
        DataError: as `VolumeReader`, or another number of channels.
    """

    def __init__(
        self, keys: KeysCollection, channels: int | Sequence[int | None] | None = None, **options: Any
    ) -> None:
        super().__init__(keys, **options)
        self.channels = ensure_tuple_rep(channels, len(self.keys))
        self.volume_reader = VolumeReader()

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """The dictionary with the images in place of their names."""
        d: dict[Hashable, Any] = super().__call__(data, reader or self.volume_reader)
        for key, wanted in self.key_iterator(d, self.channels):
            found = d[key].numel() // prod(int(n) for n in d[key].meta[MetaKeys.SPATIAL_SHAPE])
            if wanted is not None and found != wanted:
                name = d[key].meta[ImageMetaKey.FILENAME_OR_OBJ]
                raise DataError(f"{name}: the {key} has {found} channels; the data set asks for {wanted}.")
        return d


def _volume(file: Path) -> Volume:
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist.")
    try:
        volume = _read(file)
    except (DataError, FileNotFoundError):
        raise
    except ImportError as error:
        raise ImportError(f"{file} is read through ITK: pip install 'monai-segloss[dicom]'.") from error
    except Exception as error:  # nibabel and ITK have many
        last = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{file} cannot be read as an image: {last[-1]}") from error
    if volume.voxels.dtype.kind not in "biuf":
        raise DataError(
            f"{file} holds values of type {volume.voxels.dtype}; expected one number per voxel and channel."
        )
    voxels = volume.voxels  # read as float32, in which larger numbers are infinite
    wrong = 0 if voxels.dtype.kind != "f" else int((~(np.abs(voxels) <= np.finfo(np.float32).max)).sum())
    if wrong:
        raise DataError(
            f"{file} holds {wrong} of {voxels.size} values that are NaN or infinite: give them a value, as that of air."
        )
    if not abs(np.linalg.det(volume.affine[:3, :3])) > 0:
        raise DataError(f"{file} has an affine without an inverse, {volume.affine[:3].tolist()}: its header is wrong.")
    return volume


def _read(file: Path) -> Volume:
    header: Mapping[Any, Any] = {}
    if file.is_dir() or is_dicom(file):
        voxels, affine = read_dicom(file)
    elif file.name.endswith(NIFTI):
        reader = NibabelReader()
        voxels, header = reader.get_data(reader.read(str(file)))
        affine = header[MetaKeys.AFFINE]
    else:
        voxels, affine = _itk(file)
    space, more = voxels.shape[:3], [n for n in voxels.shape[3:] if n > 1]
    if len(space) < 3 or len(more) > 1:
        raise DataError(
            f"{file} has the shape {voxels.shape}; expected (X, Y, Z), or (X, Y, Z, C) for several channels."
        )
    return Volume(str(file), voxels.reshape(*space, prod(more)), np.asarray(affine, np.float64), header)


def _itk(file: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    import itk

    # a vector of any length: ITK has no fixed ones of more than four channels
    image = itk.imread(str(file), pixel_type=itk.VariableLengthVector[itk.F])
    direction, axes = itk.array_from_matrix(image.GetDirection())[:3, :3], min(image.GetImageDimension(), 3)
    affine = np.eye(4)
    affine[:axes, :axes] = direction * np.asarray(image.GetSpacing())[:axes]
    affine[:axes, 3] = np.asarray(image.GetOrigin())[:axes]
    voxels = np.moveaxis(itk.array_from_image(image).T, 0, -1)
    return voxels[..., 0] if voxels.shape[-1] == 1 else voxels, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _refuse_other_grid(first: Volume, other: Volume) -> None:
    if other.voxels.shape[:3] != first.voxels.shape[:3]:
        here, there = other.voxels.shape[:3], first.voxels.shape[:3]
        raise DataError(f"{other.name} has shape {here}, {first.name} {there}: channels of one image share a grid.")
    if not np.allclose(other.affine, first.affine, rtol=1e-3, atol=1e-3):
        raise DataError(f"{other.name} lies elsewhere than {first.name}: channels of one image share a grid.")
