"""What is in the built files: ``python tests/wheel_contents.py FOLDER`` after ``python -m build --outdir FOLDER``.

Run by ``tox run -e release``; needs git.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = (".py", ".json", ".typed", ".conf", ".j2", ".cpp", ".h", ".md")
"""Endings of files that the packages are made of."""


def expected() -> set[str]:
    """Files of the packages in the repository, as they must be in the wheel."""
    packages = [path for name in ("monai_segloss", "nnunet_trainers") for path in (ROOT / name).rglob("*")]
    found = {path.relative_to(ROOT).as_posix() for path in packages if path.suffix in DATA}
    bundles = (path for path in (ROOT / "bundles").rglob("*") if path.suffix in DATA)
    return found | {f"monai_segloss/{path.relative_to(ROOT).as_posix()}" for path in bundles}


def tracked() -> set[str]:
    """Files that git keeps, without the runner of continuous integration."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name and not name.startswith(".ci/")}


def problems(wheel: Path, sdist: Path) -> list[str]:
    """What is missing, and what does not belong there."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        commands = archive.read(entry).decode()
        about = archive.read(entry.replace("entry_points.txt", "WHEEL")).decode()
    found = [f"{wheel.name} lacks {name}" for name in sorted(expected() - names)]
    tops = {name.partition("/")[0] for name in names}
    strangers = {top for top in tops if top not in ("monai_segloss", "nnunet_trainers") and ".dist-info" not in top}
    found += [f"{wheel.name} has {top}" for top in sorted(strangers)]
    found += [f"{wheel.name} has {name}" for name in sorted(names) if "__pycache__" in name]
    found += [] if "segloss = monai_segloss.cli:main" in commands else [f"{wheel.name} has no command segloss"]
    found += [] if any(name.endswith("licenses/LICENSE") for name in names) else [f"{wheel.name} has no LICENSE"]
    found += [f"{wheel.name} has compiled kernels"] if any(name.endswith(".so") for name in names) else []
    pure = wheel.name.endswith("-py3-none-any.whl") and "Root-Is-Purelib: true" in about
    found += [] if pure else [f"{wheel.name} is not for all platforms"]
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    return found + [f"{sdist.name} lacks {name}" for name in sorted(tracked() - sources)]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (built,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    if wrong := problems(built, source):
        sys.exit("\n".join(wrong))
    print(f"{built.name} and {source.name} are complete.")
