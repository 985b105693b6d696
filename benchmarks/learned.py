"""Whole training steps with losses that take features of the network or its image, next to ``dice_ce``.

    python -m benchmarks learned
    python -m benchmarks learned --keys conv_mcd adversarial --patch 32

A step is that of MONAI's `UNet`: forward, loss, backward, clipping, the optimizer of network and heads, and the step of an
opponent.  Priors are untrained, which costs the same.  ``mumford_shah`` and ``active_contour`` fit the image.  Each loss has
a network of its own with the same first weights; the steps of all take turns in one process, and ``dice_ce`` is always among
them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

import monai_segloss
from benchmarks.measure import race
from benchmarks.peers import SPACING
from benchmarks.results import Row, arguments, opened
from benchmarks.step import FEATURES, images
from monai_segloss.core.module import SegLoss

BASE = "dice_ce"
IMAGE = ("mumford_shah", "active_contour")
"""Losses that are asked to fit the image."""
KEYS = (*(info.key for info in monai_segloss.list_losses("learned")), *IMAGE)
FIELDS = ("classes", "patch", "loss")


def stepper(key: str, classes: int, patch: int, device: str) -> tuple[Callable[[], object], SegLoss]:
    """A training step with a loss, and the loss, prepared."""
    from monai.networks.nets import UNet

    from monai_segloss.engine import parameters
    from monai_segloss.prior.networks import untrained

    torch.manual_seed(0)
    network = UNet(3, 1, classes, FEATURES, (2,) * (len(FEATURES) - 1), num_res_units=2).to(device)
    fit = {"fit": "image"} if key in IMAGE else {}
    loss = monai_segloss.create(key, softmax=True, to_onehot_y=True, **fit)
    data, label = images(classes, patch, device)
    taps = None
    if loss.brings:
        shape = monai_segloss.network_shape(network, data[:1], loss.taps, spacing=SPACING)
        loss.prepare(shape)
        while loss.prior_kind is not None:
            loss.take_prior(untrained(loss.prior_kind, shape, regions=False))
        taps = monai_segloss.Taps(network, shape.without("image"))
    loss = loss.to(device)
    optimizer = torch.optim.SGD(parameters(network, loss), 0.01, momentum=0.99, nesterov=True)
    image = {"image": data} if "image" in loss.taps else {}

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = network(data)
        loss(logits, label, spacing=SPACING, **image, **({} if taps is None else taps.take())).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        loss.update()

    return step, loss


def show(rows: list[Row]) -> None:
    """Print the comparison."""
    table = Table("loss", "classes", "patch", "step ms", f"to {BASE}")
    for row in rows:
        base = next(r for r in rows if (r["classes"], r["patch"], r["loss"]) == (row["classes"], row["patch"], BASE))
        step = row["step"]["least"]
        ratio = step / base["step"]["least"]
        table.add_row(row["loss"], str(row["classes"]), str(row["patch"]), f"{1e3 * step:.0f}", f"{ratio:.2f}")
    Console().print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", nargs="+", default=list(KEYS), choices=KEYS, metavar="KEY")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--patch", type=int, default=48)
    arguments(parser)
    options = parser.parse_args()
    results = opened(options, "learned")
    size = {"classes": options.classes, "patch": options.patch}
    keys = list(dict.fromkeys((BASE, *options.keys)))
    if options.again or not all(results.has(loss=key, **size) for key in keys):
        steps = {key: stepper(key, options.classes, options.patch, options.device)[0] for key in keys}
        found = race(steps, options.device, options.repeats, options.seconds * len(keys))
        for key in keys:
            results.add({**size, "loss": key, "step": found[key]}, *FIELDS)
    show([row for row in results.rows if (row["classes"], row["patch"]) == (options.classes, options.patch)])
    Console().print(f"in {results.file}")


if __name__ == "__main__":
    main()
