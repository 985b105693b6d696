"""Forward + backward of every loss against MONAI, nnU-Net and kornia: median time, extra peak memory, ratios of one run.

    python -m benchmarks.losses                       # all losses, 3, 16 and 118 classes
    python -m benchmarks.losses --keys dice_ce --json result.json

Calls are interleaved, so that whatever else the machine does meets all of them.  Memory is the peak of the process beyond
what was there before (logits, labels) and the gradient, taken in processes of their own (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import monai_segloss
from benchmarks.peers import PEERS, Loss, case, ours

SIZES = ((3, 96), (16, 64), (118, 64))


def contestants(key: str) -> dict[str, Loss]:
    """Who computes a loss: ours and the peers that have it."""
    found: dict[str, Loss] = {"segloss": ours(key)}
    return found | {name: peers[key] for name, library in PEERS.items() if key in (peers := library())}


def step(loss: Loss, logits: torch.Tensor, label: torch.Tensor) -> float:
    """One forward and backward pass; seconds."""
    logits.grad = None
    start = time.perf_counter()
    loss(logits, label).backward()
    return time.perf_counter() - start


def times(keys: list[str], classes: int, edge: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds by loss and contestant; each round calls everybody once."""
    logits, label = case(classes, edge)
    racers = {(key, name): loss for key in keys for name, loss in contestants(key).items()}
    racers["dice_ce", "reference"] = ours("dice_ce")
    seconds: dict[tuple[str, str], list[float]] = {racer: [] for racer in racers}
    for loss in racers.values():
        step(loss, logits, label)
    for _ in track(range(repeats), description=f"{classes} classes, {edge}^3", transient=True):
        for racer, loss in racers.items():
            seconds[racer].append(step(loss, logits, label))
    out: dict[str, dict[str, float]] = {}
    for (key, name), values in seconds.items():
        out.setdefault(key, {})[name] = statistics.median(values)
    return out


def extra_memory(key: str, name: str, classes: int, edge: int) -> int:
    """Bytes of peak memory beyond logits, labels and gradient, measured in a new process."""
    code = f"from benchmarks.losses import measure_memory; print(measure_memory({key!r}, {name!r}, {classes}, {edge}))"
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "0"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return int(run.stdout.split()[-1])


def measure_memory(key: str, name: str, classes: int, edge: int) -> int:
    """In this process: peak resident memory of a step, less what was there before and the gradient."""
    loss = contestants(key)[name]
    step(loss, *case(classes, 8))
    logits, label = case(classes, edge)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step(loss, logits, label)
    return _status("VmHWM") - before - logits.numel() * logits.element_size()


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024


def environment() -> dict[str, Any]:
    """Where the figures come from."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    cpu = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "?"
    )
    names = ("torch", "monai", "nnunetv2", "kornia", "monai-segloss")
    packages = {name: version(name) for name in names if find_spec(name.replace("-", "_"))}
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **packages,
        "commit": commit,
    }


def run(keys: list[str], sizes: list[tuple[int, int]], repeats: int, memory: bool) -> list[dict[str, Any]]:
    """One row per loss and size."""
    rows = []
    for classes, edge in sizes:
        measured = times(keys, classes, edge, repeats)
        reference = measured["dice_ce"].pop("reference")
        for key in keys:
            seconds = measured[key]
            peers = {name: value for name, value in seconds.items() if name != "segloss"}
            row: dict[str, Any] = {"loss": key, "classes": classes, "shape": [2, classes, edge, edge, edge]}
            row["seconds"] = seconds
            row["to_dice_ce"] = seconds["segloss"] / reference
            row["to_fastest_peer"] = seconds["segloss"] / min(peers.values()) if peers else None
            if memory:
                extra = {name: extra_memory(key, name, classes, edge) for name in seconds}
                row["extra_bytes"] = extra
                theirs = [extra[name] for name in peers]
                row["memory_to_least_peer"] = extra["segloss"] / min(theirs) if theirs else None
            rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the ratios."""
    table = Table("loss", "classes", "ms", "to dice_ce", "to fastest peer", "extra MB", "to leanest peer")
    for row in rows:
        ratio = [
            f"{row[k]:.2f}" if row.get(k) is not None else "-" for k in ("to_fastest_peer", "memory_to_least_peer")
        ]
        extra = f"{row['extra_bytes']['segloss'] / 1e6:.1f}" if "extra_bytes" in row else "-"
        milliseconds = f"{1e3 * row['seconds']['segloss']:.1f}"
        table.add_row(
            row["loss"], str(row["classes"]), milliseconds, f"{row['to_dice_ce']:.2f}", ratio[0], extra, ratio[1]
        )
    Console().print(table)


def main() -> None:
    """Command line."""
    keys = [info.key for info in monai_segloss.list_losses()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", nargs="+", default=keys, choices=keys)
    parser.add_argument("--classes", nargs="+", type=int, default=[c for c, _ in SIZES], choices=[c for c, _ in SIZES])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    rows = run(options.keys, [s for s in SIZES if s[0] in options.classes], options.repeats, not options.no_memory)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
