"""The documentation is in step with the registry, and its examples run."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest
import repository

import monai_segloss
from monai_segloss import LossInfo
from monai_segloss.differences import DIFFERENCES
from monai_segloss.recipes import RECIPES
from nnunet_trainers import naming

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LOSSES = monai_segloss.list_losses()
DRAWN = list({info.family: info for info in LOSSES}.values())
"""One loss of each family."""


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = generator()
SOURCES: list[Path] = GENERATE.sources()
MARKDOWN = [path for path in SOURCES if path.suffix == ".md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as it is built, without figures."""
    out = tmp_path_factory.mktemp("docs")
    GENERATE.build(out, figures=())
    return out


@pytest.mark.parametrize("name", GENERATE.TRACKED)
def test_generated_pages_in_git_are_current(name: str) -> None:
    assert name not in GENERATE.stale(), "run python docs/generate.py --write"


def test_a_row_of_the_table_may_wait_for_a_release_but_not_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GENERATE.TRACKED:
        (tmp_path / name).write_text((DOCS / name).read_text(encoding="utf-8"), encoding="utf-8")
    changes, table = tmp_path / "CHANGELOG.md", tmp_path / "losses.md"
    rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    monkeypatch.setattr(GENERATE, "ROOT", tmp_path)
    monkeypatch.setattr(GENERATE, "DOCS", tmp_path)
    changes.write_text("# Changelog\n\n## Unreleased\n")
    table.write_text("".join(row for row in rows if "| [tversky](" not in row), encoding="utf-8")
    assert (GENERATE.waiting(), GENERATE.stale()) == (["tversky"], [])
    changes.write_text("# Changelog\n\n## 0.2.0\n\n## Unreleased\n")
    assert (GENERATE.waiting(), GENERATE.stale()) == ([], ["losses.md"])
    table.write_text("".join(rows), encoding="utf-8")
    assert GENERATE.stale() == []
    changes.write_text("# Changelog\n\n## Unreleased\n")
    table.write_text("".join([*rows, rows[-1].replace("weighted_hausdorff", "gone")]), encoding="utf-8")
    assert GENERATE.stale() == ["losses.md"]


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_the_page_of_a_loss(info: LossInfo, site: Path) -> None:
    text = (site / "docs" / "losses" / f"{info.key}.md").read_text(encoding="utf-8")
    text = re.sub(r"\[([^][]+)\]\(https?://[^)]*\)", r"\1", text)  # numbers of papers without their links
    exempt = map(str, info.exempt.values())
    words = map(GENERATE.markdown, (info.summary, info.when))
    for part in (*words, info.formula, info.paper, *info.surfaces().values(), *exempt):
        assert part in text
    assert all(f"| `{name}` |" in text for name in info.parameters)
    assert all(difference.ours in text for difference in DIFFERENCES if difference.key == info.key)
    assert GENERATE.ALONE.get(info.key, "") in text
    assert f"| [{info.key}](losses/{info.key}.md) |" in (site / "docs" / "losses.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("info", DRAWN, ids=lambda info: info.key)
def test_the_figure_of_a_loss(info: LossInfo) -> None:
    figure = ET.fromstring(GENERATE.figure(info))
    lines = [each for each in figure.iter("{http://www.w3.org/2000/svg}path") if each.get("d", "").count("L") > 5]
    assert len(lines) >= 4  # value and gradient, against probability and overlap
    assert "norm of the gradient" in "".join(figure.itertext())


def test_tables_of_the_built_pages_link_to_the_losses(site: Path) -> None:
    for page, link in (
        ("docs/benchmarks.md", "| [dice](losses/dice.md) |"),
        ("docs/differences.md", "| [dice](losses/dice.md) |"),
        ("docs/how-to/bundle.md", "| [dice_ce](../losses/dice_ce.md) |"),
    ):
        assert link in (site / page).read_text(encoding="utf-8"), page


def test_every_example_is_on_the_page(site: Path) -> None:
    text = (site / "examples" / "index.md").read_text(encoding="utf-8")
    files = [path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")]
    assert {path.stem for path in files} == set(GENERATE.EXAMPLES)
    assert all(f'??? example "examples/{path.name}"' in text for path in files)
    assert text.count("\n    ```python\n") > len(files)  # the notebook has several
    assert "\n    def make_case(" in text
    assert "#### A small training" in text


def test_every_public_name_has_an_entry(site: Path) -> None:
    folders = [path.parent for path in (ROOT / "monai_segloss").glob("*/__init__.py")]
    listed = {f"monai_segloss.{each.name}" for each in folders if "__all__ = [" in (each / "__init__.py").read_text()}
    assert listed - {"monai_segloss.losses"} <= set(GENERATE.REFERENCE)  # losses have pages of their own
    for name, source in GENERATE.REFERENCE.items():
        text = (site / "docs" / "reference" / f"{name.rpartition('.')[2]}.md").read_text(encoding="utf-8")
        module = importlib.import_module(source)
        for each in GENERATE.public_names(module):
            assert f"::: {source}.{each}\n" in text
    assert "::: monai_segloss._public.WeightedSum" in (site / "docs" / "reference" / "monai_segloss.md").read_text()
    assert "## `segloss doctor`" in (site / "docs" / "reference" / "commands.md").read_text()


@pytest.mark.parametrize("page", ["choosing.md", "faq.md", "how-to/fine-tuning.md", "how-to/migration.md"])
def test_losses_and_trainers_that_pages_name_are_there(page: str) -> None:
    """Trainers, arguments of --loss, keys in backticks; of the tables of migration the second column, which is ours."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if page.endswith("migration.md"):
        text = text.partition("## From a trainer")[0]
        text = "\n".join(line.split("|")[2] for line in text.splitlines() if line.startswith("| `nnUNetTrainer"))
    names = set(re.findall(r"\bnnUNetTrainer[A-Z]\w*?(?=__|\b)", text))
    assert names or page == "faq.md"
    for name in names:
        stem = name.removeprefix("nnUNetTrainer").partition("_")[0]
        parameters = naming.numeric_parameters(monai_segloss.find(stem).cls)
        assert naming.encode(naming.decode(name, parameters), parameters) == name
    for key in re.findall(r"--loss (\w+)", text):
        assert key in RECIPES or monai_segloss.find(key).key == key
    if page == "choosing.md":
        options = {"alpha", "beta", "partial"}
        for key in set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)*)`", text)) - options - set(RECIPES):
            assert monai_segloss.find(key).key == key


@pytest.mark.parametrize("key", ["dice", "boundary"])
def test_edge_cases_are_computed(key: str) -> None:
    """Dice of a class without a voxel is 1 but for the smoothing; the boundary loss has no gradient there."""
    text = GENERATE.edge_cases(monai_segloss.find(key))
    assert ("(no gradient) where in 5 %" in text) == (key == "boundary")
    assert "every voxel is ignored: 0 (no gradient)" in text


def test_what_was_measured_is_on_the_page_of_its_loss() -> None:
    table = (DOCS / "comparison.md").read_text(encoding="utf-8")
    found = [info.key for info in monai_segloss.list_losses() if f"| `{info.key}` |" in table]
    assert len(found) > 4
    for key in found:
        text = "\n".join(GENERATE.measured(key))
        assert text.count("\n| ") == 2 + table.count(f"| `{key}` |")
        assert "(../comparison.md)" in text
    assert "no gradient" in "\n".join(GENERATE.measured("boundary"))
    assert GENERATE.measured("overlap_of_nothing") == []


def test_the_command_builds_and_checks(tmp_path: Path) -> None:
    program = [sys.executable, str(DOCS / "generate.py")]
    subprocess.run([*program, str(tmp_path / "site"), "--only", "dice"], check=True)
    assert [path.name for path in (tmp_path / "site" / "docs" / "images" / "losses").iterdir()] == ["dice.svg"]
    subprocess.run([*program, "--check"], check=True)


def test_the_examples_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) > 1
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    assert "dice" in capsys.readouterr().out


def links(page: Path) -> list[str]:
    """Relative links of a page, code aside."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


@repository.needed
@pytest.mark.parametrize("page", MARKDOWN, ids=str)
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    """Not to what a build left here."""
    known = set(repository.files())
    known |= {folder for path in known for folder in path.parents}
    for link in links(ROOT / page):
        target = (ROOT / page.parent / link).resolve().relative_to(ROOT)
        assert target in known, f"{page} links to {link}"


def test_links_of_the_built_pages_lead_somewhere(site: Path) -> None:
    figures = {site / "docs" / "images" / "losses" / f"{info.key}.svg" for info in LOSSES}
    for page in site.rglob("*.md"):
        for link in links(page):
            target = (page.parent / link).resolve()
            assert target.exists() or target in figures, f"{page.relative_to(site)} links to {link}"
