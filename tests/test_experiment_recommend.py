"""What is recommended for a data set: from its labels, with reasons, and never a promise."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from comparison_tables import ARMS, SEEDS, rows
from numpy.typing import NDArray
from typer.testing import CliRunner

import monai_segloss
from monai_segloss.cli import app
from monai_segloss.experiment import recommend as module
from monai_segloss.experiment.fingerprint import ClassFacts, Fingerprint, fingerprint
from monai_segloss.experiment.recommend import MOST, recommend
from monai_segloss.experiment.tables import Tables
from monai_segloss.recipes import RECIPES

ORGAN = ClassFacts("organ", 0.1, 1.0, 1.0, 1e5, 1.0)
LESION = ClassFacts("lesion", 0.0004, 0.7, 6.0, 30.0, 1.5)
VESSEL = ClassFacts("vessel", 0.02, 1.0, 2.0, 4e3, 60.0)
PLAIN = Fingerprint(20, 20, 3, (1.0, 1.0, 1.0), (ORGAN,), False, False, False)
SPACING = (4.0, 1.0, 0.5)  # z, y, x


def keys(found: Fingerprint) -> list[str]:
    return [each.key for each in recommend(found)]


def test_each_fact_has_its_losses() -> None:
    assert keys(PLAIN) == ["boundary_dou", "dice_hausdorff_dt", "dice_topk"]
    assert keys(replace(PLAIN, classes=(LESION,)))[:4] == ["cc_dice_ce", "blob", "tversky", "catmil"]
    tubes = ["dice_ce_skeleton_recall", "dice_cldice", "dice_boundary", "dice_topk"]
    assert keys(replace(PLAIN, classes=(VESSEL,))) == tubes
    assert keys(replace(PLAIN, partial=True))[0] == "shi_marginal_exclusion"
    assert "generalized_dice" in keys(replace(PLAIN, classes=(ORGAN, replace(ORGAN, name="duct", share=0.0005))))
    assert keys(replace(PLAIN, classes=(replace(ORGAN, present=0.5),)))[0] == "dice_focal"
    assert keys(replace(PLAIN, classes=(replace(ORGAN, present=0.0),))) == ["dice_topk"]


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("classes", [(ORGAN,), (LESION,), (VESSEL, LESION, ORGAN)])
def test_what_is_suggested_fits_the_labels(classes: tuple[ClassFacts, ...], regions: bool) -> None:
    found = replace(PLAIN, classes=classes, regions=regions, ignore=True, partial=True)
    suggested = recommend(found)
    assert 1 <= len(suggested) <= MOST
    assert len({each.key for each in suggested}) == len(suggested)
    for each in suggested:
        assert each.reason
        assert each.source
        assert each.when
        if each.key not in RECIPES:
            support = monai_segloss.find(each.key).support
            assert "ignore" in support
            assert "regions" in support or not regions
    assert ("shi_marginal_exclusion" in keys(found)) is not regions


def test_no_promise() -> None:
    found = replace(PLAIN, classes=(ORGAN, LESION), spacing=(5.0, 1.0, 1.0), cases=10)
    text = " ".join([*(each.reason for each in recommend(found)), *module.notes(found)])
    assert "within the noise of the seed" in text
    assert "10 of 20 cases were read" in text
    assert "5.0 times as long as wide" in text
    assert not any(word in text for word in ("improve", "will", "best", "raise"))


def volume(i: int) -> NDArray[np.uint8]:
    """A block, a line along z, and four single voxels that every second case lacks."""
    array = np.zeros((20, 24, 24), np.uint8)
    array[2:18, 2:12, 2:12] = 1
    array[0:20, 20, 20] = 2
    if i % 2:
        array[3:18:4, 15, 4] = 3
    return array


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "a data set"
    for i in range(6):
        for name, array in (("imagesTr", np.zeros((20, 24, 24))), ("labelsTr", volume(i))):
            image = SimpleITK.GetImageFromArray(array.astype(np.uint8))
            image.SetSpacing(SPACING[::-1])
            (folder / name).mkdir(parents=True, exist_ok=True)
            ending = "_0000.nii.gz" if name == "imagesTr" else ".nii.gz"
            SimpleITK.WriteImage(image, str(folder / name / f"case_{i}{ending}"))
    description(folder, {"background": 0, "organ": 1, "vessel": 2, "lesion": 3})
    return folder


def description(folder: Path, labels: Any, **more: Any) -> None:
    content = {**more, "labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 6}
    (folder / "dataset.json").write_text(json.dumps(content))


def test_the_fingerprint_of_known_shapes(raw: Path) -> None:
    found = fingerprint(raw)
    assert (found.cases, found.known, found.dimensions, found.spacing) == (6, 6, 3, SPACING)
    assert found.anisotropy == 8
    organ, vessel, lesion = found.classes
    total = 20 * 24 * 24
    assert organ.share == pytest.approx(1600 / total)
    assert (organ.present, organ.components, organ.size) == (1, 1, 1600 * 2)
    assert (vessel.components, lesion.components) == (1, 4)
    assert (lesion.present, lesion.size) == (0.5, 2)
    assert lesion.share == pytest.approx(2 / total)
    assert vessel.elongation > 8 > max(organ.elongation, lesion.elongation)
    assert fingerprint(raw, most=2).cases == 2
    (raw / "labeled_classes.json").write_text("{}")
    description(raw, {"background": 0, "all": [1, 2, 3], "organ": 1, "ignore": 4}, regions_class_order=[2, 1])
    again = fingerprint(raw)
    assert (again.regions, again.ignore, again.partial) == (True, True, True)


def command(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["recommend", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command(raw: Path) -> None:
    code, text = command(raw)
    assert code == 0, text
    assert f"segloss compare run --data {shlex.quote(str(raw))} --loss dice_ce --loss cc_dice_ce" in text
    assert monai_segloss.find("cc_dice_ce").paper in text
    assert "lesion 4 components per case" in text
    code, text = command(raw, "--json")
    content = json.loads(text[text.index("{") :])
    assert [each["key"] for each in content["losses"]] == keys(fingerprint(raw))
    assert content["losses"][0]["command"].endswith("--loss dice_ce --loss cc_dice_ce")


def test_measured_evidence(raw: Path, tmp_path: Path) -> None:
    Tables.of(*rows(ARMS, SEEDS)).write(tmp_path / "comparison" / "tables")
    code, text = command(raw, "--results", tmp_path / "comparison")
    assert code == 0, text
    assert "measured: better, +0.05" in text
    assert "Dice against dice_ce (2 seeds, 12 patients)" in text
    assert "measured: not in these results" in text


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda raw: None, ["missing"], "must be a folder with a dataset.json"),
        (lambda raw: (raw / "labelsTr" / "case_0.nii.gz").write_bytes(b""), [], "case_0.nii.gz cannot be read"),
        (lambda raw: (raw / "labelsTr" / "case_0.nii.gz").unlink(), [], "case_0.nii.gz"),
        (lambda raw: description(raw, {"background": 0}), [], "labels must be 0 (background), 1, 2"),
        (lambda raw: description(raw, {"background": 0, "organ": "x"}), [], "organ"),
        (lambda raw: None, ["--results", "missing"], "runs.csv is missing"),
    ],
)
def test_what_a_user_gets_wrong(raw: Path, change: Any, arguments: list[str], message: str) -> None:
    change(raw)
    code, text = command(*(arguments if arguments[:1] == ["missing"] else [raw, *arguments]))
    assert code == 2
    assert text.startswith("Error: ")
    assert message in text
    assert len(text.strip().splitlines()) == 1
