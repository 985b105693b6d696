"""Distance maps and the losses on them against MONAI on the CPU: seconds of interleaved calls, and ratios.

    python -m benchmarks distance

``boundary`` and ``hausdorff_dt`` are forward + backward at (2, 3, 96, 96, 96) with softmax and a float one-hot target, at
1 mm, where both libraries compute the same; the maps are the signed maps of a label of 128^3 with 3 classes.  The distances
of ours come from our C++; without a compiler from ``edt``, else from SciPy; the table says which.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import monai_segloss
from benchmarks.measure import race
from benchmarks.results import Row, arguments, opened
from monai_segloss.kernels.distance import cpu_backend
from monai_segloss.maps import class_masks, signed_distance_map

Call = Callable[[], Tensor]
WANTED = {"boundary": 6.0, "hausdorff_dt": 10.0, "signed maps": 8.0}


def ball_label(edge: int) -> Tensor:
    """Labels (1, 1, edge, edge, edge): a ball in a ball in the background."""
    middle = torch.stack(torch.meshgrid(*[torch.arange(edge) - 0.45 * edge] * 3, indexing="ij")).square().sum(0).sqrt()
    return ((middle < 0.35 * edge).long() + (middle < 0.2 * edge))[None, None]


def prediction(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Logits of a network that is mostly right, with smooth mistakes, and the one-hot target in float32."""
    hot = class_masks(labels, classes).float()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(*hot.shape[:2], *(n // 4 for n in hot.shape[2:]), generator=generator)
    noise = torch.nn.functional.interpolate(noise, size=hot.shape[2:], mode="trilinear")
    return 3 * hot + 2 * noise, hot


def loss_call(loss: Callable[..., Tensor], logits: Tensor, hot: Tensor, **arguments: object) -> Call:
    """One forward and backward pass."""

    def call() -> Tensor:
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, hot, **arguments)
        value.backward()
        return value.detach()

    return call


def monai_maps(masks: Tensor) -> Tensor:
    """Signed maps of each class as MONAI's boundary loss makes them, by its ``distance_transform_edt``."""
    from monai.transforms.utils import distance_transform_edt

    out = torch.zeros(masks.shape)
    for b, sample in enumerate(masks):
        inside, outside = distance_transform_edt(sample), distance_transform_edt(~sample)
        out[b] = torch.where(sample, 1 - inside.float(), outside.float())
    return out


def races(edge: int, map_edge: int) -> dict[str, dict[str, Call]]:
    """Who computes what."""
    from monai import losses

    logits, hot = prediction(torch.cat([ball_label(edge), ball_label(edge).flip(2)]), 3)
    masks = class_masks(ball_label(map_edge), 3)
    here = {"spacing": (1.0, 1.0, 1.0)}
    return {
        "boundary": {
            "segloss": loss_call(monai_segloss.create("boundary", softmax=True), logits, hot, **here),
            "monai": loss_call(losses.BoundaryLoss(softmax=True), logits, hot),
        },
        "hausdorff_dt": {
            "segloss": loss_call(monai_segloss.create("hausdorff_dt", softmax=True), logits, hot, **here),
            "monai": loss_call(losses.HausdorffDTLoss(softmax=True), logits, hot),
        },
        "signed maps": {
            "segloss": lambda: signed_distance_map(masks),
            "monai": lambda: monai_maps(masks),
        },
    }


def agree(name: str, racers: dict[str, Call]) -> None:
    """Both give the same.

    Raises:
        AssertionError: they do not.
    """
    found = [call() for call in racers.values()]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4, msg=lambda text: f"{name}: {text}")


def show(rows: list[Row]) -> None:
    """Print the ratios."""
    table = Table("", "edge", "segloss s", "MONAI s", "times as fast", "wanted")
    for row in rows:
        ours, theirs = (row["seconds"][who]["least"] for who in ("segloss", "monai"))
        cells = (f"{ours:.3f}", f"{theirs:.3f}", f"{theirs / ours:.1f}", f"{WANTED[row['what']]:.0f}")
        table.add_row(row["what"], str(row["edge"]), *cells)
    Console().print(table)
    Console().print(f"distances by {cpu_backend()}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=96)
    parser.add_argument("--map-edge", type=int, default=128)
    arguments(parser)
    options = parser.parse_args()
    results = opened(options, "distance")
    for name, racers in races(options.edge, options.map_edge).items():
        edge = options.map_edge if name == "signed maps" else options.edge
        if options.again or not results.has(what=name, edge=edge):
            agree(name, racers)
            seconds = race(racers, "cpu", options.repeats, options.seconds)
            results.add({"what": name, "edge": edge, "by": cpu_backend(), "seconds": seconds}, "what", "edge")
    show(results.rows)
    Console().print(f"in {results.file}")


if __name__ == "__main__":
    main()
