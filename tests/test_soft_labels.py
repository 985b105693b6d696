"""Soft labels of a raw data set: their files, the mean of raters, ``segloss check``, MONAI's transform."""

from __future__ import annotations

import json
import multiprocessing.dummy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from monai_segloss import checking, find
from monai_segloss.datalist import soft_labels
from monai_segloss.datalist.soft_labels import FRACTIONS, RATERS, SoftLabelError, fault_of_fractions, mean_of_raters
from monai_segloss.transforms import RaterLabels, RaterLabelsd

pytest_plugins = "nnunet_fixtures"

LABELS = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
SHAPE = (4, 5, 6)
Change = Callable[[Path], object]


def write(file: Path, array: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 2.0)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(file))


def label(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cases without soft labels; nnU-Net would start twelve processes to list their files."""
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", lambda processes: multiprocessing.dummy.Pool(1))
    folder = tmp_path / "Dataset001_X"
    for seed, case in enumerate(("a", "b")):
        write(folder / "imagesTr" / f"{case}_0000.nii.gz", label(seed).astype(np.float32))
        write(folder / "labelsTr" / f"{case}.nii.gz", label(seed))
    about = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def with_raters(folder: Path) -> None:
    for seed, case in enumerate(("a", "b")):
        for number, rater in enumerate(("ann", "bob")):
            write(folder / RATERS / rater / f"{case}.nii.gz", label(seed + number))


def with_fractions(folder: Path) -> None:
    for seed, case in enumerate(("a", "b")):
        shares = np.moveaxis(np.random.default_rng(seed).dirichlet([1] * 3, SHAPE), -1, 0).astype(np.float32)
        for number in (1, 2):
            write(folder / FRACTIONS / f"{case}_{number:04d}.nii.gz", shares[number])


def found(folder: Path) -> soft_labels.SoftLabels | None:
    return soft_labels.find(folder, ".nii.gz", {1, 2}, ["a", "b"])


def test_files_are_found_by_case_and_rater_or_class(raw: Path) -> None:
    assert found(raw) is None
    with_raters(raw)
    raters = found(raw)
    assert raters is not None
    assert raters.files["b"] == {name: raw / RATERS / name / "b.nii.gz" for name in ("ann", "bob")}
    assert raters.words == f"{RATERS}: 2 raters, cases: 2 by 2"
    (raw / RATERS / "bob" / "b.nii.gz").unlink()
    uneven = found(raw)
    assert uneven is not None
    assert uneven.words == f"{RATERS}: 2 raters, cases: 1 by 2, 1 by 1"


def test_fractions_are_found_by_label(raw: Path) -> None:
    with_fractions(raw)
    fractions = found(raw)
    assert fractions is not None
    assert not fractions.by_raters
    assert fractions.files["a"] == {f"000{n}": raw / FRACTIONS / f"a_000{n}.nii.gz" for n in (1, 2)}


def extra(name: str, array: np.ndarray, **more: Any) -> Change:
    return lambda folder: write(folder / name, array, **more)


def removed(name: str) -> Change:
    return lambda folder: [each.unlink() for each in folder.glob(name)]


HALF = np.full(SHAPE, 0.5, np.float32)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (with_raters, with_fractions, f"has {RATERS} and {FRACTIONS}; keep one"),
        (with_raters, removed(f"{RATERS}/*/b.nii.gz"), r"has no file of 1 of 2 cases \(b first\)"),
        (with_raters, removed(f"{RATERS}/ann/*"), "ann has no file that ends in .nii.gz"),
        (with_raters, extra(f"{RATERS}/ann/aa.nii.gz", label(0)), "aa.nii.gz belongs to no training case"),
        (with_fractions, removed(f"{FRACTIONS}/b_0002*"), "lacks b_0002.nii.gz, the fractions of label 2"),
        (with_fractions, extra(f"{FRACTIONS}/a_0003.nii.gz", HALF), "CASE_LABEL.nii.gz with a label out of 0001, 0002"),
        (with_fractions, extra(f"{FRACTIONS}/a.nii.gz", HALF), "must be named CASE_LABEL.nii.gz"),
        (with_fractions, extra(f"{FRACTIONS}/c_0001.nii.gz", HALF), "c_0001.nii.gz belongs to no training case"),
        # what stands in the files
        (with_raters, extra(f"{RATERS}/bob/a.nii.gz", label(0) + 2), "a by bob: a.nii.gz holds the label 4"),
        (with_raters, extra(f"{RATERS}/bob/a.nii.gz", label(0)[1:]), r"a by bob: a.nii.gz has the shape \(3, 5, 6\)"),
        (with_raters, extra(f"{RATERS}/bob/a.nii.gz", label(0), spacing=(1, 1, 1)), "a by bob: a.nii.gz has the spacing"),
        (with_fractions, extra(f"{FRACTIONS}/a_0001.nii.gz", 3 * HALF), r"a \(soft label\): holds 1.5 \(120 values\)"),
        (with_fractions, extra(f"{FRACTIONS}/a_0001.nii.gz", 2 * HALF), r"a \(soft label\): has classes that sum to 1\.\d+"),
        (with_fractions, extra(f"{FRACTIONS}/a_0000.nii.gz", 0 * HALF), "has classes that sum to 0.*expected 1$"),
        (with_fractions, extra(f"{FRACTIONS}/a_0001.nii.gz", np.nan * HALF), "NaN"),
        (with_fractions, extra(f"{FRACTIONS}/a_0001.nii.gz", HALF[1:]), r"a_0002.nii.gz has the shape"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence_of_the_check(
    nnunet: None, raw: Path, kind: Change, change: Change, message: str
) -> None:
    kind(raw)
    assert [each for each in checking.check(raw) if each.level == "error"] == []
    change(raw)
    errors = [each.text for each in checking.check(raw) if each.level == "error"]
    assert any(re.search(message, each.removesuffix(".")) and "\n" not in each for each in errors), errors


def test_the_check_says_what_there_is_and_what_a_loss_does_with_it(nnunet: None, raw: Path) -> None:
    with_raters(raw)
    said = [(each.level, each.text) for each in checking.check(raw, find("blob"))]
    assert ("ok", f"{RATERS}: 2 raters, cases: 2 by 2") in said
    assert ("warning", "blob does not support soft labels: it can train on labelsTr alone.") in said
    (raw / RATERS / "bob" / "b.nii.gz").unlink()
    said = [(each.level, each.text) for each in checking.check(raw, find("dice_ce"))]
    assert ("warning", f"{RATERS}: 2 raters, cases: 1 by 2, 1 by 1") in said


def test_the_mean_of_raters_is_that_of_their_one_hot_maps() -> None:
    maps = np.stack([label(seed) for seed in range(3)])
    shares, labeled = mean_of_raters(maps, [0, 1, 2])
    np.testing.assert_allclose(shares, np.moveaxis(np.eye(3)[maps], -1, 1).mean(0), atol=1e-7)
    assert labeled.all()


def test_voxels_that_a_rater_left_out_count_for_the_others() -> None:
    maps = np.array([[1, 1, 3, 3], [0, 3, 2, 3]])
    shares, labeled = mean_of_raters(maps, [1, 2], ignore=3)
    assert shares.tolist() == [[0.5, 1, 0, 0], [0, 0, 1, 0]]
    assert labeled.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("value", "background", "wrong"), [(1.0005, False, False), (1.002, False, True), (-0.1, True, True)]
)
def test_rounding_is_no_fault(value: float, background: bool, wrong: bool) -> None:
    assert (fault_of_fractions(np.array([[value]]), background) is not None) == wrong


def test_monai_makes_the_same_mean(raw: Path) -> None:
    with_raters(raw)
    files = found(raw)
    assert files is not None
    item = {"label": [str(file) for file in files.files["a"].values()]}
    load = Compose([LoadImaged("label", ensure_channel_first=True), RaterLabelsd("label", num_classes=3)])
    made = load(item)["label"]
    assert isinstance(made, MetaTensor)
    maps = np.stack([label(0), label(1)]).transpose(0, 3, 2, 1)  # MONAI's axes are x, y, z
    np.testing.assert_allclose(made.numpy(), mean_of_raters(maps, [0, 1, 2])[0], atol=1e-7)


def test_monai_masks_what_nobody_labeled() -> None:
    maps = torch.tensor([[1, 1, 3, 3], [0, 3, 2, 3]])
    out = RaterLabelsd("label", mask_key="mask", num_classes=3, ignore_index=3)({"label": maps})
    assert out["label"].tolist() == [[0.5, 0, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, 0]]
    assert out["mask"].tolist() == [[True, True, True, False]]


def test_a_label_that_the_transform_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="the label 3 came, at 2 voxels; expected 0 to 2"):
        RaterLabels(num_classes=3)(torch.tensor([[0, 3], [1, 3]]))


def test_errors_of_files_name_them(raw: Path) -> None:
    with_raters(raw)
    write(raw / RATERS / "bob" / "a.nii.gz", label(0)[1:])
    files = found(raw)
    assert files is not None
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    with pytest.raises(SoftLabelError, match=r"bob/a.nii.gz has the shape \(3, 5, 6\), .*ann/a.nii.gz \(4, 5, 6\)"):
        soft_labels.read_files(files.files["a"], True, SimpleITKIO())
