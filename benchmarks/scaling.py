"""Forward + backward against the number of voxels, of classes and of samples, next to the floor and to other libraries.

    python -m benchmarks scaling
    python -m benchmarks scaling --keys dice_ce --axes classes

Voxels: (1, 3, n, n, n) with n from 32 to 192.  Classes: (1, C, 48, 48, 48) with 2 to 118.  Batch: (B, 3, 48, 48, 48) with 1
to 8.  What has a result is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import product

from rich.console import Console

import monai_segloss
from benchmarks.losses import FIELDS, Bench
from benchmarks.measure import copy_bandwidth, floor, race
from benchmarks.results import arguments, opened

KEYS = ("dice_ce", "focal_tversky", "lovasz_softmax", "boundary")
AXES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "voxels": tuple((3, edge, 1) for edge in (32, 48, 64, 96, 128, 160, 192)),
    "classes": tuple((classes, 48, 1) for classes in (2, 3, 4, 8, 9, 16, 32, 64, 118)),
    "batch": tuple((3, 48, batch) for batch in (1, 2, 4, 8)),
}
"""Classes, edge and batch of the points along each axis."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [info.key for info in monai_segloss.list_losses()]
    parser.add_argument("--keys", nargs="+", default=KEYS, choices=known, metavar="KEY")
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument("--largest", type=int, default=192, help="longest edge")
    arguments(parser)
    options = parser.parse_args()
    points = dict.fromkeys(point for axis in options.axes for point in AXES[axis] if point[1] <= options.largest)
    measure("scaling", points, options)


def measure(command: str, points: Iterable[tuple[int, int, int]], options: argparse.Namespace, axes: int = 3) -> None:
    """Time the losses ``options.keys`` at classes, edge and batch of each point, for the file of a command."""
    results, console, bandwidth = opened(options, command), Console(), 0.0
    for key, point in product(options.keys, points):
        fields = dict(zip(FIELDS, (key, *point), strict=True))
        if not options.again and results.has(**fields):
            continue
        bandwidth = bandwidth or copy_bandwidth(options.device)
        bench = Bench(key, *point, options.device, axes)
        seconds = race(bench.calls(), options.device, options.repeats, options.seconds)
        results.add({**fields, "seconds": seconds, "floor": floor(bench.logits, bench.label, bandwidth)}, *FIELDS)
        listed = ", ".join(f"{name} {1e3 * found['least']:.2f}" for name, found in seconds.items())
        console.print(f"{key} {point[2]} x {point[0]} x {point[1]}^{axes}: {listed} ms")
    console.print(f"in {results.file}")


if __name__ == "__main__":
    main()
