"""Forward + backward of every loss against MONAI, nnU-Net and kornia: time, extra peak memory, ratio to the floor.

    python -m benchmarks losses                          # all losses at 3, 16 and 118 classes
    python -m benchmarks losses --keys dice_ce --classes 3
    python -m benchmarks losses --part 1/4               # a quarter of the losses; the parts may run one after another
    python -m benchmarks losses --keys dice_ce --busy 4  # while four other processes work, as data loaders do

All that compute a loss take turns with `dice_ce`.  A loss that takes maps runs a second time with the maps
given, as a loader would (``given``).  Memory is the peak beyond logits, labels, maps and gradient; on the CPU it is taken
in a process of its own (Linux).  What has a result is left out, so a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import monai_segloss
from benchmarks.measure import LEAN, copy_bandwidth, extra_memory, floor, race
from benchmarks.peers import PEERS, Loss, case, maps_of, ours
from benchmarks.results import Results, Row, arguments, opened

SIZES = ((3, 96), (16, 64), (118, 64))
BATCH = 2
FIELDS = ("loss", "classes", "edge", "batch")
"""What a row is found by."""


def contestants(key: str, axes: int = 3, classes: int = 3) -> dict[str, Loss]:
    """Who computes a loss: ours and the peers that have it."""
    found: dict[str, Loss] = {"segloss": ours(key, axes, classes)}
    return found | {name: peers[key] for name, library in PEERS.items() if key in (peers := library())}


class Bench:
    """The contestants of one loss on one input, each as a call of forward and backward."""

    def __init__(self, key: str, classes: int, edge: int, batch: int, device: str, axes: int = 3) -> None:
        dtype = torch.float32 if device == "cpu" else torch.float16
        logits, label = case(classes, edge, batch, axes=axes)
        self.logits = logits.detach().to(device, dtype).requires_grad_()
        self.label = label.to(device)
        self.losses = contestants(key, axes, classes)
        if ours(key).func.needs:
            self.losses["given"] = ours(key, axes, classes, **maps_of(key, self.label, classes))

    def step(self, loss: Loss) -> None:
        """One forward and backward pass."""
        self.logits.grad = None
        loss(self.logits, self.label).backward()

    def calls(self) -> dict[str, Any]:
        """By name."""
        return {name: lambda loss=loss: self.step(loss) for name, loss in self.losses.items()}

    def memory(self, device: str) -> dict[str, int]:
        """Extra peak bytes of each."""
        found = {}
        for name, call in self.calls().items():
            self.logits.grad = None
            size = self.logits.numel() * self.logits.element_size()
            found[name] = max(0, extra_memory(call, size, device))
        return found


class Scale:
    """A process that answers how much memory a loss takes, for the CPU."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def extra(self, *question: Any) -> dict[str, int]:
        """Extra peak bytes of the contestants of `Bench` (key, classes, edge, batch)."""
        if self.process is None:
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                "from benchmarks.losses import measure_memory; measure_memory()",
            ]
            pipe = subprocess.PIPE
            env = {**os.environ, **LEAN}
            self.process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.process = None
            raise RuntimeError("the process that measures memory ended; is there enough of it?")
        found: dict[str, int] = json.loads(answer)
        return found

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.communicate()


def measure_memory() -> None:
    """Answer the questions of a `Scale`; every loss first runs on a small input, so that its code is loaded."""
    for line in sys.stdin:
        key, classes, edge, batch = json.loads(line)
        for call in Bench(key, classes, 8 if edge > 8 else edge, batch, "cpu").calls().values():
            call()
        print(json.dumps(Bench(key, classes, edge, batch, "cpu").memory("cpu")), flush=True)


def row(key: str, classes: int, edge: int, batch: int, options: argparse.Namespace, scale: Scale | None) -> Row:
    """Measure one loss on one input."""
    begin = time.perf_counter()
    bench = Bench(key, classes, edge, batch, options.device)
    dice_ce = ours("dice_ce")
    reference = {} if key == "dice_ce" else {"dice_ce": lambda: bench.step(dice_ce)}
    seconds = race({**bench.calls(), **reference}, options.device, options.repeats, options.seconds)
    if "dice_ce" not in seconds:
        seconds["dice_ce"] = seconds["segloss"]
    found: Row = dict(zip(FIELDS, (key, classes, edge, batch), strict=True))
    found |= {"seconds": seconds, "floor": floor(bench.logits, bench.label, options.bandwidth)}
    found["gradient bytes"] = bench.logits.numel() * bench.logits.element_size()
    if options.device != "cpu":
        found["extra bytes"] = bench.memory(options.device)
    elif scale is not None:
        del bench
        found["extra bytes"] = scale.extra(key, classes, edge, batch)
    return {**found, "took": round(time.perf_counter() - begin, 1)}


