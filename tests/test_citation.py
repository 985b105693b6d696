"""What is printed to cite a loss, and that the files about this package agree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import monai_segloss
from monai_segloss.cli import app
from monai_segloss.core.citation import PACKAGE, bibtex, package_bibtex
from monai_segloss.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {info.key: (info.paper, "") for info in monai_segloss.list_losses()}
SOURCES |= {key: (recipe.paper, recipe.doi) for key, recipe in RECIPES.items()}


def fields(entry: str) -> dict[str, str]:
    return dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.MULTILINE))


UNTITLED = ("log_hausdorff_dt", "convexity")
"""Whose docstrings name an article without its title."""


@pytest.mark.parametrize("key", SOURCES)
def test_every_source_becomes_bibtex(key: str) -> None:
    paper, number = SOURCES[key]
    entries = bibtex(paper, number)
    if paper == "No paper was found that has it":
        assert not entries
        return
    names = [entry.partition("{")[2].partition(",")[0] for entry in entries]
    assert len(set(names)) == len(names)
    for i, entry in enumerate(entries):
        found = fields(entry)
        assert entry.count("{") == entry.count("}")
        assert found.keys() >= {"year", "note"}
        assert found.keys() & {"title", "howpublished", "eprint"}
        assert i or found.keys() >= {"author", "title"} or key in UNTITLED
    notes = "; ".join(fields(entry)["note"].replace("\\", "") for entry in entries)
    assert notes == paper  # nothing is lost
    numbers = {value for entry in entries for name, value in fields(entry).items() if name in ("doi", "eprint")}
    assert {
        n.partition(":")[2] for n in re.findall(r"(?:arXiv|doi):[^\s;,)]+[^\s;,.)]", f"{paper} {number}")
    } == numbers


def test_a_reference_in_all_its_parts() -> None:
    (entry,) = bibtex(
        "Karimi & Al Arif, Distance & depth, with CNNs, IEEE TMI 39(2), 2020, doi:10.1109/a_b (section 2)"
    )
    assert fields(entry) == {
        "author": "Karimi and {Al Arif}",
        "title": r"{Distance \& depth}",
        "howpublished": "with CNNs, IEEE TMI 39(2)",
        "year": "2020",
        "doi": "10.1109/a_b",
        "note": r"Karimi \& Al Arif, Distance \& depth, with CNNs, IEEE TMI 39(2), 2020, doi:10.1109/a\_b (section 2)",
    }


def test_the_command() -> None:
    run = CliRunner().invoke
    assert run(app, ["cite"]).output == f"{package_bibtex()}\n"
    found = run(app, ["cite", "lovasz_softmax"]).output
    assert found.startswith("@misc{berman2018,")
    assert found.endswith(f"\n\n{package_bibtex()}\n")
    assert "@misc{shi2021" in run(app, ["cite", "shi_marginal_exclusion"]).output
    wrong = run(app, ["cite", "tverski"])
    assert wrong.exit_code == 2
    assert "tversky" in wrong.output


def test_the_files_about_this_package_agree() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert cff["version"] == zenodo["version"] == monai_segloss.__version__
    assert cff["title"] == zenodo["title"] == PACKAGE["title"].replace("{", "").replace("}", "")
    assert cff["license"] == zenodo["license"] == "Apache-2.0"
    assert [each["name"] for each in cff["authors"]] == [each["name"] for each in zenodo["creators"]]
    assert PACKAGE["author"] == f"{{{cff['authors'][0]['name']}}}"
    assert cff["keywords"] == zenodo["keywords"]
