"""What is measured of trainers on real volumes: probabilities, poor results, classes as regions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_segloss.demo.dataset import RawDataset, read_dataset
from monai_segloss.demo.problem import DemoError

sys.path.append(str(Path(__file__).resolve().parent.parent))  # last: the installed package comes before the sources
pytest.importorskip("monai.losses")
pytest.importorskip("nnunetv2")

from benchmarks import probabilities, trainers


def test_probabilities_inside_and_outside_of_a_class(tmp_path: Path) -> None:
    import nibabel

    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "a": 2, "b": 1, "c": 3},
        "file_ending": ".nii.gz",
    }
    dataset = RawDataset(tmp_path, content, ("case",), ())
    truth = np.zeros((2, 3, 4), np.uint8)  # z, y, x
    truth[0, 0], truth[1, 2] = 2, 1
    p = np.full((4, 2, 3, 4), 0.1, np.float32)
    p[2, 0, 0], p[1, 1, 2] = 0.7, [0.2, 0.2, 0.2, 0.7]
    p[0] = 1 - p[1:].sum(0)
    for folder, array in (("labelsTr", truth), (".", p.argmax(0).astype(np.uint8))):
        (tmp_path / folder).mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.eye(4)), tmp_path / folder / "case.nii.gz")
    np.savez(tmp_path / "case.npz", probabilities=p)
    found = probabilities.by_class(dataset, tmp_path, "case")
    assert set(found) == {"a", "b"}
    assert found["a"] == pytest.approx((0.7, 0.1, 0.7))
    assert found["b"] == pytest.approx((0.325, 0.1, 0.7))
    np.savez(tmp_path / "case.npz", probabilities=p[:, ::-1])
    with pytest.raises(DemoError, match="case: nnU-Net's probabilities are not those of its prediction"):
        probabilities.by_class(dataset, tmp_path, "case")


def test_a_poor_result_asks_what_was_learned_once() -> None:
    poor = {"classes": {"a": {"dice": 0.2}, "b": {"dice": 0.7}}}
    assert trainers.asks_why(poor)
    assert not trainers.asks_why({**poor, "probability": {}})
    assert not trainers.asks_why({"classes": {"a": {"dice": 0.5}}})


def raw(folder: Path, labels: dict[str, object]) -> Path:
    for name, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / name).mkdir(parents=True)
        for case in range(5):
            (folder / name / f"case{case}{ending}").write_bytes(b"")
    content = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_classes_as_regions(tmp_path: Path) -> None:
    """The volumes stay where they are; ignored voxels stay ignored."""
    data = raw(tmp_path / "mr", {"background": 0, "a": 1, "b": 3, "c": 2, "ignore": 4})
    for _ in range(2):  # again over what an earlier call left
        made = read_dataset(trainers.as_regions(data, tmp_path / "work" / "mr"))
    assert made.regions
    assert made.classes == {"a_b_c": (1, 3, 2), "b": (3,), "c": (2,)}
    assert made.content["regions_class_order"] == [1, 3, 2]
    assert made.content["labels"]["ignore"] == 4
    assert len(made.cases) == 5
    assert read_dataset(data).classes == {"a": (1,), "b": (3,), "c": (2,)}


def test_probabilities_of_regions(tmp_path: Path) -> None:
    """Each where it is above 1/2; a later region of the order lies on top of an earlier one."""
    import nibabel

    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "whole": [1, 2], "part": [2]},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
    }
    dataset = RawDataset(tmp_path, content, ("case",), ())
    truth = np.zeros((1, 2, 4), np.uint8)  # z, y, x
    truth[0, 0] = [0, 1, 2, 2]
    p = np.full((2, 1, 2, 4), 0.25, np.float32)
    p[0, 0, 0], p[1, 0, 0] = [0.25, 0.75, 0.75, 0.5], [0.25, 0.25, 1.0, 0.75]
    predicted = np.zeros((1, 2, 4), np.uint8)
    predicted[0, 0] = [0, 1, 2, 2]
    for folder, array in (("labelsTr", truth), (".", predicted)):
        (tmp_path / folder).mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.eye(4)), tmp_path / folder / "case.nii.gz")
    np.savez(tmp_path / "case.npz", probabilities=p)
    found = probabilities.by_class(dataset, tmp_path, "case")
    assert found["whole"] == pytest.approx((2 / 3, 0.25, 0.75))
    assert found["part"] == pytest.approx((0.875, 0.25, 1.0))
    np.savez(tmp_path / "case.npz", probabilities=p[::-1])
    with pytest.raises(DemoError, match="are not those of its prediction"):
        probabilities.by_class(dataset, tmp_path, "case")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--stock", "--lr", "0.05"], "--stock trains"), (["--regions", "--stock"], "--regions trains")],
)
def test_options_that_do_not_go_together(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["trainers", "--data", str(tmp_path), *arguments])
    with pytest.raises(SystemExit):
        trainers.main()
    assert words in capsys.readouterr().err
