"""What tox environments of versions record, and the table of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from test_docs import GENERATE
from tested_with import FILE, passed, record

ENVIRONMENT = re.compile(r"py3\d\d-(lowest|newest)")


def report(file: Path, **counts: int) -> Path:
    numbers = " ".join(f'{name}="{value}"' for name, value in counts.items())
    file.write_text(f"<testsuites><testsuite {numbers}/></testsuites>")
    return file


def test_only_what_passed_is_recorded(tmp_path: Path) -> None:
    good = report(tmp_path / "a.xml", tests=5, skipped=2, failures=0, errors=0)
    more = report(tmp_path / "b.xml", tests=4, skipped=0, failures=0, errors=0)
    assert passed([good, more]) == 7
    for wrong in ({"failures": 1}, {"errors": 1}, {"tests": 2}):
        bad = report(tmp_path / "c.xml", **{"tests": 3, "skipped": 2, "failures": 0, "errors": 0, **wrong})
        with pytest.raises(SystemExit, match="nothing is recorded"):
            passed([bad])
    file = tmp_path / "tested.json"
    record("py311-newest", [good], file)
    record("py311-lowest", [good, more], file)
    found = json.loads(file.read_text())
    assert list(found) == ["py311-lowest", "py311-newest"]
    assert (found["py311-lowest"]["passed"], found["py311-newest"]["passed"]) == (7, 3)
    assert all(re.match(r"\d+\.\d+", found["py311-lowest"][name]) for name in ("python", "torch", "monai", "nnunetv2"))


def test_the_table_has_a_row_for_each_environment() -> None:
    """The page follows from the file; test_docs.py compares the page in git with it."""
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    assert all(ENVIRONMENT.fullmatch(name) for name in known)
    assert GENERATE.support_page().count("| `py3") == len(known)


def test_the_table_follows_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tested.json"
    record("py311-lowest", [report(tmp_path / "a.xml", tests=5, skipped=2, failures=0, errors=0)], file)
    monkeypatch.setattr(GENERATE, "TESTED", file)
    page = GENERATE.support_page()
    run = json.loads(file.read_text())["py311-lowest"]
    assert f"| `py311-lowest` | {run['python']} | {run['torch']} | {run['monai']} | {run['nnunetv2']} |" in page
    assert "None of them" not in page
    assert page.startswith("# Support")
    assert page.rstrip().endswith("There is no support for clinical use.")