def peers_of(each: Row) -> list[str]:
    """Names of the other libraries in a row."""
    return [name for name in each["seconds"] if name in PEERS]


def ratio(each: Row) -> float | None:
    """Least time next to the fastest peer."""
    theirs = [each["seconds"][name]["least"] for name in peers_of(each)]
    return each["seconds"]["segloss"]["least"] / min(theirs) if theirs else None


def memory_ratio(each: Row) -> float | None:
    """Extra memory next to the leanest peer."""
    theirs = [each["extra bytes"][name] for name in peers_of(each)] if "extra bytes" in each else []
    return each["extra bytes"]["segloss"] / min(theirs) if theirs and min(theirs) else None


def show(rows: list[Row]) -> None:
    """Print the ratios."""
    table = Table("loss", "C", "ms", "floors", "dice_ces", "fastest peers", "extra MB", "leanest peers")
    table.columns[0].no_wrap = True
    for each in rows:
        least = each["seconds"]["segloss"]["least"]
        ratios = [least / each["floor"], least / each["seconds"]["dice_ce"]["least"], ratio(each)]
        extra = f"{each['extra bytes']['segloss'] / 1e6:.1f}" if "extra bytes" in each else "-"
        cells = ["-" if x is None else f"{x:.2f}" for x in (*ratios, memory_ratio(each))]
        table.add_row(each["loss"], str(each["classes"]), f"{1e3 * least:.1f}", *cells[:3], extra, cells[3])
    Console().print(table)


def part(keys: list[str], which: str) -> list[str]:
    """``"2/4"``: the second of four parts."""
    number, parts = (int(x) for x in which.split("/"))
    if not 1 <= number <= parts:
        raise SystemExit(f"--part {which}: expected a number from 1 to {parts} before the slash.")
    return keys[number - 1 :: parts]


def main() -> None:
    """Command line."""
    keys = [info.key for info in monai_segloss.list_losses() if info.family != "learned"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", nargs="+", default=keys, choices=keys, metavar="KEY")
    parser.add_argument("--part", default="1/1", metavar="I/N")
    parser.add_argument("--classes", nargs="+", type=int, default=[c for c, _ in SIZES])
    parser.add_argument("--edge", type=int, help="voxels along each axis; default 96, beyond 8 classes 64")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="other processes that compute meanwhile")
    parser.add_argument("--no-memory", action="store_true", help="times only")
    arguments(parser)
    options = parser.parse_args()
    with working(options.busy):
        run(part(options.keys, options.part), options, opened(options, "busy" if options.busy else "losses"))


@contextmanager
def working(count: int) -> Iterator[None]:
    """So many processes that compute without an end, as loaders and other trainings do."""
    loop = [sys.executable, "-c", "while True: sum(range(10**6))"]
    others = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def run(keys: list[str], options: argparse.Namespace, results: Results) -> None:
    """Measure what has no result yet, and print everything asked for."""
    console, options.bandwidth = Console(), 0.0
    scale = None if options.no_memory or options.device != "cpu" else Scale()
    wanted = [
        (key, classes, options.edge or dict(SIZES).get(classes, 96 if classes <= 8 else 64), options.batch)
        for classes in options.classes
        for key in keys
    ]
    for item in wanted:
        if not options.again and results.has(**dict(zip(FIELDS, item, strict=True))):
            continue
        options.bandwidth = options.bandwidth or copy_bandwidth(options.device)
        found = row(*item, options, scale) | ({"busy": options.busy} if options.busy else {})
        results.add(found, *FIELDS)
        compared = ratio(found)
        against = "" if compared is None else f", {compared:.2f} of the fastest peer"
        console.print(f"{item[0]}, {item[1]} classes: {1e3 * found['seconds']['segloss']['least']:.1f} ms{against}")
    if scale is not None:
        scale.close()
    show([each for each in results.rows if tuple(each[name] for name in FIELDS) in wanted])
    console.print(f"in {results.file}")


if __name__ == "__main__":
    main()
