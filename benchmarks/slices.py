"""Forward + backward of batches of slices, next to other libraries: small inputs, where every call counts.

    python -m benchmarks slices
    python -m benchmarks slices --keys dice_ce

What has a result is left out.
"""

from __future__ import annotations

import argparse

import monai_segloss
from benchmarks.results import arguments
from benchmarks.scaling import measure

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
    measure("slices", POINTS, options, axes=2)


if __name__ == "__main__":
    main()
