"""Reading nnU-Net raw folders and Decathlon datalists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_segloss.datalist import list_images, output_name, read

LABELS = {"background": 0, "organ": 1, "lesion": 2}


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def raw(folder: Path, cases: int = 7, channels: int = 2, **changes: Any) -> Path:
    """An nnU-Net raw data set of empty files."""
    names = {str(channel): "MRI" for channel in range(channels)}
    description = {"channel_names": names, "labels": LABELS, "numTraining": cases, "file_ending": ".nii.gz", **changes}
    (folder / "dataset.json").write_text(json.dumps(description))
    for case in range(cases):
        touch(folder, f"labelsTr/case_{case:03}.nii.gz")
        touch(folder, *(f"imagesTr/case_{case:03}_{channel:04}.nii.gz" for channel in range(channels)))
    return folder


def names(items: list[dict[str, Any]]) -> list[str]:
    return [Path(item["label"]).name.removesuffix(".nii.gz") for item in items]


def test_an_nnunet_folder(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTs/new_0000.nii.gz", "imagesTs/new_0001.nii.gz")
    found = read(raw(tmp_path))
    assert (found.channels, found.num_classes, len(found.training)) == (2, 3, 7)
    assert found.training[3] == {
        "image": [str(tmp_path / "imagesTr" / f"case_003_{channel:04}.nii.gz") for channel in range(2)],
        "label": str(tmp_path / "labelsTr" / "case_003.nii.gz"),
    }
    images = [str(tmp_path / "imagesTs" / f"new_000{channel}.nii.gz") for channel in range(2)]
    assert found.test_items() == [{"image": images}]


@pytest.mark.parametrize("cases", [5, 7, 12])
def test_the_folds_are_nnunets(tmp_path: Path, cases: int) -> None:
    split = pytest.importorskip("nnunetv2.utilities.crossval_split").generate_crossval_split
    found = read(raw(tmp_path, cases))
    for fold, theirs in enumerate(split(names(found.train_items("all")), seed=12345, n_splits=5)):
        assert names(found.val_items(fold)) == theirs["val"]
        assert names(found.train_items(fold)) == theirs["train"]


def test_folds_of_few_cases(tmp_path: Path) -> None:
    found = read(raw(tmp_path, cases=3))
    assert sorted(name for fold in range(3) for name in names(found.val_items(fold))) == names(found.train_items("all"))
    assert names(found.val_items("all")) == names(found.train_items("all"))
    for fold in (3, -1, "none"):
        with pytest.raises(ValueError, match=r"fold must be 'all' or 0 to 2 for 3 cases, got"):
            found.val_items(fold)


def test_nnunets_explicit_file_list(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.nii.gz", "b/x.nii.gz")
    found = read(raw(tmp_path, 0, 1, dataset={"x": {"images": ["a/x.nii.gz"], "label": "b/x.nii.gz"}}))
    assert found.training == ({"image": [str(tmp_path / "a/x.nii.gz")], "label": str(tmp_path / "b/x.nii.gz")},)


def decathlon(folder: Path, **changes: Any) -> Path:
    cases = [{"image": f"./imagesTr/c{case}.nii.gz", "label": f"./labelsTr/c{case}.nii.gz"} for case in (2, 0, 1)]
    labels = {"0": "background", "1": "organ", "2": "lesion"}
    description = {"modality": {"0": "CT"}, "labels": labels, "training": cases, "test": ["./imagesTs/t.nii.gz"]}
    (folder / "dataset.json").write_text(json.dumps({**description, **changes}))
    touch(folder, *(f"{kind}/c{case}.nii.gz" for kind in ("imagesTr", "labelsTr") for case in range(4)))
    return folder


def test_a_decathlon_datalist(tmp_path: Path) -> None:
    found = read(decathlon(tmp_path))
    assert (found.channels, found.num_classes) == (1, 3)
    assert names(found.train_items("all")) == ["c0", "c1", "c2"]
    assert found.test_items() == [{"image": [str(tmp_path / "imagesTs/t.nii.gz")]}]
    own = [{"image": ["imagesTr/c3.nii.gz"], "label": "labelsTr/c3.nii.gz"}]
    found = read(decathlon(tmp_path, validation=own))
    assert (names(found.train_items(0)), names(found.val_items(0))) == (["c0", "c1", "c2"], ["c3"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {**LABELS, "ignore": 3}}, "has an ignore label"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "defines regions"),
        ({"labels": {"background": 0, "lesion": 2}}, r"labels must be 0 \(background\), 1, 2 .* got \[0, 2\]"),
        ({"labels": {}}, "labels must be 0"),
        ({"file_ending": ".nrrd"}, "the data set has no labeled case"),
        ({"training": [{"image": "imagesTr/case_000_0000.nii.gz"}]}, "case_000_0000.nii.gz has no label"),
    ],
)
def test_what_the_bundle_cannot_train_on_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(raw(tmp_path, **changes))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset_dir must be a folder with a dataset\.json"):
        read(tmp_path)
    (raw(tmp_path) / "labelsTr" / "case_004.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 files are missing, the first is .*case_004\.nii\.gz"):
        read(tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match=r"neither 'file_ending' .* nor a list 'training'"):
        read(tmp_path)


def test_images_of_a_folder_and_names_of_predictions(tmp_path: Path) -> None:
    touch(tmp_path, "b_0000.nii.gz", "a.nii.gz", "note.txt")
    assert [Path(item["image"][0]).name for item in list_images(tmp_path)] == ["a.nii.gz", "b_0000.nii.gz"]
    with pytest.raises(FileNotFoundError, match=r"has no file that ends in '\.nrrd'"):
        list_images(tmp_path, ".nrrd")
    for file, name in (("/x/b_0000.nii.gz", "b"), ("scan.1.mha", "scan.1"), ("case_12.nii.gz", "case_12")):
        assert output_name({"filename_or_obj": file}, None)["subject"] == name
    with pytest.raises(FileNotFoundError, match="no test images: name a folder of images as images_dir"):
        read(raw(tmp_path)).test_items()
