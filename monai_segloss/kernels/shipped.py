"""C++ kernels that a wheel carries compiled, for machines without a compiler.

A wheel has some only where its builder asked for them (``hatch_build.py``).  They are for many processors: those that run
the instructions torch uses itself.  A source that has been changed, or that nobody compiled, has no library.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
from pathlib import Path
from typing import NamedTuple

import torch

FOLDER = Path(__file__).with_name("compiled")
"""Where the wheel has them."""


class Processors(NamedTuple):
    """Processors that a library runs on.

    Args:
        name: of their instructions.
        flags: of the compiler.
        capabilities: what torch calls them; none: all have the instructions.
    """

    name: str
    flags: tuple[str, ...]
    capabilities: tuple[str, ...]


# torch says AVX2 or AVX512 of a processor that has AVX2 and FMA, and runs such code itself
PROCESSORS = {
    "x86_64": Processors("AVX2", ("-march=x86-64", "-mtune=generic", "-mavx2", "-mfma"), ("AVX2", "AVX512")),
    "aarch64": Processors("ARMv8", ("-march=armv8-a",), ()),
}
"""By the name of the machine."""


def name(source: str, level: str) -> str:
    """File name of the library of a source."""
    key = "\n".join([platform.machine(), level, source])
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"


def find(source: str, level: str = "-O2") -> Path | None:
    """The library of a source, if there is one and the processor runs it."""
    found = FOLDER / name(source, level)
    return found if found.exists() and runs() else None


def runs() -> bool:
    """Whether the processor has the instructions."""
    kind = PROCESSORS.get(platform.machine())
    if kind is None:
        return False
    return not kind.capabilities or torch.backends.cpu.get_cpu_capability() in kind.capabilities


def libraries() -> list[Path]:
    """All that there are."""
    return sorted(FOLDER.glob("*.so"))


def failure() -> str | None:
    """Why none of them is used on this machine; None where they are."""
    if not libraries():
        return "the wheel carries no kernels"
    if not runs():
        return "the processor does not run the kernels of the wheel"
    try:
        ctypes.CDLL(str(libraries()[0]))
    except OSError as error:
        return f"the kernels of the wheel do not load: {error}"
    return None


def described() -> str:
    """How many there are, and for which processors."""
    return f"kernels shipped with the wheel ({len(libraries())}, for {PROCESSORS[platform.machine()].name})"
