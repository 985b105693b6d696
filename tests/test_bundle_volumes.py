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
from monai.transforms import Compose, EnsureChannelFirstd, Orientationd, Spacingd
from numpy.typing import NDArray

from monai_segloss.engine import DataError, LoadVolumed, VolumeReader

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


def refused(*files: Path) -> str:
    """The sentence of a file that is refused."""
    with pytest.raises(DataError) as error:
        VolumeReader().read(files)
    return str(error.value)


def test_a_series_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    image = np.zeros((6, 7, 9), np.int16)
    dicom.write_series(tmp_path / "gap", image, SPACING, DIRECTION, ORIGIN, shuffle=False)
    (tmp_path / "gap" / "IM0004.dcm").unlink()
    found = refused(tmp_path / "gap")
    assert "gap has slices that are missing or not evenly spaced" in found
    assert "by ImagePositionPatient (0020,0032), IM0005.dcm lies 5 mm from IM0003.dcm, where 2.5 mm is usual" in found
    for uid in (1, 2):
        dicom.write_series(tmp_path / "two", image, SPACING, DIRECTION, ORIGIN, uid=uid)
    assert "two holds 2 DICOM series; give each series a folder of its own" in refused(tmp_path / "two")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="none holds no DICOM series"):
        VolumeReader().read(tmp_path / "none")


