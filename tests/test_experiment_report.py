"""The report of a comparison: whole, escaped, self-contained, the same bytes for the same tables."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import json
import re
import xml.etree.ElementTree
from pathlib import Path

import browser
import markdown_it
import pandas as pd
import pytest
from comparison_tables import ARMS, SEEDS, rows, whole
from PIL import Image
from typer.testing import CliRunner

from monai_segloss.cli import app
from monai_segloss.experiment.cells import DASH, Shown, Table, listed, markdown, number, plain, quoted
from monai_segloss.experiment.cells import html as page_of
from monai_segloss.experiment.report import write
from monai_segloss.experiment.statistics import Settings
from monai_segloss.experiment.tables import HALF, MEAN, Tables

QUICK = Settings(resamples=200)
SECTIONS = (
    "differences", "ranks", "classes", "sizes", "points", "calibration", "curves", "cost", "disagreement", "failures",
    "design", "methods", "downloads",
)  # fmt: skip
EVIL = "<script>alert('x')</script>&\"'`$a$ | *b*"


class Page(html.parser.HTMLParser):
    """What a page holds, and whether its tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if "id" in found:
            self.ids.append(str(found["id"]))
        if tag == "img":
            self.images.append(found)
        self.links += [value or "" for name, value in attrs if name in ("href", "src") and tag != "img"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.cells).split())


def made(folder: Path, tables: Tables, baseline: str | None = None, settings: Settings = QUICK) -> Page:
    tables.write(folder / "tables")
    assert write(folder, baseline, settings) == folder / "report.html"
    return check(folder)


def check(folder: Path) -> Page:
    """What holds of every report."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert tuple(page.ids) == SECTIONS
    assert not {"script", "iframe", "object"} & set(page.tags)
    assert "url(" not in text
    assert "http" not in "".join(page.links)
    for link in page.links:
        place = link.removeprefix("#")
        assert link == "data:," or place in page.ids or (folder / link).is_file(), link
    for image in page.images:
        assert len(str(image["alt"])) > 20
        kind, _, code = str(image["src"]).partition(";base64,")
        content = base64.b64decode(code)
        if kind == "data:image/png":
            assert content.startswith(b"\x89PNG")
        else:
            assert kind == "data:image/svg+xml"
            xml.etree.ElementTree.fromstring(content)
    figures = sorted((folder / "figures").iterdir())
    assert len(figures) == len(page.images)
    source = (folder / "report.md").read_text(encoding="utf-8")
    assert all(f"figures/{file.name}" in source for file in figures)
    assert not re.search(r"\bnan\b", re.sub(r'src="[^"]*"', "", text), re.IGNORECASE)
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of everything."""
    folder = tmp_path_factory.mktemp("comparison")
    whole(ARMS, SEEDS).write(folder / "tables")
    options = {"tolerance": 2.0, "sizes": [50.0], "tubes": False, "bins": 10}
    (folder / "tables" / "options.json").write_text(json.dumps(options))
    write(folder, settings=QUICK)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return check(folder)


def test_three_sentences_come_first(page: Page) -> None:
    start = page.text[: page.text.index("Differences to the baseline")]
    assert re.search(r"In Dice, compared with dice_ce , better is tversky \(\+0\.05\d, interval \+0\.0\d+ to", start)
    assert "With own thresholds the verdict is the same for 1 of 1." in start
    assert re.search(r"Within the noise of the seed \(at most ±0\.\d+ Dice\) is boundary", start)
    assert "The comparison says nothing about other data" in start


def test_every_part_has_its_figures(folder: Path) -> None:
    assert {file.stem for file in (folder / "figures").iterdir()} == {
        "forest_dice", "forest_hd95", "rank_dice", "rank_hd95", "distribution_0", "distribution_1", "recall_0",
        "recall_1", "points", "reliability_0", "reliability_1", "curve_dice", "curve_train_loss",
    }  # fmt: skip


def test_what_the_parts_say(page: Page) -> None:
    for text in ("under 50 mm³", "from 50 mm³", "median threshold", "0.40", "Kendall's tau", "3.50", "All 16 runs finished.",
                 "All runs have the same first weights in each fold and seed", "0 of 96", "ECE", "lowest arm",
                 "Too few patients for a comparison by size"):  # fmt: skip
        assert text in page.text, text
    alts = " ".join(str(image["alt"]) for image in page.images)
    assert re.search(r"Differences in Dice to dice_ce: tversky \+0\.05\d \(.*\), better", alts)


