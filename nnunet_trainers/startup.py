"""One line in a ``.pth`` file, so that every Python of an environment tells nnU-Net where the trainers are."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from monai_segloss.files import write_text
from nnunet_trainers import VARIABLE, discovery_dir

LEAST = (2, 8)
"""The first nnU-Net whose trainers ours extend; it reads the variable."""
FILE = "segloss_nnunet.pth"
LINE = (
    "import importlib.util; importlib.util.find_spec('nnunet_trainers') "
    "and __import__('nnunet_trainers').extend_environment()\n"
)


def places() -> list[Path]:
    """Folders whose ``.pth`` files this interpreter reads, best first: that of the environment, then the user's."""
    user = [Path(site.getusersitepackages())] if site.ENABLE_USER_SITE else []
    return [Path(sysconfig.get_path("purelib")), *user]


def too_old() -> str | None:
    """The version of an installed nnU-Net that is older than `LEAST`."""
    try:
        found = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        return None
    numbers = tuple(int(each) for each in re.findall(r"\d+", found)[: len(LEAST)])
    return found if numbers < LEAST else None


def enable() -> Path:
    """Write the start-up line and return its file.

    Raises:
        OSError: no folder can be written, or a new interpreter does not act on the line.
    """
    reasons = []
    for place in places():
        target = place / FILE
        before = _content(target)
        try:
            if before != LINE:
                write_text(target, LINE)
        except OSError as error:
            reasons.append(f"{place} cannot be written ({error.strerror})")
            continue
        if discovery_dir() in seen_by_new_interpreter():
            return target
        if before != LINE:
            target.unlink()
        reasons.append(f"a new interpreter does not act on a file in {place}")
    raise OSError(" and ".join(reasons))


def _content(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def disable() -> list[Path]:
    """Remove the start-up line wherever `enable` may have written it and return the files removed.

    Raises:
        OSError: one of the files cannot be removed; the others are.
    """
    found = [place / FILE for place in places() if (place / FILE).is_file()]
    kept = []
    for each in found:
        try:
            each.unlink()
        except OSError as error:
            kept.append(f"{each} cannot be removed ({error.strerror})")
    if kept:
        raise OSError(" and ".join(kept))
    return found


def seen_by_new_interpreter() -> list[str]:
    """The folders in ``nnUNet_extTrainer`` of a new interpreter, less those that come from this environment."""
    environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
    program = f"import os; print(os.environ.get({VARIABLE!r}, ''))"
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip().split(os.pathsep)


def export_line() -> str:
    """The shell line that does the same for one shell, a container or a cluster job."""
    if os.name == "nt":
        return f"set {VARIABLE}=%{VARIABLE}%;{discovery_dir()}"
    return f'export {VARIABLE}="${{{VARIABLE}:+${VARIABLE}:}}"{shlex.quote(discovery_dir())}'
