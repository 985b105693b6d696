"""File formats and geometry: NIfTI, NRRD and DICOM series in, label maps where the images are."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import dicom
import itk
import nibabel
import nnunet_data
import numpy as np
import pytest
import torch
from bundle_runs import inference, workflow
from numpy.typing import NDArray

from monai_segloss.engine import LoadVolumed, VolumeReader

DIRECTION = dicom.rotation(20, -15, 30)
SPACING, ORIGIN = (0.7, 0.9, 2.5), (-30.5, 12.25, -100.75)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CASES = 3

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file"),
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute"),  # ITK's own wrapping
]


def load(*files: Path) -> Any:
    return LoadVolumed("image")({"image": [str(file) for file in files]})["image"]


def ball(number: int) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """A bright ball in world coordinates (LPS) in an oblique grid, its label and its center."""
    shape = np.array((22, 20, 16))
    affine = dicom.geometry(np.empty(shape), SPACING, DIRECTION, ORIGIN)
    rng = np.random.default_rng(number)
    center = (affine @ [*(shape / 2 + rng.uniform(-1, 1, 3)), 1])[:3]
    index = np.stack([*np.indices(shape), np.ones(shape)], -1)
    distance = np.linalg.norm((index @ affine.T)[..., :3] - center, axis=-1)
    label = (distance < 6).astype(np.uint8)
    return (300.0 * label + rng.normal(0, 30, shape)).astype(np.int16), label, center


def test_a_series_is_read_in_its_place(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(-1000, 2000, (6, 7, 5)).astype(np.int16)
    affine = dicom.write_series(tmp_path / "a", image, SPACING, DIRECTION, ORIGIN)
    found = load(tmp_path / "a")
    assert np.array_equal(found.numpy(), image)
    np.testing.assert_allclose(found.affine.numpy(), LPS_TO_RAS @ affine, atol=1e-9)
    dicom.write_series(tmp_path / "b", image + 1, SPACING, DIRECTION, ORIGIN)
    both = load(tmp_path / "a", tmp_path / "b")
    assert np.array_equal(both.numpy(), np.stack([image, image + 1]))


def test_formats_agree(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(-1000, 2000, (6, 7, 5)).astype(np.int16)
    affine = dicom.write_series(tmp_path / "a", image, SPACING, DIRECTION, ORIGIN)
    volume = itk.image_from_array(np.ascontiguousarray(image.T))
    volume.SetSpacing(SPACING)
    volume.SetOrigin(ORIGIN)
    volume.SetDirection(itk.matrix_from_array(DIRECTION))
    nibabel.save(nibabel.Nifti1Image(image, LPS_TO_RAS @ affine), tmp_path / "a.nii.gz")
    for ending in (".nrrd", ".mha"):
        itk.imwrite(volume, str(tmp_path / f"a{ending}"))
    for name in ("a.nii.gz", "a.nrrd", "a.mha"):
        found = load(tmp_path / name)
        assert np.array_equal(found.numpy(), image)
        np.testing.assert_allclose(found.affine.numpy(), LPS_TO_RAS @ affine, atol=1e-5)


def test_a_series_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    image = np.zeros((6, 7, 9), np.int16)
    dicom.write_series(tmp_path / "gap", image, SPACING, DIRECTION, ORIGIN, shuffle=False)
    (tmp_path / "gap" / "IM0004.dcm").unlink()
    with pytest.raises(ValueError, match=r"gap has slices that are missing or not evenly spaced \(off by 2.14 mm\)"):
        load(tmp_path / "gap")
    for uid in (1, 2):
        dicom.write_series(tmp_path / "two", image, SPACING, DIRECTION, ORIGIN, uid=uid)
    with pytest.raises(ValueError, match="two holds 2 DICOM series; give each series a folder of its own"):
        load(tmp_path / "two")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="none holds no DICOM series"):
        VolumeReader().read(tmp_path / "none")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Decathlon datalist of two-channel DICOM series with labels as NRRD, and the same series by themselves."""
    folder = tmp_path_factory.mktemp("dicom")
    (folder / "labels").mkdir()
    entries = []
    for number in range(CASES):
        image, label, _ = ball(number)
        names = [f"series/1.2.{number}_{channel:04d}" for channel in range(2)]
        for channel, name in enumerate(names):
            dicom.write_series(folder / name, image + 50 * channel, SPACING, DIRECTION, ORIGIN)
        volume = itk.image_from_array(np.ascontiguousarray(label.T))
        volume.SetSpacing(SPACING)
        volume.SetOrigin(ORIGIN)
        volume.SetDirection(itk.matrix_from_array(DIRECTION))
        itk.imwrite(volume, str(folder / "labels" / f"{number}.nrrd"))
        entries.append({"image": names, "label": f"labels/{number}.nrrd"})
    about = {"modality": {"0": "CT", "1": "CT"}, "labels": {"0": "background", "1": "ball"}, "training": entries}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("spacing", [None, [1.0, 1.0, 2.0]], ids=["as it is", "resampled"])
