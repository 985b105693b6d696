"""Peak memory of one forward and backward pass of every loss as by default, in multiples of the float32 logits.

    python -m benchmarks memory                          # all losses, at (1, 3, 128³) and (1, 118, 64³)
    python -m benchmarks memory --keys boundary --classes 3 --again

Beyond logits and labels: the gradient and the maps that a loss makes are in it.  Each pass runs in a process of its own,
after one on a small input (Linux).  A pass that takes longer than ``--limit`` seconds is ended; its row has the peak up to
there.  What has a result is left out, so a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from itertools import product

import torch
from rich.console import Console
from torch import Tensor

import monai_segloss
from benchmarks.losses import FIELDS
from benchmarks.measure import LEAN, extra_memory, status
from benchmarks.peers import Loss, case, ours
from benchmarks.results import Row, arguments, opened

SIZES = {3: 128, 118: 64}
"""Classes -> voxels along each axis."""


def times_logits(row: Row) -> float:
    """Extra memory of a row in multiples of the float32 logits."""
    return float(row["extra bytes"] / (4 * row["batch"] * row["classes"] * row["edge"] ** 3))


def measure_memory(key: str, classes: int, edge: int, device: str) -> None:
    """Print the resident memory before a pass, then its extra peak memory and its seconds."""
    loss = ours(key, 3, classes, like_peers=False)
    for size in (8, edge):
        logits, label = case(classes, size, 1)
        logits, label = logits.detach().to(device).requires_grad_(), label.to(device)
        if size == edge:
            print(status("VmRSS"), flush=True)
        begin = time.perf_counter()
        extra = extra_memory(partial(_step, loss, logits, label), 0, device)
    print(json.dumps({"extra bytes": extra, "seconds": time.perf_counter() - begin}), flush=True)


def _step(loss: Loss, logits: Tensor, label: Tensor) -> None:
    torch.autograd.backward(loss(logits, label))


def measured(key: str, classes: int, edge: int, device: str, limit: float) -> Row:
    """The row of one loss at one size, from a process of its own.

    Raises:
        RuntimeError: the process ended without an answer.
    """
    question = ", ".join(map(repr, (key, classes, edge, device)))
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        f"from benchmarks.memory import measure_memory; measure_memory({question})",
    ]
    with subprocess.Popen(command, env={**os.environ, **LEAN}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        before = int(process.stdout.readline() or 0)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            extra = status("VmHWM", process.pid) - before
            process.kill()
            return {"extra bytes": extra, "stopped after": limit}
        answer = process.stdout.read()
    if not answer:
        raise RuntimeError(f"{key} with {classes} classes ended without an answer; is there enough memory?")
    found: Row = json.loads(answer)
    return found


def main() -> None:
    """Command line."""
    keys = [info.key for info in monai_segloss.list_losses()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", nargs="+", default=keys, choices=keys, metavar="KEY")
    parser.add_argument("--classes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--edge", type=int, help="voxels along each axis; default 128, with 118 classes 64")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a pass is ended")
    arguments(parser)
    options = parser.parse_args()
    results, console, failed = opened(options, "memory"), Console(), list[str]()
    for key, classes in product(options.keys, options.classes):
        fields = dict(zip(FIELDS, (key, classes, options.edge or SIZES.get(classes, 64), 1), strict=True))
        if not options.again and results.has(**fields):
            continue
        try:
            row = {**fields, **measured(key, classes, fields["edge"], options.device, options.limit)}
        except RuntimeError as error:  # its process said why: too large for it, or for the machine
            console.print(str(error))
            failed.append(key)
            continue
        results.add(row, *FIELDS)
        took = f"stopped after {options.limit:.0f} s" if "stopped after" in row else f"{row['seconds']:.1f} s"
        console.print(f"{key}, (1, {classes}, {row['edge']}³): {times_logits(row):.1f} times the logits, {took}")
    console.print(f"in {results.file}")
    if failed:
        sys.exit(f"without a row: {', '.join(dict.fromkeys(failed))}")


if __name__ == "__main__":
    main()
