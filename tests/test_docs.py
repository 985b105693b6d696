"""The documentation is in step with the registry, and its examples run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import monai_segloss
from monai_segloss.differences import DIFFERENCES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = generator().pages()


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_generated_pages_are_current(path: Path) -> None:
    assert (DOCS / path).read_text(encoding="utf-8") == PAGES[path], "run python docs/generate.py"


def test_the_examples_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) > 1
    exec(compile("\n".join(blocks), "README.md", "exec"), {})
    assert "dice" in capsys.readouterr().out


def test_no_page_of_a_loss_that_is_gone() -> None:
    assert {f.relative_to(DOCS) for f in DOCS.glob("losses/*.md")} == {p for p in PAGES if p.parent == Path("losses")}


def test_every_difference_names_a_loss_and_is_tested() -> None:
    keys = {info.key for info in monai_segloss.list_losses()}
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py") if path.name != __file__
    )
    for difference in DIFFERENCES:
        assert difference.key == "*" or difference.key in keys
        assert f'"{difference.name}"' in tests, f"no test carries the name of the difference {difference.name!r}"


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *DOCS.rglob("*.md")]), ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in link and not link.startswith("mailto:"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
