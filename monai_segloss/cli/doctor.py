"""``segloss doctor``: does nnU-Net find, load and run the trainers here?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from nnunet_trainers import VARIABLE
from nnunet_trainers.startup import LEAST

COMPILE = "nnUNet_compile"
TRAINER = "nnUNetTrainerFocalTversky_alpha0p3"
LOOKUP = f"""
import pickle, sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
found = find({TRAINER!r})
sys.stderr.write("PICKLE" + pickle.dumps(found).hex())
"""
NOT_FOUND = "Could not find requested nnunet trainer"
INSTALL = "pip install 'monai-segloss[nnunet]'"


class Check(NamedTuple):
    """One line of the table; ``ok`` is None for something to know that is no fault."""

    name: str
    ok: bool | None
    found: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    """Add the ``doctor`` command."""
    app.command()(doctor)


def doctor() -> None:
    """Check that this Python environment can train with nnU-Net and the losses of this package.

    It checks versions, imports, nnU-Net's folders, the discovery of trainers, the C++ kernels, the GPU and torch.compile.
    For each check that fails it prints how to fix it. The exit code is 1 if a check fails.

    Example: segloss doctor
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("", "check", "found", "what to do"):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]ok[/]", False: "[bold red]failed[/]", None: "[yellow]note[/]"}
    checks = list(examine())
    for check in checks:
        table.add_row(marks[check.ok], check.name, Text(check.found), Text(check.fix))
    Console().print(table)
    if any(check.ok is False for check in checks):
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """All checks; those that cannot work after a failure are left out."""
    yield Check("Python", True, f"{platform.python_version()} in {sys.prefix}")
    yield versions("monai-segloss", "")
    torch = imports("torch", "pip install -U torch")
    yield torch
    nnunet = versions("nnunetv2", ".".join(map(str, LEAST)))
    yield nnunet
    vision = imports(
        "torchvision",
        "install torch and torchvision from the same package index, e.g. pip install -U torch torchvision",
    )
    yield vision
    yield from folders()
    if nnunet.ok and vision.ok:
        yield from discovery()
    if torch.ok:
        yield kernels()
        yield gpu()
        yield compiler()


def versions(package: str, least: str) -> Check:
    """Whether a package is there and new enough."""
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Check(package, False, "not installed", INSTALL)
    new = _numbers(found) >= _numbers(least)
    return Check(package, new, found, "" if new else f"expected at least {least}: pip install -U {package}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def imports(module: str, fix: str) -> Check:
    """Whether a module can be imported, in a process of its own."""
    done = run_python(f"import {module}; print({module}.__version__)")
    if done.returncode == 0:
        return Check(f"import {module}", True, done.stdout.strip())
    return Check(f"import {module}", False, last_line(done.stderr), fix)


def folders() -> Iterator[Check]:
    """The variables of nnU-Net."""
    for name, write in (("nnUNet_raw", False), ("nnUNet_preprocessed", True), ("nnUNet_results", True)):
        value = os.environ.get(name)
        if value is None:
            yield Check(name, False, "not set", f"export {name}=/path/to/{name.removeprefix('nnUNet_')}")
        elif not Path(value).is_dir():
            yield Check(name, False, f"{value} is not a folder", f"mkdir -p {value}")
        elif write and not os.access(value, os.W_OK):
            yield Check(name, False, f"{value} is not writable", "choose a folder that you can write to")
        else:
            yield Check(name, True, value)


def discovery() -> Iterator[Check]:
    """Whether nnU-Net finds a trainer by name and another process unpickles it."""
    name = "discovery by nnU-Net"
    done = run_python(LOOKUP)
    output, _, pickled = done.stderr.partition("PICKLE")
    if done.returncode != 0:
        fix = 'segloss nnunet enable (or, for this shell: eval "$(segloss nnunet env)")'
        if NOT_FOUND not in output:
            fix = f"nnU-Net imports every module in the folders of {VARIABLE}: fix or remove the one that fails"
        yield Check(name, False, last_line(output) if os.environ.get(VARIABLE) else f"{TRAINER} was not found", fix)
        return
    yield Check(name, True, TRAINER)
    loaded = run_python(f"import pickle; print(pickle.loads(bytes.fromhex({pickled.strip()!r})).__name__)")
    same = loaded.stdout.strip() == TRAINER
    found = "in a new process" if same else last_line(loaded.stderr)
    yield Check("pickling of a trainer", same, found, "" if same else "reinstall monai-segloss in this environment")


def kernels() -> Check:
    """What computes the sums of losses and the distance maps on the CPU."""
    from monai_segloss.kernels import native
    from monai_segloss.kernels.distance import cpu_backend

    name, (there, found) = "kernels on the CPU", native.used()
    if there:
        return Check(name, True, found)
    found = f"{found}: statistics by PyTorch, distances by {cpu_backend()}"
    return Check(
        name, None, found, f"install g++ or clang++ for faster losses ({native.COMPILER} names another compiler)"
    )


def gpu() -> Check:
    """Whether torch sees a GPU."""
    import torch

    if torch.cuda.is_available():
        return Check("GPU", True, torch.cuda.get_device_name())
    fix = "train with -device cpu, which is slow" + (" (or -device mps)" if platform.system() == "Darwin" else "")
    return Check("GPU", None, "no CUDA device", fix)


def compiler() -> Check:
    """Whether torch.compile works where nnU-Net uses it, which is on CUDA."""
    import torch

    wish = os.environ.get(COMPILE, "true").lower() in ("true", "1", "t")
    if not torch.cuda.is_available() or not wish:
        return Check("torch.compile", None, "not used" if wish else "switched off by nnUNet_compile")
    done = run_python(
        "import torch; print(torch.compile(lambda x: x.exp() + 1)(torch.ones(8, device='cuda')).sum().item())"
    )
    if done.returncode == 0:
        return Check("torch.compile", True, "compiles on the GPU")
    return Check("torch.compile", False, last_line(done.stderr), "export nnUNet_compile=f")


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    """The end of a Python program in a new process of this interpreter."""
    return subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)


def last_line(text: str) -> str:
    """What an error output says in the end."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "ended without a message"
