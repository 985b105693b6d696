"""Losses of topology and of centerlines on the CPU: seconds and peak memory of interleaved calls.

    python -m benchmarks topology

- ``persistence_matching`` and ``betti_prior``: forward + backward of one class on a slice of 256^2 and on volumes of 32^3
  and 64^3, of a smooth prediction, as of a trained network, and of noise, as of one that begins; one tile each.
- ``soft_cldice`` against MONAI's: forward + backward at (1, 2, 96, 96, 96) with 3 and 10 erosions, classes pooled as MONAI
  does; both give the same value.  Memory is the peak beyond logits, target and gradient, in a process of its own (Linux).
- ``tubed_skeleton``, the target of `skeleton_recall`: of a patch of 128^3 against scikit-image's skeleton alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from torch import Tensor

import monai_segloss
from benchmarks.measure import LEAN, extra_memory, race
from benchmarks.results import Row, arguments, opened
from monai_segloss.maps import tubed_skeleton_map

Call = Callable[[], object]
SHAPES = ((256, 256), (32, 32, 32), (64, 64, 64))
PERSISTENT = ("persistence_matching", "betti_prior")
CLDICE_EDGE, TUBE_EDGE = 96, 128


def smooth(shape: tuple[int, ...]) -> Tensor:
    """Logits (1, 1, *S) of blobs of about 16 voxels."""
    noise = torch.randn(1, 1, *(max(2, n // 8) for n in shape), generator=torch.Generator().manual_seed(0))
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return 3 * torch.nn.functional.interpolate(noise, size=shape, mode=mode)


def noise(shape: tuple[int, ...]) -> Tensor:
    """Logits (1, 1, *S) of which no two neighbors are alike."""
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))


def vessels(edge: int) -> Tensor:
    """A mask (1, 1, edge, edge, edge) of nine winding tubes of radius 3."""
    axis = torch.arange(edge, dtype=torch.float32)
    mask = torch.zeros(edge, edge, edge, dtype=torch.bool)
    for i in range(9):
        y = edge * (0.2 + 0.3 * (i // 3) + 0.05 * torch.sin(axis / 9 + i))
        x = edge * (0.2 + 0.3 * (i % 3) + 0.05 * torch.cos(axis / 7 + 2 * i))
        mask |= (axis[None, :, None] - y[:, None, None]) ** 2 + (axis[None, None, :] - x[:, None, None]) ** 2 <= 9
    return mask[None, None]


def step(loss: Callable[..., Tensor], logits: Tensor, target: Tensor) -> Call:
    """One forward and backward pass."""
    leaf = logits.clone().requires_grad_()

    def call() -> Tensor:
        leaf.grad = None
        value = loss(leaf, target)
        value.backward()
        return value.detach()

    return call


def cldice(who: str, iter_: int, edge: int) -> Call:
    """A step of the loss of one library."""
    from monai import losses

    made = {
        "segloss": partial(monai_segloss.SoftclDiceLoss, per_class=False),
        "monai": losses.SoftclDiceLoss,
    }
    mask = vessels(edge)
    target = torch.cat((~mask, mask), 1).float()
    logits = 2 * target + torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    return step(made[who](iter_=iter_, softmax=True), logits, target)


def measure_memory(who: str, iter_: int, edge: int) -> None:
    """Print the extra peak memory of a step, after one on a small input."""
    cldice(who, iter_, 8)()
    print(json.dumps(extra_memory(cldice(who, iter_, edge), 2 * 4 * edge**3, "cpu")))


def memory(who: str, iter_: int, edge: int) -> int:
    """The same, from a process of its own."""
    code = f"from benchmarks.topology import measure_memory; measure_memory({who!r}, {iter_}, {edge})"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env={**os.environ, **LEAN}, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout))


def skimage(mask: Tensor) -> Call:
    """The skeleton of each map by scikit-image, and nothing else."""
    from skimage.morphology import skeletonize

    array = mask[0, 0].numpy()
    return lambda: skeletonize(array)


def rows(largest: int, cldice_edge: int, tube_edge: int) -> list[tuple[Row, Callable[[], dict[str, Call]]]]:
    """What is measured: the row without its figures, and who takes part."""
    found: list[tuple[Row, Callable[[], dict[str, Call]]]] = []
    for key in PERSISTENT:
        for shape in (shape for shape in SHAPES if max(shape) <= largest):
            made = partial(persistent, key, shape)
            found.append(({"what": key, "input": "x".join(map(str, shape))}, made))
    for iter_ in (3, 10):
        name = f"2x{cldice_edge}x{cldice_edge}x{cldice_edge}, k = {iter_}"
        made = partial(both, iter_, cldice_edge)
        found.append(({"what": "soft_cldice", "input": name, "iter_": iter_, "edge": cldice_edge}, made))
    name = f"{tube_edge}x{tube_edge}x{tube_edge}"
    found.append(({"what": "tubed_skeleton", "input": name}, partial(tubes, tube_edge)))
    return found


def persistent(key: str, shape: tuple[int, ...]) -> dict[str, Call]:
    """A loss of persistence on both kinds of predictions; in 2-D all of the slice is one tile."""
    more = {"patch_size": max(shape)} if key == "persistence_matching" else {}
    loss = monai_segloss.create(key, sigmoid=True, **more)
    target = (smooth(shape).roll(3, 2) > 0).float()
    return {"smooth": step(loss, smooth(shape), target), "noise": step(loss, noise(shape), target)}


def both(iter_: int, edge: int) -> dict[str, Call]:
    """clDice of both libraries.

    Raises:
        AssertionError: they do not give the same.
    """
    calls = {who: cldice(who, iter_, edge) for who in ("segloss", "monai")}
    torch.testing.assert_close(*(call() for call in calls.values()), rtol=1e-4, atol=1e-4)
    return calls


def tubes(edge: int) -> dict[str, Call]:
    """The target of skeleton recall, and scikit-image alone."""
    mask = vessels(edge)
    return {"segloss": lambda: tubed_skeleton_map(mask), "skimage": skimage(mask)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=256, help="largest edge of the persistence")
    parser.add_argument("--cldice-edge", type=int, default=CLDICE_EDGE)
    parser.add_argument("--tube-edge", type=int, default=TUBE_EDGE)
    arguments(parser)
    parser.set_defaults(repeats=5, seconds=20.0)
    options = parser.parse_args()
    results, console = opened(options, "topology"), Console()
    for row, made in rows(options.largest, options.cldice_edge, options.tube_edge):
        fields = {name: row[name] for name in ("what", "input")}
        if not options.again and results.has(**fields):
            continue
        seconds = race(made(), "cpu", options.repeats, options.seconds)
        more = {}
        if "iter_" in row:
            more["extra bytes"] = {who: memory(who, row["iter_"], row["edge"]) for who in seconds}
        results.add({**fields, "seconds": seconds, **more}, *fields)
        listed = ", ".join(f"{name} {found['least']:.3f} s" for name, found in seconds.items())
        console.print(f"{row['what']} {row['input']}: {listed}")
    console.print(f"in {results.file}")


if __name__ == "__main__":
    main()
