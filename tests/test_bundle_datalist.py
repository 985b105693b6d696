"""Reading nnU-Net raw folders and Decathlon datalists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.data import FolderLayout

from monai_segloss.datalist import Labels, case_name, list_images, output_name, read

REGIONS: dict[str, Any] = {"background": 0, "whole": [1, 2], "core": 2}
LABELS = {"background": 0, "organ": 1, "lesion": 2}


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def raw(folder: Path, cases: int = 7, channels: int = 2, **changes: Any) -> Path:
    """An nnU-Net raw data set of empty files."""
    folder.mkdir(parents=True, exist_ok=True)
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


def test_names_of_cases(tmp_path: Path) -> None:
    """nnU-Net's identifier is the first; names that two cases share tell nothing apart."""
    listed = {
        "Anna": {"images": ["a/ct_0000.nii.gz"], "label": "a/seg.nii.gz"},
        "Bert": {"images": ["b/ct_0000.nii.gz"], "label": "b/seg.nii.gz"},
    }
    touch(tmp_path, *(f"{folder}/{name}.nii.gz" for folder in "ab" for name in ("ct_0000", "seg")))
    found = read(raw(tmp_path, 0, 1, dataset=listed))
    label, image = str(tmp_path / "a/seg.nii.gz"), str(tmp_path / "a/ct_0000.nii.gz")
    assert found.names(found.training[0]) == ("Anna", "ct", "ct_0000", "seg", label, image)
    assert found.named(found.training) == dict(zip(("Anna", "Bert"), found.training, strict=True))
    assert list(found.named(found.val_items(0))) == ["Bert"]
    training, validation = found.split_names(0)
    assert "Anna" in training - validation
    assert "Bert" in validation - training
    assert training & validation == {"ct", "ct_0000", "seg"}
    alike = read(
        decathlon(tmp_path, dataset={}, training=[{"image": x["images"], "label": x["label"]} for x in listed.values()])
    )
    assert list(alike.named(alike.training)) == [label, label.replace("a/seg", "b/seg")], "by their paths"


def test_four_digits_that_are_no_channel_tell_cases_apart(tmp_path: Path) -> None:
    files = [f"imagesTr/brats_{number:04}.nii.gz" for number in range(4)]
    touch(tmp_path, *files)
    found = read(decathlon(tmp_path, training=[{"image": file, "label": file} for file in files]))
    assert list(found.named(found.train_items("all"))) == [f"brats_{number:04}" for number in range(4)]


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
        ({"labels": {**LABELS, "ignore": 2}}, "'ignore' must be one number of its own, got 2"),
        ({"labels": {**LABELS, "ignore": [3, 4]}}, r"'ignore' must be one number of its own, got \[3, 4\]"),
        (
            {"labels": REGIONS},
            "regions_class_order must list one number for each of the 2 regions .whole, core., got None",
        ),
        ({"labels": REGIONS, "regions_class_order": [1]}, r"each of the 2 regions .whole, core., got \[1\]"),
        ({"labels": {"background": 0, "organ": "one"}}, "'organ' must be a number from 0 to 65535 or a list"),
        ({"labels": {"background": 0, "organ": []}}, "'organ' must be a number from 0 to 65535 or a list"),
        ({"labels": ["organ"]}, "must hold a JSON object, with 'labels' as another one"),
        ({"channel_names": {"0": "a", "1": "b", "2": "c"}}, "is 1 of 2 channels, expected 3"),
        ({"labels": {"background": 0, "lesion": 2}}, r"labels must be 0 \(background\), 1, 2 .* got \[0, 2\]"),
        ({"labels": {}}, "labels must be 0"),
        ({"file_ending": ".nrrd"}, "the data set has no labeled case"),
        ({"training": [{"image": "imagesTr/case_000_0000.nii.gz"}]}, "case_000_0000.nii.gz has no label"),
        ({"training": [{"images": ["a.nii.gz"]}]}, "a case must name its image .* got .'images'"),
        ({"training": [3]}, "a case must name its image .one file or a list. and label, got 3"),
        ({"training": [{"image": [3], "label": "a"}]}, "a case must name its image"),
        ({"training": [], "test": "imagesTs"}, "test must be a list of cases, got 'imagesTs'"),
        ({"dataset": {"a": {"image": "a.nii.gz", "label": "b.nii.gz"}}}, "a case must name its image"),
        ({"dataset": ["a"]}, "dataset must be a mapping of cases to images and label"),
        ({"file_ending": 3}, "file_ending must be text, as '.nii.gz', got 3"),
        ({"channel_names": "CT"}, "channel_names must be a mapping of numbers to names, got 'CT'"),
    ],
)
def test_what_the_bundle_cannot_train_on_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(raw(tmp_path, **changes))


