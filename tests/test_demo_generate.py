"""The generated data set: what the demo relies on."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from monai_segloss.demo.dataset import read_dataset, read_volume
from monai_segloss.demo.generate import LABELS, Size, make_dataset, make_splits, make_volume
from monai_segloss.demo.settings import QUICK

SEEDS = np.random.SeedSequence(0).generate_state(26)


def test_same_seed_same_voxels() -> None:
    first, second, other = make_volume(3), make_volume(3), make_volume(4)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.label, second.label)
    assert first.spacing == second.spacing
    assert first.label.shape != other.label.shape or (first.label != other.label).any()


@pytest.mark.parametrize("extent", [Size.extent, QUICK.extent])
def test_every_case_has_every_class(extent: tuple[float, float, float]) -> None:
    for seed in SEEDS:
        volume = make_volume(int(seed), extent)
        assert set(np.unique(volume.label)) == set(LABELS.values()), seed
        assert np.isfinite(volume.image).all()
        assert np.array_equal(volume.image, np.rint(volume.image)), "CT values are whole numbers"


def test_slices_are_thick_and_differ_between_cases() -> None:
    spacings = {make_volume(int(seed)).spacing for seed in SEEDS}
    assert len(spacings) > 3
    for z, y, x in spacings:
        assert y == x
        assert 4 <= z / x <= 6


def test_shape_times_spacing_is_the_block() -> None:
    for seed in SEEDS[:5]:
        volume = make_volume(int(seed))
        size = np.array(volume.label.shape) * volume.spacing
        np.testing.assert_allclose(size, Size.extent, atol=max(volume.spacing) / 2)


def test_lesions_are_few_and_small_and_brighter_than_the_organ() -> None:
    for seed in SEEDS[:10]:
        volume = make_volume(int(seed))
        lesions = volume.label == LABELS["lesion"]
        _, count = ndimage.label(lesions, np.ones((3, 3, 3)))
        assert 1 <= count <= 5
        assert 0.001 < lesions.mean() < 0.04
        organ = volume.image[volume.label == LABELS["organ"]]
        assert volume.image[lesions].mean() > organ.mean() + 2 * organ.std()


def test_the_vessel_passes_through_every_slice() -> None:
    volume = make_volume(int(SEEDS[0]))
    assert (volume.label == LABELS["vessel"]).any((1, 2)).all()


def test_dataset_is_laid_out_for_nnunet(tmp_path: Path) -> None:
    size = Size(train=5, test=1, extent=QUICK.extent)
    make_dataset(tmp_path, 7, size)
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["labels"] == LABELS
    assert (content["numTraining"], content["file_ending"]) == (5, ".nii.gz")
    dataset = read_dataset(tmp_path)
    assert (len(dataset.cases), dataset.tests) == (5, ("test_000",))
    image = nibabel.load(tmp_path / "imagesTr" / "case_000_0000.nii.gz")
    label = nibabel.load(tmp_path / "labelsTr" / "case_000.nii.gz")
    np.testing.assert_array_equal(image.affine, label.affine)
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


def test_written_volume_reads_back_in_the_same_axes(tmp_path: Path) -> None:
    make_dataset(tmp_path, 7, Size(train=5, test=0, extent=QUICK.extent))
    volume = make_volume(int(np.random.SeedSequence(7).generate_state(5)[2]), QUICK.extent)
    image, spacing = read_volume(tmp_path / "imagesTr" / "case_002_0000.nii.gz")
    label, _ = read_volume(tmp_path / "labelsTr" / "case_002.nii.gz")
    np.testing.assert_array_equal(image, volume.image)
    np.testing.assert_array_equal(label, volume.label)
    assert spacing == pytest.approx(volume.spacing)


def test_a_case_does_not_depend_on_how_many_follow(tmp_path: Path) -> None:
    for train in (5, 6):
        make_dataset(tmp_path / str(train), 0, Size(train=train, test=0, extent=QUICK.extent))
    name = "imagesTr/case_004_0000.nii.gz"
    few, many = (read_volume(tmp_path / train / name)[0] for train in ("5", "6"))
    np.testing.assert_array_equal(few, many)


def test_splits_cover_every_case_once() -> None:
    cases = [f"c{i}" for i in range(12)]
    splits = make_splits(cases)
    assert sorted(case for split in splits for case in split["val"]) == sorted(cases)
    for split in splits:
        assert sorted(split["train"] + split["val"]) == sorted(cases)
