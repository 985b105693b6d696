"""Forward + backward with the worst logits of neighbors (``neighbors=3``) against the same loss without.

    python -m benchmarks neighbors
    python -m benchmarks neighbors --keys dice_ce cross_entropy --classes 3 16

What has a result is left out.
"""

from __future__ import annotations

import argparse
from functools import partial

from rich.console import Console
from rich.table import Table

import monai_segloss
from benchmarks.losses import SIZES, Bench
from benchmarks.measure import race
from benchmarks.results import Row, arguments, opened

KEYS = ("dice_ce", "cross_entropy")
FIELDS = ("loss", "classes", "edge", "batch")
WIDTHS = (1, 3)


def row(key: str, classes: int, edge: int, batch: int, options: argparse.Namespace) -> Row:
    """Measure one loss on one input."""
    bench = Bench(key, classes, edge, batch, options.device)
    info = monai_segloss.find(key)
    losses = {n: monai_segloss.create(key, **{**info.reading, **info.example, "neighbors": n}) for n in WIDTHS}
    calls = {str(width): partial(bench.step, loss) for width, loss in losses.items()}
    seconds = race(calls, options.device, options.repeats, options.seconds)
    return {**dict(zip(FIELDS, (key, classes, edge, batch), strict=True)), "seconds": seconds}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [info.key for info in monai_segloss.list_losses()]
    parser.add_argument("--keys", nargs="+", default=KEYS, choices=known, metavar="KEY")
    parser.add_argument("--classes", nargs="+", type=int, default=[3])
    parser.add_argument("--edge", type=int, help="voxels along each axis; default 96, beyond 8 classes 64")
    parser.add_argument("--batch", type=int, default=2)
    arguments(parser)
    options = parser.parse_args()
    results = opened(options, "neighbors")
    table = Table("loss", "C", "ms", "neighbors=3: ms", "ratio")
    for classes in options.classes:
        edge = options.edge or dict(SIZES).get(classes, 96 if classes <= 8 else 64)
        for key in options.keys:
            item = dict(zip(FIELDS, (key, classes, edge, options.batch), strict=True))
            if options.again or not results.has(**item):
                results.add(row(*item.values(), options), *FIELDS)
            (found,) = [each for each in results.rows if item.items() <= each.items()]
            plain, worst = (1e3 * found["seconds"][str(width)]["least"] for width in WIDTHS)
            table.add_row(key, str(classes), f"{plain:.1f}", f"{worst:.1f}", f"{worst / plain:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
