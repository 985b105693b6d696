"""What can go wrong with the programs of nnU-Net."""

from __future__ import annotations

import re
import signal
from pathlib import Path

# torch reports a full disk as a failed write.
# A traceback's last line, or what the bundle says in place of one.
ERROR = re.compile(
    r"[\w.]*(Error|Exception|Interrupt|Exit)\b|The (run has ended|configuration is wrong|data are wrong)\b"
)
DIVERGED = re.compile(r"[\w.]*DivergedError\b|The run has ended:")
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|PytorchStreamWriter failed writing")


class DemoError(Exception):
    """What went wrong, as one sentence for the user."""


class DivergedError(DemoError):
    """A training ended because its loss or its network was no longer finite."""


class DiskFullError(DemoError):
    """A program could not write."""


class KilledError(DemoError):
    """A program was ended from outside."""


def explain(name: str, code: int, log: str, file: Path) -> DemoError:
    """Why a program failed, in one sentence."""
    if code < 0:
        lack = ", often for lack of memory" if code == -signal.SIGKILL else ""
        return KilledError(
            f"{name} was ended from outside (signal {-code}{lack}); the same command continues (the log is {file})"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    if any(DISK_FULL.search(error) for error in errors):
        return DiskFullError(
            f"{name} stopped because the disk is full: make room and start the same command again, it continues"
        )
    reason = (errors or lines or ["no output"])[-1].rstrip(".")
    kind = DivergedError if DIVERGED.match(reason) else DemoError
    return kind(f"{name} failed: {reason} (the log is {file}; segloss doctor checks the installation)")