def test_the_numbers_are_those_of_the_analysis(folder: Path, page: Page) -> None:
    found = pd.read_csv(folder / "comparisons.csv", keep_default_na=False)
    row = found[(found["measure"] == "dice") & (found["label"] == MEAN) & (found["point"] == HALF)]
    row = row[row["arm"] == "tversky"].iloc[0]
    for name in ("mean", "difference", "noise"):
        assert plain(row[name], 3, name == "difference") in page.cells
    assert f"{row['low']:+.3f} to {row['high']:+.3f}" in page.cells
    assert row["verdict"] == "better"


def test_methods_and_limits_for_a_paper(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    for part in ("12 measured images of 12 patients", "`organ` and `lesion`", "2 folds (0, 1) were held out",
                 "with 4 seeds, the others with 2",
                 "Salehi et al., Tversky loss", "tolerance of the surface Dice is 2 mm", "diagonal of the image", "Holm",
                 "interval of 95 % (200 resamples", "To be stated by the authors", "not over the 2 measures",
                 "| arm | mean | difference |"):  # fmt: skip
        assert part in " ".join(text.split()), part
    headings = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert headings[:5] == ["Data", "Patients, folds and seeds", "Models and losses", "Operating points", "Measures"]


def test_the_same_tables_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    whole(ARMS, SEEDS).write(tmp_path / "tables")
    (tmp_path / "tables" / "options.json").write_bytes((folder / "tables" / "options.json").read_bytes())
    write(tmp_path, settings=QUICK)
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and file.parent.name != "tables"]
    assert len(files) == 16
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_one_arm_failed_entirely(tmp_path: Path) -> None:
    runs, cases = rows(ARMS, SEEDS, (HALF,))
    for run in runs:
        run["state"] = "failed" if run["arm"] == "boundary" else "done"
    page = made(tmp_path, Tables.of(runs, [each for each in cases if not each["run"].startswith("boundary")]))
    assert "4 of 16 runs failed: boundary_seed0_fold0" in page.text
    assert "There are no values to compare of boundary" in page.text
    assert "no values that could be compared" in page.text
    assert "no run finished" in page.text


def test_the_baseline_failed_entirely(tmp_path: Path) -> None:
    runs, cases = rows(ARMS, SEEDS)
    page = made(tmp_path, Tables.of(runs, [each for each in cases if not each["run"].startswith("dice_ce")]))
    assert "No arm could be compared with dice_ce : the baseline has no measured case." in page.text
    assert "There is no comparison to show." in page.text


def test_nothing_was_measured(tmp_path: Path) -> None:
    runs, _ = rows(ARMS, SEEDS)
    page = made(tmp_path, Tables.of([{**run, "state": "failed"} for run in runs]))
    assert "16 of 16 runs failed" in page.text
    assert "No case was measured." in page.text


def test_without_probabilities_bins_and_curves(tmp_path: Path) -> None:
    runs, cases = rows(ARMS, dict.fromkeys(ARMS, 1), (HALF,))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "points.svg").write_text("of an earlier report")
    page = made(tmp_path, Tables.of(runs, cases))
    for text in ("No run has probabilities, so that all arms", "nnU-Net keeps those",
                 "The runs left no learning curves.", "No size classes were measured",
                 "is not known, since the baseline has one seed",
                 "the baseline has one seed", "volumes were not recorded", "no learning curve",
                 "Whether all arms have the same first weights was not recorded."):  # fmt: skip
        assert text in page.text, text


@pytest.mark.slow
def test_one_class(tmp_path: Path) -> None:
    tables = whole(ARMS, SEEDS)
    tables = dataclasses.replace(
        tables,
        cases=tables.cases[tables.cases["label"] != "lesion"],
        bins=tables.bins[tables.bins["label"] != "lesion"],
    )
    made(tmp_path, tables)
    assert not (tmp_path / "figures" / "distribution_1.svg").exists()


@pytest.mark.slow
def test_equivalence_and_runs_that_are_not_matched(tmp_path: Path) -> None:
    tables = whole(ARMS, SEEDS)
    tables.runs.loc[0, "weights_hash"] = "other"
    page = made(tmp_path, tables, settings=Settings(margin=0.03, resamples=200))
    assert "equivalent within ±0.03 is boundary" in page.text
    assert "The runs do not have the same first weights" in page.text
    assert "interval of 90 % lies within ±0.03" in page.text


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    arms = {"dice_ce": 0.0, EVIL: 0.06}
    tables = whole(arms)
    for frame in (tables.cases, tables.bins):
        frame["label"] = frame["label"].replace("organ", EVIL)
    tables.runs["dataset"] = EVIL
    made(tmp_path, tables, "dice_ce")
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    source = (tmp_path / "report.md").read_text(encoding="utf-8")
    rendered = markdown_it.MarkdownIt("commonmark").enable("table").render(source)
    assert "<script" not in rendered
    assert "alert(" in rendered
    assert rendered.count("<table>") == source.count("\n| ---")


