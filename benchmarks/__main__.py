"""``python -m benchmarks COMMAND``: what the losses cost, next to others, on this machine.

Every command writes what it measures to ``benchmarks/results/MACHINE/COMMAND.json`` as soon as it has it; started again it
goes on where it was killed.  ``page`` makes the documentation from what is there.
"""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "losses": "forward + backward of every loss against MONAI, nnU-Net and kornia",
    "scaling": "time against the number of voxels, classes and samples",
    "slices": "batches of small slices against MONAI, nnU-Net and kornia",
    "neighbors": "losses with the worst logits of neighbors against the same without",
    "step": "whole training steps of nnU-Net and MONAI, the stock loss and ours",
    "learned": "training steps with losses that bring networks or take the image",
    "distance": "distance maps and the losses on them against MONAI",
    "topology": "persistence per slice and volume, clDice against MONAI, skeletons against scikit-image",
    "gpu": "dice_ce on CUDA against the floor",
    "memory": "peak memory of every loss, in multiples of the logits",
    "bundle-memory": "memory of the loss step in the bundle, on a CT",
    "comparisons": "published comparisons of losses, from the tables of segloss compare",
    "page": "write docs/benchmarks.md and its plots",
}


def main(arguments: list[str]) -> None:
    """Run a command.

    Raises:
        SystemExit: without a command, or with an unknown one.
    """
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        listed = "\n".join(f"  {command:14} {what}" for command, what in COMMANDS.items())
        wrong = "" if name in ("", "-h", "--help") else f"no command is called {name!r}.\n\n"
        text = f"{wrong}python -m benchmarks COMMAND [--help]\n\n{listed}"
        print(text, file=sys.stderr if wrong else sys.stdout)
        raise SystemExit(2 if wrong else 0)
    sys.argv = [f"python -m benchmarks {name}", *arguments[1:]]
    import_module(f"benchmarks.{name.replace('-', '_')}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
