"""The files of the repository, as git knows them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

needed = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no git repository here"
)


def git(*arguments: str, folder: Path = ROOT) -> str:
    """Output of a git command."""
    as_anyone = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    trusted = ["-c", f"safe.directory={folder}"]
    done = subprocess.run(["git", *trusted, *as_anyone, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files() -> list[Path]:
    """Files that are in git or would be with ``git add .``, relative to the root."""
    listed = git("ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    return [Path(name) for name in listed if (ROOT / name).is_file()]


def copy(folder: Path) -> Path:
    """A copy with a history of one commit."""
    for path in files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    git("init", "--quiet", folder=folder)
    git("add", ".", folder=folder)
    git("commit", "--quiet", "--message", "copy", folder=folder)
    return folder
