"""`dice_ce` on CUDA against the floor: the bytes that must move, over the copy bandwidth of the device, both in this run.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --json result.json

The floor reads logits and labels twice and writes the gradient once.  ``kernels`` is the time on the device of the two
fused kernels, ``step`` that of forward and backward of the loss with everything around them.  Inputs rotate, so that a
cache does not hold them.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.measure import environment
from benchmarks.peers import PEERS, ours
from monai_segloss.core.counts import BACKENDS, Stat
from monai_segloss.files import write_json
from monai_segloss.kernels.distance import distance_to

WHICH = (Stat("tp"), Stat("fp"), Stat("fn"), Stat("ce"))
CASES = tuple(
    (classes, label, last) for classes in (3, 16, 118) for label in ("int64", "uint8") for last in (False, True)
)
WANTED = {
    "dice_ce within 1.5 times the floor at (2, 3, 128^3) and (2, 118, 128^3), float16": "step / floor",
    "dice_ce at least 5 times as fast as nnU-Net's compiled loss": "nnunet / step",
    "extra memory under 2 % of the logits": "extra memory / logits",
    "exact distances of (2, 3, 128^3) in under 2 ms": "distance ms",
}
CACHE = 2**28
"""Bytes of different inputs between two uses of the same."""


def milliseconds(calls: list[Callable[[], object]], repeats: int) -> float:
    """Median time on the device of one of the calls, which take turns."""
    turns = cycle(calls)
    for _ in range(max(3, len(calls))):
        next(turns)()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        call = next(turns)
        torch.cuda._sleep(1_000_000)  # the queue fills meanwhile, so that the host's pace is not what is measured
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def copy_bandwidth(repeats: int) -> float:
    """Bytes read and written per millisecond by a copy on the device."""
    pairs = [torch.empty(2, 2**29, dtype=torch.uint8, device="cuda") for _ in range(2)]
    return 2**30 / milliseconds([lambda x=x: x[0].copy_(x[1]) for x in pairs], repeats)


def inputs(classes: int, edge: int, label: str, last: bool) -> list[tuple[Tensor, Tensor]]:
    """Pairs of logits and labels, enough to fill the cache."""
    shape = (2, classes, edge, edge, edge)
    one = torch.Size(shape).numel() * 2
    layout = torch.channels_last_3d if last else torch.contiguous_format
    pairs = []
    for _ in range(1 + CACHE // one):
        z = torch.randn(shape, dtype=torch.float16, device="cuda").contiguous(memory_format=layout).requires_grad_()
        y = torch.randint(0, classes, (2, 1, *shape[2:]), device="cuda").to(getattr(torch, label))
        pairs.append((z, y))
    return pairs


def step(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, label: Tensor) -> Callable[[], object]:
    """Forward and backward."""
    return lambda: torch.autograd.grad(loss(logits, label), logits)


def both_kernels(logits: Tensor, label: Tensor) -> Callable[[], object]:
    """The two operators alone."""
    names, powers = [stat.name for stat in WHICH], [stat.power for stat in WHICH]
    flat = logits.detach().flatten(2)
    rest = (flat, label.flatten(1), None, names, powers, "softmax")
    factors = torch.randn(*logits.shape[:2], len(names), device="cuda")

    def call() -> None:
        torch.ops.segloss.statistics(*rest)
        torch.ops.segloss.statistics_gradient(factors, *rest)

    return call


def extra_memory(call: Callable[[], object], logits: Tensor) -> float:
    """Peak of a call beyond its inputs and the gradient, relative to the logits."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, size = torch.cuda.memory_allocated(), logits.numel() * logits.element_size()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before - size) / size


def measure(edge: int, repeats: int) -> list[dict[str, Any]]:
    """One row per case."""
    bandwidth = copy_bandwidth(repeats)
    loss, rows = ours("dice_ce"), []
    theirs = torch.compile(PEERS["nnunet"]()["dice_ce"].loss)
    for classes, label, last in CASES:
        pairs = inputs(classes, edge, label, last)
        logits, labels = pairs[0]
        size = 2 * logits.numel()
        floor = (3 * size + 2 * labels.numel() * labels.element_size()) / bandwidth
        mine = milliseconds([step(loss, *pair) for pair in pairs], repeats)
        row = {
            "shape": list(logits.shape),
            "label": label,
            "channels last": last,
            "copy GB/s": bandwidth / 1e6,
            "floor ms": floor,
            "kernels / floor": milliseconds([both_kernels(*pair) for pair in pairs], repeats) / floor,
            "step / floor": mine / floor,
            "extra memory / logits": extra_memory(step(loss, *pairs[0]), logits),
        }
        if label == "int64":
            row["nnunet / step"] = milliseconds([step(theirs, *pair) for pair in pairs], repeats) / mine
        rows.append(row)
        del pairs, logits, labels
    masks = torch.rand(2, 3, edge, edge, edge, device="cuda") < 0.1
    rows.append({"shape": list(masks.shape), "distance ms": milliseconds([lambda: distance_to(masks)], repeats)})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns)
    for row in rows:
        cells = (row.get(name, "") for name in columns)
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console().print(table)


def missing() -> str | None:
    """Why nothing can be measured here, or None."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    return None if "cuda" in BACKENDS else "no Triton, or one older than that of torch 2.8"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    reason = missing()
    if reason is not None:
        print(
            f"Nothing measured: {reason}. Missing:", *(f"- {what} ({name})" for what, name in WANTED.items()), sep="\n"
        )
        return
    rows = measure(options.edge, options.repeats)
    show(rows)
    if options.json:
        device = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        write_json(options.json, {"environment": {**environment(), **device}, "rows": rows}, indent=1)


if __name__ == "__main__":
    main()