def corners(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The corners of an image in mm."""
    return np.array([(affine @ [*corner, 1])[:3] for corner in _corners(shape)])


TILTS = [0.0, 2.0, -20.0, 20.0]


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("direction", [np.eye(3), DIRECTION], ids=["straight", "oblique"])
@pytest.mark.parametrize("kind", ["slices", "frames"])
def test_a_tilted_gantry_shears_the_affine(
    kind: str, direction: NDArray[np.float64], tilt: float, tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(-1000, 2000, (6, 7, 10)).astype(np.int16)
    affine = dicom.geometry(image, SPACING, direction, ORIGIN, tilt)
    if kind == "slices":
        dicom.write_series(tmp_path / "a", image, SPACING, direction, ORIGIN, tilt=tilt)
    else:
        dicom.write_frames(tmp_path / "a" / "x.dcm", image, affine, np.random.default_rng(1).permutation(10).tolist())
    found = load(tmp_path / "a")
    assert np.array_equal(found.numpy(), image)
    wanted = corners(LPS_TO_RAS @ affine, image.shape)
    np.testing.assert_allclose(corners(found.affine.numpy(), image.shape), wanted, atol=1e-6)
    rows, slices = found.affine[:3, 1].numpy(), found.affine[:3, 2].numpy()
    cosine = rows @ slices / (np.linalg.norm(rows) * np.linalg.norm(slices))
    assert cosine == pytest.approx(np.sin(np.deg2rad(tilt)), abs=1e-7)


@pytest.mark.parametrize(
    "layout", [{}, {"undefined": True}, {"explicit": False}, {"explicit": False, "undefined": True}]
)
def test_frames_of_an_enhanced_file_in_every_layout(layout: dict[str, bool], tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(-1000, 2000, (6, 7, 5)).astype(np.int16)
    affine = dicom.geometry(image, SPACING, DIRECTION, ORIGIN, 3.0)
    rescale = {i: {0x00289145: [{dicom.SLOPE: "2", dicom.INTERCEPT: "-5"}]} for i in range(5)}
    dicom.write_frames(tmp_path / "x.dcm", image, affine, [3, 1, 0, 4, 2], rescale, **layout)
    found = load(tmp_path / "x.dcm")
    assert np.array_equal(found.numpy(), 2.0 * image - 5)
    np.testing.assert_allclose(found.affine.numpy(), LPS_TO_RAS @ affine, atol=1e-6)


POSITION, SPACING_TAG, ORIENTATION = (
    "ImagePositionPatient (0020,0032)",
    "PixelSpacing (0028,0030)",
    "ImageOrientationPatient (0020,0037)",
)
SLICES: dict[str, tuple[dict[int, Any], str]] = {
    "no position": ({dicom.POSITION: None}, f"2.dcm has no {POSITION}, and so no known geometry"),
    "no spacing": ({dicom.SPACING: None}, SPACING_TAG),
    "no orientation": ({dicom.ORIENTATION: None}, ORIENTATION),
    "doubled": ({dicom.POSITION: "0\\0\\2.5"}, f"two slices at one place: {POSITION} of 1.dcm and of 2.dcm"),
    "shifted sideways": (
        {dicom.POSITION: "3\\0\\5"},
        f"not evenly spaced (off by 3 mm), so that no affine is right: by {POSITION}, ",
    ),
    "uneven": ({dicom.POSITION: "0\\0\\5.4"}, "off by 0.4 mm"),
    "turned": ({dicom.ORIENTATION: "0\\1\\0\\-1\\0\\0"}, f"0.dcm differ in {ORIENTATION}"),
    "other spacing": ({dicom.SPACING: "1\\1"}, f"0.dcm differ in {SPACING_TAG}"),
    "words": ({dicom.POSITION: "here"}, f"2.dcm: {POSITION} must be 3 numbers, got 'here'"),
}


@pytest.mark.parametrize("case", SLICES)
def test_slices_without_one_geometry_are_refused(case: str, tmp_path: Path) -> None:
    changes, message = SLICES[case]
    image = np.zeros((4, 3, 6), np.int16)
    dicom.write_slices(tmp_path, image, np.diag([0.7, 0.9, 2.5, 1.0]), changes, at=2)
    assert message in refused(tmp_path)


EVERYWHERE: dict[str, tuple[dict[int, Any], str]] = {
    "no spacing": ({dicom.SPACING: None}, f"0.dcm has no {SPACING_TAG}"),
    "no orientation": ({dicom.ORIENTATION: None}, f"0.dcm has no {ORIENTATION}"),
    "no thickness of the only slice": ({}, "0.dcm has no SliceThickness (0018,0050)"),
    "zero spacing": ({dicom.SPACING: "0\\0.7"}, f"0.dcm: {SPACING_TAG} must be positive"),
    "skew": (
        {dicom.ORIENTATION: "1\\0\\0\\0.5\\1\\0"},
        f"0.dcm: {ORIENTATION} is not two unit vectors at a right angle",
    ),
    "color": (
        {0x00280002: 3, 0x00280004: "RGB", 0x00280006: 0, 0x00280100: 8, 0x7FE00010: bytes(36)},
        "is a color image: SamplesPerPixel",
    ),
}


@pytest.mark.parametrize("case", EVERYWHERE)
def test_a_slice_without_geometry_is_refused(case: str, tmp_path: Path) -> None:
    changes, message = EVERYWHERE[case]
    dicom.write_slices(tmp_path, np.zeros((4, 3, 1), np.int16), np.diag([0.7, 0.9, 2.5, 1.0]), changes, at=0)
    assert message in refused(tmp_path)


def test_a_single_slice_has_the_thickness_of_its_tag(tmp_path: Path) -> None:
    affine = np.diag([0.7, 0.9, 2.5, 1.0])
    dicom.write_slices(tmp_path, np.ones((4, 3, 1), np.int16), affine, {dicom.THICKNESS: "2.5"}, at=0)
    found = load(tmp_path)
    assert found.shape == (4, 3, 1)
    np.testing.assert_allclose(found.affine.numpy(), LPS_TO_RAS @ affine)


FRAMES: dict[str, tuple[dict[int, Any], dict[int, Any], str]] = {
    "gap": ({5: {0x00209113: [{dicom.POSITION: "0\\0\\15"}]}}, {}, "frame 6 of"),
    "doubled": ({5: {0x00209113: [{dicom.POSITION: "0\\0\\10"}]}}, {}, "has two slices at one place"),
    "no position": ({5: {0x00209113: None}}, {}, f"has no {POSITION}"),
    "turned": ({5: {0x00209116: [{dicom.ORIENTATION: "0\\1\\0\\-1\\0\\0"}]}}, {}, f"differ in {ORIENTATION}"),
    "rescaled": ({5: {0x00289145: [{dicom.SLOPE: "2", dicom.INTERCEPT: "0"}]}}, {}, "RescaleSlope (0028,1053)"),
    "no groups": ({}, {dicom.PER_FRAME: None}, "PerFrameFunctionalGroupsSequence (5200,9230) has 0"),
    "no spacing": ({}, {dicom.SHARED: []}, ORIENTATION),
}


@pytest.mark.parametrize("case", FRAMES)
def test_frames_without_one_geometry_are_refused(case: str, tmp_path: Path) -> None:
    changes, tags, message = FRAMES[case]
    image = np.zeros((4, 3, 6), np.int16)
    affine = np.diag([0.7, 0.9, 2.5, 1.0])
    dicom.write_frames(tmp_path / "x.dcm", image, affine, range(6), changes, tags)
    assert message in refused(tmp_path)
    assert message in refused(tmp_path / "x.dcm")


def test_resampling_straightens_a_sheared_grid(tmp_path: Path) -> None:
    """A field that is linear in world coordinates is the same after ``Spacingd``, and comes back where it was."""
    shape = (24, 26, 12)
    affine = LPS_TO_RAS @ dicom.geometry(np.empty(shape), SPACING, DIRECTION, ORIGIN, 20.0)
    index = np.stack([*np.indices(shape), np.ones(shape)], -1)
    field = ((index @ affine.T)[..., :3] @ (1.0, 2.0, -0.5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(field, affine), tmp_path / "a.nii.gz")
    steps = [
        LoadVolumed("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", axcodes="RAS", labels=[["L", "R"], ["P", "A"], ["I", "S"]]),
        Spacingd("image", pixdim=(1.0, 1.0, 1.0), padding_mode="zeros"),
    ]
    transform = Compose(steps)
    out = transform({"image": str(tmp_path / "a.nii.gz")})["image"]
    axes = out.affine[:3, :3].numpy()
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    index = np.stack([*np.indices(out.shape[1:]), np.ones(out.shape[1:])], -1)
    world = (index @ out.affine.numpy().T)[..., :3]
    place = np.linalg.inv(affine) @ np.concatenate([world, np.ones((*world.shape[:-1], 1))], -1)[..., None]
    inside = ((place[..., :3, 0] > 0) & (place[..., :3, 0] < np.array(shape) - 1)).all(-1)
    assert inside.mean() > 0.3
    assert np.abs(out[0].numpy() - world @ (1.0, 2.0, -0.5))[inside].max() < 0.02
    back = transform.inverse({"image": out})["image"]
    np.testing.assert_allclose(back.affine.numpy(), affine, atol=1e-5)
    inner = (slice(4, -4), slice(4, -4), slice(2, -2))
    assert back.shape == (1, *shape)
    assert np.abs(back[0].numpy() - field)[inner].max() < 0.05


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


ONE_IMAGE = np.random.default_rng(5).normal(size=(4, 5, 6, 7)).astype(np.float32)


def write_channels(folder: Path, layout: str, channels: int) -> list[Path]:
    """The first channels of an image in one of the ways to store them."""
    voxels = ONE_IMAGE[..., :channels]
    file = folder / f"a{layout[layout.index('.') :]}"
    if layout == "files.nii.gz":
        files = [folder / f"a_{channel:04d}.nii.gz" for channel in range(channels)]
        for channel, each in enumerate(files):
            nibabel.save(nibabel.Nifti1Image(voxels[..., channel], np.eye(4)), each)
        return files
    if layout == "mixed.nrrd":
        nibabel.save(nibabel.Nifti1Image(voxels[..., :1], np.eye(4)), folder / "first.nii.gz")
        _nrrd(file, np.moveaxis(voxels[..., 1:], -1, 0), "list domain domain domain")
        return [folder / "first.nii.gz", file]
    if layout == "5-D.nii.gz":
        nibabel.save(nibabel.Nifti1Image(voxels[:, :, :, None], np.eye(4)), file)
    elif layout == "4-D.nii":
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    elif layout == "4-D.mha":
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(voxels.T)), str(file))
    else:
        first = layout.startswith(("list", "vector"))
        kinds = f"{layout.split('.')[0]} domain domain domain" if first else "domain domain domain list"
        _nrrd(file, np.moveaxis(voxels, -1, 0) if first else voxels, kinds)
    return [file]


def _nrrd(file: Path, content: NDArray[np.float32], kinds: str) -> None:
    axes = "(-1,0,0) (0,-1,0) (0,0,1)"  # RAS in LPS
    lines = [
        "NRRD0004",
        "type: float",
        f"dimension: {content.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, content.shape))}",
        f"space directions: {axes + ' none' if kinds.endswith('list') else 'none ' + axes}",
        f"kinds: {kinds}",
        "endian: little",
        "encoding: raw",
        "space origin: (0,0,0)",
    ]
    file.write_bytes("\n".join([*lines, "", ""]).encode() + content.astype("<f4").tobytes(order="F"))


LAYOUTS = ["files.nii.gz", "5-D.nii.gz", "4-D.nii", "list.nrrd", "vector.nrrd", "last.nrrd", "4-D.mha"]


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels_in_every_layout(layout: str, channels: int, tmp_path: Path) -> None:
    files = [str(file) for file in write_channels(tmp_path, layout, channels)]
    steps = [LoadVolumed("image", channels=channels), EnsureChannelFirstd("image")]
    found = Compose(steps)({"image": files})["image"]
    assert np.array_equal(found.numpy(), np.moveaxis(ONE_IMAGE[..., :channels], -1, 0))
    expected = np.eye(4) if "mha" not in layout else np.diag([-1.0, -1, 1, 1])
    np.testing.assert_allclose(found.affine.numpy(), expected)
    wrong = LoadVolumed(["image", "label"], channels=[channels, channels + 1])
    with pytest.raises(DataError) as error:
        wrong({"image": files, "label": files})
    assert str(error.value) == f"{files[0]}: the label has {channels} channels; the data set asks for {channels + 1}."


def test_channels_of_several_formats(tmp_path: Path) -> None:
    found = load(*write_channels(tmp_path, "mixed.nrrd", 6))
    assert np.array_equal(found.numpy(), np.moveaxis(ONE_IMAGE[..., :6], -1, 0))


def _save(file: Path, voxels: NDArray[Any], affine: Any = None) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), file)


def test_files_that_are_no_volume_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.nii.gz"
    for shape in ((4, 5, 6, 2, 3), (4, 5)):
        _save(file, np.zeros(shape, np.float32))
        assert f"a.nii.gz has the shape {shape}; expected (X, Y, Z), or (X, Y, Z, C)" in refused(file)
    itk.imwrite(itk.image_from_array(np.zeros((4, 5), np.uint8)), str(tmp_path / "a.png"))
    assert "a.png has the shape (5, 4); expected (X, Y, Z)" in refused(tmp_path / "a.png")
    _save(file, np.zeros((4, 5, 6), np.complex64))
    assert "a.nii.gz holds values of type complex64; expected one number per voxel and channel" in refused(file)
    _save(file, np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]))
    assert "a.nii.gz holds values of type" in refused(file)
    flat = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
    flat.header.set_sform(np.diag([1.0, 0, 1, 1]), 2)
    flat.to_filename(file)
    assert "a.nii.gz has an affine without an inverse" in refused(file)
    for name in ("empty.nii.gz", "empty.nrrd"):
        (tmp_path / name).touch()
        assert f"{name} cannot be read as an image: " in refused(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.nii\.gz does not exist"):
        VolumeReader().read(tmp_path / "nowhere.nii.gz")
    other = tmp_path / "b.nii.gz"
    _save(file, np.zeros((4, 5, 6), np.float32))
    _save(other, np.zeros((4, 5, 7), np.float32))
    assert "b.nii.gz has shape (4, 5, 7)" in refused(file, other)
    _save(other, np.zeros((4, 5, 6), np.float32), np.diag([1.0, 1, 2, 1]))
    assert "b.nii.gz lies elsewhere than" in refused(file, other)


@pytest.mark.parametrize("found", [1, 3])
def test_another_number_of_channels_than_declared_is_said_before_training(found: int, tmp_path: Path) -> None:
    source = nnunet_data.write_raw(tmp_path, "labels", cases=2)
    about = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**about, "channel_names": {"0": "CT", "1": "PET"}}))
    for number, file in enumerate(sorted((source / "imagesTr").iterdir())):
        image = nibabel.load(file)
        channels = 2 if number == 0 else found
        nibabel.save(nibabel.Nifti1Image(np.stack([image.get_fdata()] * channels, -1), image.affine), file)
    with pytest.raises(RuntimeError) as error, workflow(tmp_path / "run", source, epochs=1) as flow:
        flow.run()
    sentence = f"case_01_0000.nii.gz: the image has {found} channels; the data set asks for 2."
    assert sentence in _causes(error.value)
    flow = inference(tmp_path / "run", source, images_dir=str(source / "imagesTr"), ckpt_path=__file__)
    with pytest.raises(RuntimeError) as error:
        list(flow.parser.get_parsed_content("dataloader"))
    assert sentence in _causes(error.value)


def _causes(error: BaseException | None) -> str:
    return "" if error is None else f"{error}\n{_causes(error.__cause__)}"
