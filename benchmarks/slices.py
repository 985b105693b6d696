"""Forward + backward of batches of slices, next to other libraries: small inputs, where every call counts.

    python -m benchmarks slices
    python -m benchmarks slices --keys dice_ce

What has a result is left out.
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console

import monai_segloss
from benchmarks.losses import FIELDS, Bench
from benchmarks.measure import race
from benchmarks.results import arguments, opened

KEYS = ("cross_entropy", "dice", "dice_ce", "dice_focal", "focal", "tversky")
POINTS = ((3, 64, 2), (2, 128, 8), (4, 256, 12), (16, 128, 4))
"""Classes, edge and batch."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [info.key for info in monai_segloss.list_losses()]
    parser.add_argument("--keys", nargs="+", default=KEYS, choices=known, metavar="KEY")
    arguments(parser)
    parser.set_defaults(repeats=200)
    options = parser.parse_args()
    results, console = opened(options, "slices"), Console()
    torch.zeros(7_900_000)  # freed at once: as after any training step, small arrays then cost no page faults
    for key in options.keys:
        for point in POINTS:
            fields = dict(zip(FIELDS, (key, *point), strict=True))
            if not options.again and results.has(**fields):
                continue
            bench = Bench(key, *point, options.device, axes=2)
            seconds = race(bench.calls(), options.device, options.repeats, options.seconds)
            results.add({**fields, "seconds": seconds}, *FIELDS)
            listed = ", ".join(f"{name} {1e3 * found['least']:.2f}" for name, found in seconds.items())
            console.print(f"{key} {point[2]} x {point[0]} x {point[1]}^2: {listed} ms")
    console.print(f"in {results.file}")


if __name__ == "__main__":
    main()
