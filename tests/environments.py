"""New virtual environments that see the packages of this one, with or without this project."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import nnunet_trainers
from nnunet_trainers import VARIABLE

BLOCK = """
import sys

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("monai_segloss", "nnunet_trainers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Gone())
"""


class Environment:
    """A virtual environment below a new folder; without ``ours`` this project cannot be imported in it."""

    def __init__(self, root: Path, ours: bool = True) -> None:
        self.root = root
        venv.create(root, with_pip=False, symlinks=True)
        self.python = root / "bin" / "python"
        program = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site = Path(subprocess.check_output([self.python, "-c", program], text=True).strip())
        project = f"{Path(nnunet_trainers.__file__).parent.parent}\n" if ours else ""
        (self.site / "a_packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n{project}")
        if not ours:
            # Not as sitecustomize, of which some systems have one that comes first.
            (self.site / "without_segloss.py").write_text(BLOCK)
            (self.site / "without_segloss.pth").write_text("import without_segloss\n")

    def ask(self, program: str, *arguments: str, **env: str) -> str:
        """What a program says; nnU-Net's variable for trainers, and what Python finds, are those of the environment."""
        environ = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "PYTHONPATH")}
        command = [str(self.python), "-W", "ignore", "-c", program, *arguments]
        done = subprocess.run(command, env={**environ, **env}, cwd=self.root, capture_output=True, text=True)
        assert done.returncode == 0, f"{program} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def segloss(self, *arguments: str) -> str:
        """What ``segloss nnunet ...`` says."""
        return self.ask("from monai_segloss.cli.nnunet import app; app()", *arguments)

    def folders(self, **env: str) -> list[str]:
        """The folders in which nnU-Net would look for trainers."""
        return self.ask(f"import os; print(os.environ.get({VARIABLE!r}, ''))", **env).split(os.pathsep)
