"""Loading volumes: NIfTI through nibabel, everything else (NRRD, MetaImage, DICOM series) through ITK."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection, PathLike
from monai.data import ITKReader, NibabelReader
from monai.transforms import LoadImaged
from monai.utils import ensure_tuple

NIFTI = (".nii", ".nii.gz")
UNEVEN = 0.01
"""Largest deviation of a slice from its place, as a share of the distance between slices."""


class VolumeReader(ITKReader):
    """MONAI's ``ITKReader`` that reads NIfTI as ``NibabelReader`` does and refuses a DICOM series it cannot trust.

    Which reader reads a file follows from its name alone, not from the packages that happen to be installed. A folder is
    a DICOM series. ITK is imported with the first file that needs it.

    Raises:
        FileNotFoundError: a folder without DICOM files.
        ValueError: a folder with several series, or a series with slices that are missing or not evenly spaced.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nifti = NibabelReader()

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whatever the name, this reader tries."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """The image, or the list of images of the channels, as nibabel or ITK has them."""
        files = [Path(str(file)) for file in ensure_tuple(data)]
        for file in files:
            if file.is_dir():
                _refuse_several(file)
        if all(file.name.endswith(NIFTI) and not file.is_dir() for file in files):
            return self.nifti.read([str(file) for file in files])
        images = super().read([str(file) for file in files], **kwargs)
        for file, image in zip(files, ensure_tuple(images), strict=True):
            _refuse_uneven(file, image)
        return images

    def get_data(self, img: Any) -> tuple[Any, dict[str, Any]]:
        """The array and its metadata; the affine is in RAS."""
        first = img[0] if isinstance(img, list) else img
        return self.nifti.get_data(img) if hasattr(first, "dataobj") else super().get_data(img)


class LoadVolumed(LoadImaged):
    """MONAI's ``LoadImaged`` with `VolumeReader`, and with no other reader that takes what this one refuses.

    Args:
        keys: of the file names; a list of names is the channels of one image.
        options: as for ``monai.transforms.LoadImaged``, but for ``reader``.
    """

    def __init__(self, keys: KeysCollection, **options: Any) -> None:
        super().__init__(keys, **options)
        self.volume_reader = VolumeReader()

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """The dictionary with the images in place of their names."""
        return super().__call__(data, reader or self.volume_reader)


def _refuse_several(folder: Path) -> None:
    import itk

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")  # as ITKReader tells series apart
    names.SetDirectory(str(folder))
    found = len(names.GetSeriesUIDs())
    if found == 0:
        raise FileNotFoundError(f"{folder} holds no DICOM series.")
    if found > 1:
        raise ValueError(f"{folder} holds {found} DICOM series; give each series a folder of its own.")


def _refuse_uneven(file: Path, image: Any) -> None:
    about, key = image.GetMetaDataDictionary(), "ITK_non_uniform_sampling_deviation"  # in mm, also where it is rounding
    deviation = float(about[key]) if key in list(about.GetKeys()) else 0.0
    if deviation > UNEVEN * float(image.GetSpacing()[2]):
        raise ValueError(
            f"the DICOM series {file} has slices that are missing or not evenly spaced (off by {deviation:.3g} mm), "
            "so that its voxels have no one spacing."
        )
