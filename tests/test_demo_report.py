"""The report: whole, escaped, self-contained, honest about zeros."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_segloss.demo import figures, report
from monai_segloss.demo.dataset import read_dataset, read_volume
from monai_segloss.demo.generate import make_dataset
from monai_segloss.demo.measure import measure, to_json
from monai_segloss.demo.progress import Epoch
from monai_segloss.demo.settings import QUICK, Settings

EVIL = "<script>alert('x')</script>&\"'"
SETTINGS = Settings("focal_tversky", None, "cpu", 3, 7, 0.05, 0, 0, None, True)
PLAN = {"patch_size": [8, 16, 16], "batch_size": 2, "spacing": [5.0, 1.2, 1.2]}


def epochs(*last: float) -> list[Epoch]:
    return [Epoch(i, 0.9 - 0.1 * i, 0.9, tuple(i / 2 * v for v in last), 1.0) for i in range(3)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    make_dataset(folder, 0, QUICK)
    return folder


@pytest.fixture(scope="module")
def facts(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> report.ReportData:
    """A perfect training, and next to it one that predicts only the organ."""
    dataset, predicted, results = read_dataset(raw), tmp_path_factory.mktemp("predicted"), []
    for name in ("focal_tversky", "dice_ce"):
        folder = predicted / name
        shutil.copytree(raw / "labelsTs", folder)
        if name == "dice_ce":
            keep_organ(folder)
        scores = measure(dataset, dataset.tests, folder, 1.2)
        results.append(report.Result(f"nnUNetTrainer{name}", name, epochs(0.9, 0.5, 0.0), scores, folder))
    split = {"train": list(dataset.cases[1:]), "val": list(dataset.cases[:1])}
    times = {"data": (0.5, 1), "train": (125.0, 2)}
    cases = list(dataset.tests)
    return report.ReportData(SETTINGS, "segloss demo", dataset, None, split, cases, PLAN, 1.2, times, results)


@pytest.fixture(scope="module")
def page(facts: report.ReportData) -> str:
    """The report of these facts, which takes a second to draw."""
    return report.render(facts)


def keep_organ(folder: Path) -> None:
    import nibabel

    for path in folder.iterdir():
        image = nibabel.load(path)
        array = np.asarray(image.dataobj)
        nibabel.save(nibabel.Nifti1Image(np.where(array == 1, array, 0).astype(np.uint8), image.affine), path)


class Checker(html.parser.HTMLParser):
    """Collects what a page refers to and whether its tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def test_the_page_is_whole_and_refers_to_nothing_outside(page: str) -> None:
    checker = check(page)
    assert len(checker.references) == 4
    assert all(each.startswith("data:image/") for each in checker.references)
    assert not checker.tags & {"script", "link", "iframe"}
    assert "url(" not in page


def test_the_page_says_what_was_run(facts: report.ReportData, page: str) -> None:
    for text in ("segloss demo", "nnUNetTrainerfocal_tversky", "2 min 05 s", "(2 attempts)", "torch", "batch 2"):
        assert text in page
    assert "repeat over seeds and folds" in page
    alone = report.render(dataclasses.replace(facts, results=facts.results[:1]))
    assert "repeat over seeds and folds" not in alone


def test_everything_from_outside_is_escaped(facts: report.ReportData, raw: Path) -> None:
    labels = {"background": 0, EVIL: 1, "vessel": 2, "lesion": 3}
    dataset = dataclasses.replace(facts.dataset, content={**facts.dataset.content, "labels": labels})
    scores = measure(dataset, facts.cases, facts.results[1].predictions, 1.2)
    results = [dataclasses.replace(each, scores=scores, trainer=EVIL) for each in facts.results]
    evil = dataclasses.replace(
        facts, command=f"segloss demo --out {EVIL}", dataset=dataset, source=Path(EVIL), results=results
    )
    page = report.render(evil)
    assert "script" not in check(page).tags
    assert "alert(" in page
    assert EVIL not in page


def test_a_class_that_stays_at_zero_is_explained(page: str) -> None:
    notes = re.findall(r'<p class="note">(.*?)</p>', page, re.S)
    assert len(notes) == 2
    for name, note in zip(("vessel", "lesion"), notes, strict=True):
        assert note.startswith(f"Class {name} stays at zero with dice_ce: it was predicted nowhere.")
        assert "21 iterations were not enough" in note
    assert "validation patches was 0.00 after the last epoch" in notes[1]


def test_a_class_that_is_nowhere_is_explained(facts: report.ReportData) -> None:
    labels = {**facts.dataset.content["labels"], "cyst": 4}
    dataset = dataclasses.replace(facts.dataset, content={**facts.dataset.content, "labels": labels})
    scores = measure(dataset, facts.cases, facts.results[0].predictions, 1.2)
    results = [dataclasses.replace(facts.results[0], scores=scores)]
    page = report.render(dataclasses.replace(facts, dataset=dataset, results=results))
    assert "Class cyst is in none of the 3 evaluated cases" in page
    assert json.dumps(to_json(scores), allow_nan=False)
    assert scores["test_000"]["cyst"].reference_voxels == 0


def test_pictures_show_image_reference_and_every_prediction(page: str) -> None:
    for encoded in re.findall(r"data:image/png;base64,([^\"]+)", page):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")).astype(int)
        quarters = np.array_split(picture[:, : picture.shape[1] // 4 * 4], 4, axis=1)
        colorful = [(part.max(-1) - part.min(-1) > 60).sum() for part in quarters]
        # Gray image, outlines of three classes, of three, of the organ only.
        assert colorful[0] == 0
        assert colorful[1] > colorful[3] > 100
        assert colorful[2] > colorful[3]


def test_the_best_slice_shows_the_small_class() -> None:
    labels = np.zeros((10, 8, 8), int)
    labels[2:9, 1:7, 1:7] = 1
    labels[7, 3:5, 3:5] = 2
    assert figures.best_slice(labels, [[1], [2]], axis=0) == 7
    assert figures.best_slice(np.zeros((10, 8, 8), int), [[1]], axis=0) == 5


def test_window_is_taken_where_the_labels_are(raw: Path) -> None:
    dataset = read_dataset(raw)
    image, spacing = read_volume(dataset.images("case_000")[0])
    reference, _ = read_volume(dataset.label("case_000"))
    image = image.copy()
    image[0, 0, 0] = 30000
    black, white = figures.window(figures.Case(image, reference, {}, spacing))
    assert -300 < black < 0
    assert 250 < white < 500


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (27.4, "27 s"), (59.6, "1 min 00 s"), (65.2, "1 min 05 s"), (600, "10 min 00 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_no_figure_is_a_dash() -> None:
    assert report.number(math.nan) == "\N{EN DASH}"
    assert report.number(0.876) == "0.88"