@pytest.mark.slow
def test_forty_arms_with_long_names(tmp_path: Path) -> None:
    arms = {f"{'a long name ' * 12}{i}": 0.001 * i for i in range(40)}
    page = made(tmp_path, whole(arms), settings=Settings(resamples=100))
    assert "39 arms against" in page.text
    assert "and 31 more, which the tables hold" in str(page.images[0]["alt"])
    assert "32 others" not in page.text  # it stands in a figure


def test_a_dash_has_its_reason() -> None:
    table = Table("t", ("a", "b"), [[Shown("x"), number(float("nan"), reason="because")], [Shown("y"), number(1.0)]])
    assert table.rows[0][1].text == DASH
    assert table.reasons == ["because"]
    assert (plain(-0.0001, 3, True), plain(0.01, 3, True), plain(-0.01)) == ("0.000", "+0.010", "-0.010")


def test_sentences_with_names() -> None:
    assert listed(["a", "b", "c"]) == "`a`, `b` and `c`"
    assert listed(["a"] * 9, 2) == "`a`, `a` and 7 more"
    assert quoted("a`b\nc") == "`a'b c`"
    assert page_of("x < `<b>`") == "x &lt; <code>&lt;b&gt;</code>"
    assert markdown("<b> *x* `*y*`") == r"\<b\> \*x\* `*y*`"


def command(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", "report", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def test_the_command(tmp_path: Path) -> None:
    Tables.of(*rows(ARMS, SEEDS)).write(tmp_path / "tables")
    code, text = command(tmp_path, "--baseline", "boundary", "--margin", "0.02")
    assert code == 0, text
    assert f"report: {tmp_path / 'report.html'}" in text
    assert "2 arms against boundary on D" in check(tmp_path).text


def test_options_that_are_none(folder: Path, tmp_path: Path) -> None:
    Tables.of(*rows(ARMS, SEEDS)).write(tmp_path / "tables")
    for content in ("{", '{"sizes": [], "colour": 1}', "{}"):
        (tmp_path / "tables" / "options.json").write_text(content)
        code, text = command(tmp_path)
        assert code == 2
        assert "options.json" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "is missing; it is written by"),
        (["{folder}", "--baseline", "x"], "no arm is called 'x'; there are dice_ce, tversky"),
        (["{folder}", "--margin", "-1"], "Margin must be at least 0"),
    ],
)
def test_what_a_user_gets_wrong(folder: Path, arguments: list[str], message: str) -> None:
    code, text = command(*(each.format(folder=folder) for each in arguments))
    assert code == 2
    assert message in text
    assert "Traceback" not in text


@pytest.mark.slow
@browser.needed
def test_in_a_browser(folder: Path, tmp_path: Path) -> None:
    long = tmp_path / "long"
    arms = {"dice_ce": 0.0, "x" * 200: 0.01, "a long name " * 20: 0.02}
    tables = whole(arms)
    for frame in (tables.cases, tables.bins):
        frame["label"] = frame["label"].replace("organ", "o" * 90)
    (long / "overlays").mkdir(parents=True)
    Image.new("RGB", (630, 800)).save(long / "overlays" / "overlay_0.png")
    words = {"alt": "Image, reference and predictions of a case, outlined", "caption": f"`{'c' * 90}`"}
    (long / "overlays" / "overlays.json").write_text(json.dumps([{"file": "overlay_0.png", **words}]))
    made(long, tables)
    with browser.browser(tmp_path) as chromium:
        for each in (folder, long):
            backgrounds = set()
            for width, dark in ((400, False), (400, True), (1600, False)):
                chromium.show(each / "report.html", width, dark)
                assert chromium.value("window.innerWidth") == width
                assert chromium.value("document.documentElement.scrollWidth") <= width
                assert chromium.value("[...document.images].filter(image => !image.naturalWidth).length") == 0
                assert chromium.value("document.images.length") >= 13
                drawn, slices = "document.querySelector('img.svg')", "document.querySelectorAll('img.png')"
                assert chromium.value(f"getComputedStyle({drawn}).filter !== 'none'") == dark
                widths = chromium.value(f"[...{slices}].map(image => image.width)")
                assert len(widths) == (each == long)
                assert all(280 <= width <= 500 for width in widths)
                assert chromium.value(f"[...{slices}].every(image => getComputedStyle(image).filter === 'none')")
                backgrounds.add(chromium.value("getComputedStyle(document.body).backgroundColor"))
            assert len(backgrounds) == 2  # light and dark
            loaded = "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
            assert chromium.value(loaded) == 0
            assert len(chromium.command("Page.printToPDF")["data"]) > 10_000
            assert chromium.console() == []
