"""How time, memory and the floor are measured, on the CPU and on CUDA."""

from __future__ import annotations

import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Hashable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)
COPIED = 2**28
"""Bytes of the array whose copy gives the bandwidth: no cache holds it."""


def race(racers: Mapping[Name, Call], device: str, repeats: int, budget: float) -> dict[Name, dict[str, float]]:
    """Least and median seconds, and least CPU seconds, of calls that take turns.

    Whatever else the machine does meets all of them.  After a first round that warms up, rounds go on until there are
    ``repeats``, or until ``budget`` seconds have passed.
    """
    torch.zeros(7_900_000)  # freed at once: as after any training step, smaller arrays then cost no page faults
    for call in racers.values():
        call()
    wall: dict[Name, list[float]] = {name: [] for name in racers}
    cpu: dict[Name, list[float]] = {name: [] for name in racers}
    begin = time.perf_counter()
    for done in range(repeats):
        if done and time.perf_counter() - begin > budget:
            break
        for name, call in racers.items():
            _wait(device)
            start, process = time.perf_counter(), time.process_time()
            call()
            _wait(device)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - process)
    return {
        name: {"least": min(x), "median": statistics.median(x), "cpu": min(cpu[name]), "rounds": len(x)}
        for name, x in wall.items()
    }


def floor(logits: Tensor, label: Tensor, bandwidth: float) -> float:
    """Seconds in which the bytes of a step move: logits and labels are read twice, the gradient is written once."""
    return (3 * logits.numel() * logits.element_size() + 2 * label.numel() * label.element_size()) / bandwidth


def copy_bandwidth(device: str, rounds: int = 7) -> float:
    """Bytes read and written per second by a copy on the device."""
    source, target = (torch.ones(COPIED, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * COPIED / race({"copy": lambda: target.copy_(source)}, device, rounds, 10.0)["copy"]["least"]


def extra_memory(call: Call, given: int, device: str) -> int:
    """Peak bytes of a call beyond what was there before and ``given``, the bytes of its result.

    On the CPU resident memory, for which the process must be started with `LEAN`; Linux.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before - given
    before = reset_peak()
    call()
    return status("VmHWM") - before - given


LEAN = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Environment in which freed memory leaves the process at once, so that resident memory is what is in use."""


def reset_peak() -> int:
    """Forget the peak of the process so far; resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(field: str, process: int | str = "self") -> int:
    """Bytes of a line of ``/proc/PROCESS/status``."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024


def environment(device: str = "cpu") -> dict[str, Any]:
    """Where the figures come from."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    names = ("torch", "monai", "nnunetv2", "kornia", "numba", "edt", "monai-segloss")
    packages = {name: version(name) for name in names if find_spec(name.replace("-", "_"))}
    found = {"cpu": _cpu(), "threads": torch.get_num_threads(), "python": platform.python_version()}
    if device != "cpu":
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return {**found, **packages, "commit": commit, "date": time.strftime("%Y-%m-%d")}


def machine(device: str = "cpu") -> str:
    """A name for this machine, as results are filed under it."""
    threads = torch.get_num_threads()
    name = f"{_cpu()} {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else torch.cuda.get_device_name()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cpu() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next((x.split(":")[1].strip() for x in lines if "model name" in x), platform.processor() or "CPU")


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
