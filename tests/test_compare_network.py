"""What a comparison replaces of nnU-Net's plans and splits: batch, patch, channels; folds of patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_segloss.demo.problem import DemoError
from monai_segloss.experiment.folds import make_folds, read_patients
from monai_segloss.experiment.matrix import Matrix, matrix
from monai_segloss.experiment.network import described, set_network
from monai_segloss.files import read_json, write_json


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    network = {
        "n_stages": 4,
        "features_per_stage": [32, 64, 128, 256],
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
    }
    planned = {"patch_size": [20, 64, 64], "batch_size": 9, "architecture": {"arch_kwargs": network}}
    write_json(tmp_path / "plans.json", {"configurations": {"3d_fullres": planned, "2d": {"patch_size": [64, 64]}}})
    return tmp_path / "plans.json"


def asked(**settings: Any) -> Matrix:
    return matrix({"demo": True, "arms": ["dice_ce", "dice"], **settings})


def test_only_what_is_asked_for_is_replaced(plans: Path) -> None:
    before = read_json(plans)
    set_network(plans, asked())
    assert read_json(plans) == before
    set_network(plans, asked(batch_size=2, patch_size=[8, 24, 16], features=48))
    found = read_json(plans)["configurations"]
    assert found["2d"] == before["configurations"]["2d"]
    assert found["3d_fullres"]["batch_size"] == 2
    assert found["3d_fullres"]["patch_size"] == [8, 24, 16]
    assert found["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] == [48, 96, 192, 256]
    assert described(found["3d_fullres"]) == "patch of 8 x 24 x 16 voxels, batch of 2, 48 to 256 channels"


@pytest.mark.parametrize(
    ("patch", "words"),
    [([16, 16], r"the plans have 3 axes"), ([8, 16, 20], r"multiples of \[4, 8, 8\]"), ([0, 8, 8], "multiples")],
)
def test_patches_that_do_not_fit(plans: Path, patch: list[int], words: str) -> None:
    before = plans.read_bytes()
    with pytest.raises(DemoError, match=words):
        set_network(plans, asked(patch_size=patch, batch_size=2))
    assert plans.read_bytes() == before


def test_plans_of_another_kind_have_no_words() -> None:
    assert described({"patch_size": [8, 8]}) is None


def test_images_of_one_patient_are_on_one_side() -> None:
    cases = [f"{number}{eye}" for number in range(6) for eye in "LR"]
    whose = {case: case[:-1] for case in cases}
    folds = make_folds(cases, 3, whose)
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == cases
        assert not {whose[case] for case in fold["train"]} & {whose[case] for case in fold["val"]}
    assert sorted(case for fold in folds for case in fold["val"]) == cases
    alone = make_folds(cases, 5, {})
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    assert [sorted(fold["val"]) for fold in alone] == [
        sorted(fold["val"]) for fold in generate_crossval_split(cases, 12345, 5)
    ]
    with pytest.raises(DemoError, match="--splits 7: there are only 6 patients"):
        make_folds(cases, 7, whose)


@pytest.mark.parametrize(
    ("text", "words"), [("[1]", "expected a mapping"), ('{"c": "x"}', "no case 'c'"), ("{", "patients")]
)
def test_files_of_patients(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "patients.json").write_text(text)
    with pytest.raises(DemoError, match=words):
        read_patients(tmp_path / "patients.json", ["a", "b"])
