"""Atomic writes: a file or folder is there as a whole, or as it was before."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Another name in the same folder, for a file or a new folder that gets its own name once it is written.

    An error removes what was written; a killed process leaves ``<name>.<process>.tmp``.

    Example:
        >>> import tempfile
        >>> from monai_segloss.files import atomic
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic(Path(folder) / "notes.txt") as part:
        ...         _ = part.write_text("whole")
        ...     [each.name for each in Path(folder).iterdir()]
        ['notes.txt']
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from None
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    _remove(part)  # of an earlier process of that number
    try:
        yield part
        if part.is_file():
            with open(part, "rb+") as stream:
                os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        _remove(part)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, indent: int = 2) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: the file is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