def test_labels_regions_and_what_is_ignored(tmp_path: Path) -> None:
    found = read(raw(tmp_path, labels={**LABELS, "ignore": 3}))
    assert found.labels == Labels(("organ", "lesion"), ignore=3)
    assert (found.num_classes, found.labels.values) == (3, (0, 1, 2, 3))
    found = read(raw(tmp_path, labels={**REGIONS, "ignore": 7}, regions_class_order=[2, 1]))
    assert found.labels == Labels(("whole", "core"), ((1, 2), (2,)), (2, 1), ignore=7)
    assert (found.num_classes, found.labels.values) == (2, (0, 1, 2, 7))
    many = {"background": 0, **{f"organ {i}": i for i in range(117, 0, -1)}}
    assert read(raw(tmp_path, labels=many)).labels.names[:2] == ("organ 1", "organ 2")
    assert Labels.read({"labels": {"0": "background", "1": "organ", "2": "ignore"}}) == Labels(("organ",), ignore=2)


def test_a_description_alone_is_enough_for_inference(tmp_path: Path) -> None:
    raw(tmp_path, cases=0)
    assert read(tmp_path, labeled=False).num_classes == 3
    with pytest.raises(FileNotFoundError, match="the data set has no labeled case"):
        read(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset\.json is not valid JSON"):
        read(tmp_path)


def series(folder: Path) -> Path:
    """What looks like a DICOM series without being read."""
    folder.mkdir(parents=True)
    (folder / "IM1").write_bytes(b"\0" * 128 + b"DICM")
    return folder


def test_dicom_series_are_folders(tmp_path: Path) -> None:
    for name in ("b_0001", "b_0000", "1.2.840.113"):
        series(tmp_path / "in" / name)
    touch(tmp_path / "in", "a.nii.gz", ".hidden.nii.gz", "note.txt", "empty/note.txt")
    found = [[Path(file).name for file in item["image"]] for item in list_images(tmp_path / "in")]
    assert found == [["1.2.840.113"], ["a.nii.gz"], ["b_0000", "b_0001"]]
    with pytest.raises(ValueError, match="b_0000 is 1 of 2 channels, expected 3"):
        list_images(tmp_path / "in", channels=3)
    assert list_images(tmp_path / "in" / "b_0000") == [{"image": [str(tmp_path / "in" / "b_0000")]}]
    with pytest.raises(FileNotFoundError, match=r"has no image .NIfTI, NRRD, MetaImage or a DICOM series."):
        list_images(tmp_path / "in" / "empty")
    with pytest.raises(FileNotFoundError, match="has no image"):
        list_images(tmp_path / "nowhere")
    for folder, name in (("1.2.840.113", "1.2.840.113"), ("b_0000", "b")):
        assert case_name({"filename_or_obj": str(tmp_path / "in" / folder)}) == name
    series(raw(tmp_path / "set", cases=0) / "imagesTr" / "x_0000")
    touch(tmp_path / "set", "labelsTr/x.nii.gz", "imagesTr/x_0001.nii.gz")
    item = read(tmp_path / "set").training[0]
    assert [Path(file).name for file in item["image"]] == ["x_0000", "x_0001.nii.gz"]
    assert Path(item["label"]).name == "x.nii.gz"


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
        assert case_name({"filename_or_obj": file}) == name
        layout = FolderLayout(tmp_path, extension="nii.gz")
        assert layout.filename(**output_name({"filename_or_obj": file}, None)) == str(tmp_path / f"{name}.nii.gz")
    with pytest.raises(FileNotFoundError, match="no test images: name a folder of images as images_dir"):
        read(raw(tmp_path)).test_items()
