"""Soft labels of a raw data set through nnU-Net's preprocessing, as the images went before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from monai_segloss.checking.volumes import affine
from monai_segloss.core.errors import nearest
from monai_segloss.datalist import soft_labels as raw
from monai_segloss.datalist.soft_labels import SoftLabelError, SoftLabels
from monai_segloss.files import atomic, read_json
from nnunet_trainers import raw_data
from nnunet_trainers.soft_labels import KEY, channels, grid_of, mark_of, place


@dataclass(frozen=True)
class Preprocessor:
    """Takes soft labels through nnU-Net's preprocessing of the image: axes, crop, and linear resampling.

    Args:
        plans: of the data set.
        configuration: of the plans.
        manager: of its labels.
        found: the files.
        labels: case -> hard label map.
        source: folder of the preprocessed images.
        target: folder to write into.
    """

    plans: PlansManager
    configuration: ConfigurationManager
    manager: LabelManager
    found: SoftLabels
    labels: Mapping[str, str]
    source: Path
    target: Path

    def __call__(self, case: str) -> bool:
        """Write the soft label of a case, atomically; false where it is there already, made from the same files."""
        properties = load_pickle(str(self.source / f"{case}.pkl"))
        grid = grid_of(properties, self.plans, self.configuration, channels(self.manager))
        mark = {"source": _digest(self.found.files[case]), "grid": grid}
        file = self.target / f"{case}.b2nd"
        if mark_of(file) == mark:
            return False
        try:
            fractions = self._fractions(case, properties)
        except SoftLabelError as error:
            raise SoftLabelError(f"{case}: {error}") from None
        crop = tuple(slice(low, high) for low, high in grid["crop"])
        shape, spacing = tuple(grid["shape"]), tuple(grid["spacing"])
        resampled = self.configuration.resampling_fn_probabilities(
            fractions[(slice(None), *crop)], shape, spacing[: len(shape)], spacing[len(shape) :]
        )
        _write(file, np.clip(resampled, 0, 1), self.configuration.patch_size, mark)
        return True

    def _fractions(self, case: str, properties: Mapping[str, Any]) -> NDArray[np.float32]:
        """Of every channel (C, *S), on the grid of the image with its axes in the order of the plans."""
        files, ignore = self.found.files[case], self.manager.ignore_label
        array, about = raw.read_files(files, self.found.by_raters, self.plans.image_reader_writer_class())
        axes = [0, *(axis + 1 for axis in self.plans.transpose_forward)]
        _refuse_other_grid(next(iter(files.values())), array.transpose(axes).shape[1:], about, properties)
        known = (*map(int, self.manager.all_labels), *(() if ignore is None else (int(ignore),)))
        labels = sorted({label for each in channels(self.manager) for label in each})
        if self.found.by_raters:
            self._refuse(raw.fault_of_raters(array, known))
            shares, labeled = raw.mean_of_raters(array, labels, ignore)
            if not labeled.all():
                shares = self._filled(case, shares, labeled)
        else:
            numbers = [int(name) for name in files]
            self._refuse(raw.fault_of_fractions(array, 0 in numbers))
            shares = np.stack([array[numbers.index(label)] for label in labels]).astype(np.float32)
        parts = [[labels.index(label) for label in each] for each in channels(self.manager)]
        return np.stack([shares[each].sum(0) for each in parts]).transpose(axes)

    def _filled(self, case: str, shares: NDArray[Any], labeled: NDArray[np.bool_]) -> NDArray[Any]:
        """Voxels that nobody labeled take the nearest labeled ones, so that interpolation does not thin out a border."""
        from scipy.ndimage import distance_transform_edt

        hard = self.plans.image_reader_writer_class().read_seg(self.labels[case])[0][0]
        counted = ~labeled & (hard != self.manager.ignore_label)
        if counted.any():
            raise SoftLabelError(
                f"{int(counted.sum())} voxels have the ignore label in the map of every rater, and not in labelsTr"
            )
        if not labeled.any():
            return shares
        nearest = distance_transform_edt(~labeled, return_distances=False, return_indices=True)
        filled: NDArray[Any] = shares[(slice(None), *nearest)]
        return filled

    @staticmethod
    def _refuse(fault: str | None) -> None:
        if fault is not None:
            raise SoftLabelError(f"its soft label {fault}")


def preprocessed(file: Path) -> list[str]:
    """The configurations of a plans file whose images are preprocessed, one of those that share them.

    Raises:
        SoftLabelError: there is none.
    """
    plans, found = PlansManager(str(file)), dict[str, str]()
    for name in plans.available_configurations:
        identifier = plans.get_configuration(name).data_identifier
        if (file.parent / identifier).is_dir():
            found.setdefault(identifier, name)
    if not found:
        raise SoftLabelError(f"{file.parent} has no preprocessed images: run nnUNetv2_preprocess first")
    return list(found.values())


def run(work: Preprocessor, processes: int = 1) -> Iterator[bool]:
    """Preprocess the soft labels of all cases; for each whether it was written now.

    Raises:
        SoftLabelError: one does not fit the data set.
    """
    cases = list(work.found.files)
    if processes == 1 or len(cases) == 1:
        yield from map(work, cases)
        return
    with ProcessPoolExecutor(min(processes, len(cases)), get_context("spawn")) as pool:
        try:
            yield from pool.map(work, cases)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def preprocessor(file: Path, configuration: str, folder: Path) -> Preprocessor:
    """The preprocessing of the soft labels of a data set.

    Args:
        file: the plans, alongside the preprocessed data set.
        configuration: of the plans, whose images are preprocessed.
        folder: the raw data set.

    Raises:
        SoftLabelError: there are none, or their files do not fit the data set.
    """
    plans, content = PlansManager(str(file)), read_json(file.with_name("dataset.json"))
    if configuration not in plans.available_configurations:
        hint = nearest(configuration, plans.available_configurations)
        raise SoftLabelError(f"{file.name} has no configuration {configuration!r}{hint}")
    manager, chosen = plans.get_label_manager(content), plans.get_configuration(configuration)
    source = file.parent / chosen.data_identifier
    if not source.is_dir():
        raise SoftLabelError(f"{source} does not exist: preprocess the images first (nnUNetv2_preprocess)")
    labels = {label for each in channels(manager) for label in each}
    cases = infer_dataset_class(str(source)).get_identifiers(str(source))
    found = raw.find(folder, content["file_ending"], labels, cases)
    if found is None:
        raise SoftLabelError(f"{folder} has neither {raw.RATERS} nor {raw.FRACTIONS}")
    hard = {case: label for case, (_, label) in raw_data.training_files(folder, content).items()}
    return Preprocessor(plans, chosen, manager, found, hard, source, place(file.parent, chosen))


def _refuse_other_grid(
    file: Path, shape: Sequence[int], about: Mapping[str, Any], properties: Mapping[str, Any]
) -> None:
    """Raise SoftLabelError where a soft label is not on the grid of its image."""
    pairs = {
        "shape": (tuple(shape), tuple(int(x) for x in properties["shape_before_cropping"])),
        "spacing": (tuple(about["spacing"]), tuple(properties["spacing"])),
    }
    for what, (own, wanted) in pairs.items():
        if len(own) != len(wanted) or not np.allclose(own, wanted):
            raise SoftLabelError(f"{file} has the {what} {own}, its image {wanted}")
    mine, image = affine(about), affine(properties)
    if mine is not None and image is not None and not np.allclose(mine, image, atol=1e-3):
        raise SoftLabelError(f"{file} lies elsewhere than its image: origin or direction differ in their headers")


def _digest(files: Mapping[str, Path]) -> str:
    found = hashlib.sha256()
    for name, file in sorted(files.items()):
        found.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _write(file: Path, array: NDArray[Any], patch: Sequence[int], mark: Mapping[str, Any]) -> None:
    array = np.ascontiguousarray(array, dtype=np.float32)
    blocks, chunks = comp_blosc2_params(array.shape, tuple(patch), array.itemsize)
    with atomic(file) as part:
        blosc2.asarray(array, urlpath=str(part), chunks=chunks, blocks=blocks, meta={KEY: json.dumps(mark)})
