"""C++ kernels, compiled where they run and loaded with ctypes.

A source is compiled once per machine, by the first process that needs it, into a folder that only the user can write.
Without a compiler, what the wheel carries compiled is loaded (`monai_segloss.kernels.shipped`).  For the rest nothing is
loaded, and the caller computes in another way.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from monai_segloss.kernels import shipped

COMPILER = "SEGLOSS_COMPILER"
"""Environment: a compiler of C++, or none."""
FLAGS = "SEGLOSS_CXXFLAGS"
"""Environment: more flags, e.g. -fsanitize=address,undefined."""
CACHE = "SEGLOSS_CACHE"
"""Environment: the folder of the compiled kernels."""
ERRORS = (OSError, subprocess.SubprocessError)
"""What compiling and loading raise; a mistake in a table is none of these."""


@cache
def compiler() -> str | None:
    """The compiler that is used, or None."""
    asked = os.environ.get(COMPILER) or os.environ.get("CXX")
    if asked == "none" or os.name != "posix":
        return None
    return next(filter(None, map(shutil.which, [asked] if asked else ["g++", "clang++", "c++"])), None)


def flags(level: str = "-O2", processor: Sequence[str] = ()) -> list[str]:
    """What the kernels are compiled with: NaN and order of operations as they are written, by default for this processor."""
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    math = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
    more = os.environ.get(FLAGS, "").split()
    return ["-std=c++17", level, *(processor or [native]), *math, "-fPIC", "-shared", "-pthread", *more]


def folder() -> Path:
    """The folder of the compiled kernels, which nobody else can write; a new one where there can be no lasting one."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    found = Path(os.environ.get(CACHE) or Path(base) / "monai-segloss")
    try:
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = found.stat()
        if (
            facts.st_uid == os.getuid()
            and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            and os.access(found, os.W_OK)
        ):
            return found
    except OSError:
        pass
    return _own_folder()


@cache
def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="monai-segloss-"))


@cache
def _machine() -> str:
    """Compiler and processor, as the macros that the compiler defines say."""
    command = [str(compiler()), *flags(), "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@cache
def source(*names: str) -> str:
    """The text of files of this folder, one after the other."""
    folder = files("monai_segloss.kernels")
    return "".join(folder.joinpath(f"{name}.cpp").read_text(encoding="utf-8") for name in names)


@cache
def load(source: str, level: str = "-O2") -> ctypes.CDLL | None:
    """The library of a source, compiled here or else carried by the wheel; None where there is neither.

    Warns:
        RuntimeWarning: once for each of the two, that the compiler or the loader failed; from then on it is not tried.
    """
    for find, kind in ((build, "compiled here"), (shipped.find, "of the wheel")):
        try:
            library = None if find in _broken else find(source, level)
            if library is not None:
                return ctypes.CDLL(str(library))
        except ERRORS as error:
            _broken[find] = reason(error)
            warnings.warn(
                f"no C++ kernels {kind}: {_broken[find]}  Others take their place, or plain formulas and SciPy, with the "
                f"same values but more time; `segloss doctor` says which. {COMPILER}=none compiles nothing.",
                RuntimeWarning,
                stacklevel=2,
            )
    return None


_broken: dict[Callable[..., Path | None], str] = {}


def failure() -> str | None:
    """Why nothing is compiled on this machine; None where it is."""
    if compiler() is None:
        return "there is no C++ compiler"
    try:
        ctypes.CDLL(str(build("int x;")))
    except ERRORS as error:
        _broken[build] = reason(error)
    return f"{compiler()} failed: {_broken[build]}" if build in _broken else None


def used() -> tuple[bool, str]:
    """Whether there are kernels on this machine; which, or why there are none."""
    why = failure()
    if why is None:
        return True, f"C++, compiled by {compiler()}, cached in {folder()}"
    missing = shipped.failure()
    return (True, f"{why}: {shipped.described()}") if missing is None else (False, f"{why} and {missing}")


def reason(error: Exception) -> str:
    """The first line that says what failed."""
    if isinstance(error, subprocess.CalledProcessError):
        text = (error.stderr or f"exit status {error.returncode}").strip().splitlines()
    else:
        text = str(error).strip().splitlines()
    return next((line for line in text if "error" in line), (text or [type(error).__name__])[0])


def build(source: str, level: str = "-O2") -> Path | None:
    """The library of a source, compiled unless that has been done; None without a compiler."""
    if compiler() is None:
        return None
    key = "\n".join([source, *flags(level), _machine()])
    library = folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"
    if not library.exists():
        compile_to(library, source, flags(level))
    return library


def compile_to(library: Path, source: str, options: Sequence[str]) -> None:
    """Compile a source into a file; several processes may do so at once."""
    with tempfile.TemporaryDirectory(dir=library.parent) as work:
        made = Path(work) / library.name
        command = [str(compiler()), *options, "-x", "c++", "-", "-o", str(made), "-lm"]
        # what is loaded before this process, e.g. for a sanitizer, is not for the compiler
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        subprocess.run(command, input=source, env=environment, check=True, capture_output=True, text=True, timeout=600)
        made.replace(library)
