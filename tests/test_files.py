"""Atomic writes: whole or as before, and who still writes otherwise."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_segloss import files
from monai_segloss.files import atomic, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent


def a_file(part: Path, text: str) -> None:
    part.write_text(text)


def a_folder(part: Path, text: str) -> None:
    part.mkdir()
    (part / "content").write_text(text)


def killed(path: Path, write: Callable[[Path, str], None]) -> None:
    with atomic(path) as part:
        write(part, "half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("write", [a_file, a_folder])
def test_an_error_leaves_nothing(write: Callable[[Path, str], None], tmp_path: Path) -> None:
    path = tmp_path / "new" / "name"
    with pytest.raises(KeyboardInterrupt):
        killed(path, write)
    assert list(path.parent.iterdir()) == []
    with atomic(path) as part:
        write(part, "whole")
        assert not path.exists()
    assert [each.name for each in path.parent.iterdir()] == ["name"]


def test_the_file_of_before_stays_and_a_left_over_goes(tmp_path: Path) -> None:
    path = tmp_path / "name"
    write_text(path, "before")
    with pytest.raises(KeyboardInterrupt):
        killed(path, a_file)
    assert path.read_text() == "before"
    (tmp_path / f"name.{os.getpid()}.tmp").mkdir()  # of a killed process of this number
    write_json(path, {"a": 1})
    assert files.read_json(path) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["name"]


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="Not a directory"):
        write_text(tmp_path / "file" / "name", "text")


@pytest.mark.parametrize("package", ["monai_segloss", "nnunet_trainers"])
def test_one_place_renames_what_is_written(package: str) -> None:
    found = [path for path in (ROOT / package).rglob("*.py") if re.search(r"os\.(replace|rename)\(", path.read_text())]
    assert found == ([ROOT / "monai_segloss" / "files.py"] if package == "monai_segloss" else [])