def test_from_dicom_to_a_label_map_in_world_coordinates(spacing: Any, tmp_path: Path, dataset: Path) -> None:
    """What the network sees is turned and resampled; what is written lies where the scanner saw it."""
    learning = {"epochs": 12, "num_samples": 4, "learning_rate": 0.03, "spacing": spacing}
    with workflow(tmp_path, dataset, **learning) as flow:
        flow.run()
    with workflow(tmp_path, dataset, "evaluate.json", spacing=spacing) as flow:
        flow.run()
    report = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert report["mean"]["val_mean_dice"] > 0.8
    inference(tmp_path, dataset, images_dir=str(dataset / "series"), spacing=spacing).run()
    files = sorted((tmp_path / "predictions").iterdir())
    assert [file.name for file in files] == [f"1.2.{number}.nii.gz" for number in range(CASES)]
    validated = 0
    for number, file in enumerate(files):
        found = nibabel.load(file)
        image, label, center = ball(number)
        assert found.shape == image.shape
        wanted = LPS_TO_RAS @ dicom.geometry(image, SPACING, DIRECTION, ORIGIN)
        np.testing.assert_allclose(found.affine, wanted, rtol=1e-6, atol=2e-5)  # NIfTI keeps 32 bits
        np.testing.assert_allclose(found.header.get_zooms(), SPACING, rtol=1e-6)
        assert int(found.header["sform_code"]) > 0
        predicted = np.asarray(found.dataobj) > 0
        middle = (found.affine @ [*np.argwhere(predicted).mean(0), 1])[:3]
        assert np.linalg.norm(middle - (LPS_TO_RAS @ [*center, 1])[:3]) < 1.0
        dice = 2 * (predicted & (label > 0)).sum() / (predicted.sum() + label.sum())
        case = report["cases"].get(f"1.2.{number}")
        if case is not None:  # evaluation measures on the grid of the file, as a reader of the file would
            validated += 1
            assert case["val_mean_dice"]["ball"] == pytest.approx(dice, abs=1e-6)
        series = itk.imread(str(file))  # another program finds it in the same place
        physical = [series.TransformIndexToPhysicalPoint([int(i) for i in corner]) for corner in _corners(image.shape)]
        truth = [(dicom.geometry(image, SPACING, DIRECTION, ORIGIN) @ [*c, 1])[:3] for c in _corners(image.shape)]
        np.testing.assert_allclose(np.array([list(p) for p in physical]), truth, atol=2e-3)
    assert validated == 1


def _corners(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*((0, size - 1) for size in shape)))


def test_a_data_set_of_nrrd_in_nnunets_layout(tmp_path: Path) -> None:
    source = nnunet_data.write_raw(tmp_path, "labels", cases=2)
    for file in [*source.glob("*/*.nii.gz")]:
        itk.imwrite(itk.imread(str(file)), str(file).replace(".nii.gz", ".nrrd"))
        file.unlink()
    about = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**about, "file_ending": ".nrrd"}))
    with workflow(tmp_path / "run", source, epochs=1) as flow:
        flow.run()
    inference(tmp_path / "run", source, images_dir=str(source / "imagesTr")).run()
    for file in (tmp_path / "run" / "predictions").iterdir():
        source_image = load(source / "imagesTr" / file.name.replace(".nii.gz", "_0000.nrrd"))
        np.testing.assert_allclose(nibabel.load(file).affine, source_image.affine.numpy(), atol=1e-6)
    assert torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True).keys() == {"model"}
