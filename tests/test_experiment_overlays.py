"""Pictures of the cases in which arms differ most: which cases, which slice, and what is left when the images are gone."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nnunetv2.imageio.reader_writer_registry  # noqa: F401  (sets variables of the environment)
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from monai_segloss.cli import app
from monai_segloss.demo.figures import color
from monai_segloss.experiment import overlays, report
from monai_segloss.experiment.measuring import measure_runs
from monai_segloss.experiment.sources import Source, SourceError, find
from monai_segloss.experiment.statistics import Settings
from monai_segloss.experiment.tables import TableError

SPACING = (1.0, 3.0, 1.0)  # z, y, x: coronal slices
SHAPE = (20, 6, 18)
CASES = [f"case_{i}" for i in range(6)]
LABELS = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
EVIL = '<b>$a$ & "x"\'`'


def reference() -> NDArray[np.uint8]:
    array = np.zeros(SHAPE, np.uint8)
    array[4:12, 1:5, 5:12] = 1
    array[6:8, 2:4, 7:9] = 2
    array[:, 0] = 3
    return array


def predicted(i: int, slices: int, labels: int = 1) -> NDArray[np.uint8]:
    """The organ is missing in coronal slice 2, and more of it in later cases; what is ignored is wrong everywhere."""
    array = np.where(reference() == 3, 0, reference()).astype(np.uint8)
    for j in range(slices):
        array[4 : 5 + i, 2 + j] *= array[4 : 5 + i, 2 + j] != labels
    array[:, 0] = slices
    return array


def store(file: Path, array: NDArray[Any], spacing: tuple[float, ...] = SPACING) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    file.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(file))


def runs(folder: Path, arms: dict[str, int], images: bool = True) -> list[Source]:
    """Folders of predictions: arm -> how many slices of it are wrong."""
    raw = folder / "Dataset001_X"
    for i, case in enumerate(CASES):
        store(raw / "labelsTr" / f"{case}.nii.gz", reference())
        if images:
            rng = np.random.default_rng(i)
            store(raw / "imagesTr" / f"{case}_0000.nii.gz", (reference() + rng.random(SHAPE)).astype(np.float32))
        for k, slices in enumerate(arms.values()):
            store(folder / str(k) / f"{case}.nii.gz", predicted(i, slices))
    (raw / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz"}))
    return find([f"{arm}={folder / str(k)}" for k, arm in enumerate(arms)], raw / "labelsTr")


@pytest.fixture(autouse=True)
def no_raw_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)


def test_the_slice_in_which_arms_differ(tmp_path: Path) -> None:
    a, b = runs(tmp_path, {"a": 0, "b": 1})
    found = overlays.cut({"a": a, "b": b}, "case_3")
    assert (found.place, found.seen, found.metric) == ("coronal 3 of 6", True, True)
    assert found.case.spacing == (3.0, 1.0, 1.0)
    shown = found.case.reference[0]
    assert (shown == 1).sum() + (shown == 2).sum() == (reference()[:, 2] > 0).sum()  # nothing labeled is cut off
    assert shown.shape[0] < SHAPE[0]
    missing = np.argwhere((found.case.predictions["a"] != found.case.predictions["b"])[0])
    assert len(missing) == 4 * 7 - 4  # the lesion is there
    assert missing[:, 0].min() > np.argwhere(shown == 1)[:, 0].mean()  # the low end of z stands below: head up


def test_the_cases_with_the_largest_spread_have_pictures(tmp_path: Path) -> None:
    measure_runs(runs(tmp_path, {"a": 0, "b": 1}), tmp_path / "out")
    found = overlays.read(tmp_path / "out")
    assert [re.findall(r"case_\d", each.alt) for each in found] == [["case_5"], ["case_4"], ["case_3"], ["case_2"]]
    assert re.fullmatch(
        r"Image, reference and predictions of case_5, coronal 3 of 6, outlined: b Dice 0\.\d{3}; a Dice 1\.000\.",
        found[0].alt,
    )
    for each in found:
        width, height = Image.open(io.BytesIO(each.content)).size
        assert width == 630
        assert 600 < height < 1400


def test_outlines_are_those_of_the_predictions(tmp_path: Path) -> None:
    a, b = runs(tmp_path, {"a": 0, "b": 1})
    found = overlays.cut({"a": a, "b": b}, "case_5")
    pixels = np.asarray(Image.open(io.BytesIO(overlays.draw(found, a.classes, {"a": "1", "b": "0"}))).convert("RGB"))
    wanted = [int(color(0)[i : i + 2], 16) for i in (1, 3, 5)]
    colored = (np.abs(pixels.astype(int) - wanted).max(-1) < 12)[: pixels.shape[0] * 9 // 10]  # the legend aside
    rows, columns = (pixels.shape[0] * 9 // 10) // 2, pixels.shape[1] // 2
    panels = [colored[:rows, :columns], colored[:rows, columns:], colored[rows:, :columns], colored[rows:, columns:]]
    assert not panels[0].any()
    truth, right, wrong = (np.ptp(np.flatnonzero(each.any(1))) for each in panels[1:])  # heights
    assert truth == pytest.approx(right, abs=2)
    assert wrong == pytest.approx(right / 4, abs=4)  # of 8 rows of voxels 2 are left


def test_the_page_is_made_again_without_images_and_predictions(tmp_path: Path) -> None:
    measure_runs(runs(tmp_path, {"a": 0, EVIL: 2}), tmp_path / "out")
    quick = Settings(resamples=100)
    page = report.write(tmp_path / "out", "a", quick).read_text(encoding="utf-8")
    alts = re.findall(r'<img class="png" src="data:image/png;base64,[^"]+" alt="([^"]+)">', page)
    assert len(alts) == 4
    assert "&lt;b&gt;$a$ &amp;" in alts[0]
    assert "There are no pictures" not in page
    for k in range(2):
        shutil.rmtree(tmp_path / str(k))
    shutil.rmtree(tmp_path / "Dataset001_X")
    assert report.write(tmp_path / "out", "a", quick).read_text(encoding="utf-8") == page
    source = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert all(
        f"figures/overlay_{i}.png" in source and (tmp_path / "out" / f"figures/overlay_{i}.png").is_file()
        for i in range(4)
    )


def test_of_many_arms_the_lowest_and_the_highest(tmp_path: Path) -> None:
    arms = {f"arm{i}": 0 if i < 5 else i - 4 for i in range(8)}
    measure_runs(runs(tmp_path, arms), tmp_path / "out")
    first = overlays.read(tmp_path / "out")[0]
    assert re.findall(r"arm\d", first.alt) == ["arm7", "arm6", "arm5", "arm2", "arm3", "arm4"]
    assert "the lowest and the highest of 8 arms" in first.caption


def test_without_images(tmp_path: Path) -> None:
    sources = runs(tmp_path, {"a": 0, "b": 1}, images=False)
    assert sources[0].images is None
    measure_runs(sources, tmp_path / "out")
    assert overlays.read(tmp_path / "out")[0].alt.startswith("Reference and predictions of case_5")


def test_images_of_another_grid_are_not_shown(tmp_path: Path) -> None:
    a, b = runs(tmp_path, {"a": 0, "b": 1})
    store(tmp_path / "Dataset001_X" / "imagesTr" / "case_5_0000.nii.gz", np.ones((3, 3, 3), np.float32))
    assert not overlays.cut({"a": a, "b": b}, "case_5").seen


def test_2d_images(tmp_path: Path) -> None:
    labels, images = tmp_path / "labels", tmp_path / "pictures"
    for i, case in enumerate(CASES):
        for folder, array in (
            (labels, reference()[:, 2]), (tmp_path / "a", reference()[:, 2]), (tmp_path / "b", predicted(i, 1)[:, 2]),
            (images, 50 * reference()[:, 2]),
        ):  # fmt: skip
            folder.mkdir(exist_ok=True)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(folder / f"{case}.png"))
    (labels / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".png"}))
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    a, b = find(folders, labels, images)
    found = overlays.cut({"a": a, "b": b}, "case_2")
    assert (found.place, found.seen, found.metric) == ("", True, False)
    assert found.case.predictions["b"].shape == found.case.reference.shape
    with pytest.raises(SourceError, match="none is not a folder"):
        find(folders, labels, tmp_path / "none")
    result = CliRunner().invoke(
        app,
        [
            "compare",
            "existing",
            *folders,
            "--labels",
            str(labels),
            "--images",
            str(images),
            "-o",
            str(tmp_path / "out"),
        ],
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert "Image, reference and predictions of case_5, outlined" in (tmp_path / "out" / "report.html").read_text(
        "utf-8"
    )


def test_pictures_of_earlier_tables_go(tmp_path: Path) -> None:
    sources = runs(tmp_path, {"a": 0, "b": 1})
    measure_runs(sources, tmp_path / "out")
    measure_runs(sources[:1], tmp_path / "out")
    assert overlays.read(tmp_path / "out") == []


def test_an_index_that_is_none(tmp_path: Path) -> None:
    measure_runs(runs(tmp_path, {"a": 0, "b": 1}), tmp_path / "out")
    (tmp_path / "out" / "overlays" / "overlay_1.png").unlink()
    with pytest.raises(TableError, match="does not hold the pictures of the cases"):
        overlays.read(tmp_path / "out")
