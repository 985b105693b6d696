"""The networks of priors, on one to three axes.

None of them keeps statistics of batches, so that a frozen one computes what it was trained to compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from monai_segloss.core.prior import Header, Prior, PriorError
from monai_segloss.core.taps import NetworkShape

GROUPS = 4
WIDTH, WIDEST, CODE, FINEST = 16, 64, 16, 8
"""Channels of the first level, of the widest one, of the code, and of the decoder at the full resolution."""
SMALLEST, MOST_HALVINGS = 4, 4
"""The code of an auto-encoder has this many voxels along an axis, if the patch has, and at most so many halvings."""
TILE, MOST = 8, {1: 48, 2: 48, 3: 24}
"""Edges of tiles are multiples of the first and at most the second, by axes."""

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}

Strides = Sequence[Sequence[int]]


def convolution(axes: int, given: int, made: int, stride: Sequence[int] | int = 1, kernel: int = 3) -> nn.Module:
    """A convolution that keeps the grid, or halves it, rounding up."""
    cls = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
    return cls(given, made, kernel, stride if isinstance(stride, int) else tuple(stride), kernel // 2)  # type: ignore[arg-type]


def block(axes: int, given: int, made: int, stride: Sequence[int] | int = 1) -> list[nn.Module]:
    """Convolution, group normalization, SiLU."""
    return [convolution(axes, given, made, stride), nn.GroupNorm(math.gcd(GROUPS, made), made), nn.SiLU()]


class LabelEncoder(nn.Sequential):
    """From label channels (B, C, *S) to a code (B, K, *S'): a block per level, then a convolution.

    Args:
        classes: channels C of the labels.
        strides: of each level, along each axis.
        code: channels K of the code.
    """

    def __init__(self, classes: int, strides: Strides, code: int) -> None:
        axes, widths = len(strides[0]), widths_of(len(strides))
        blocks = [block(axes, a, b, s) for a, b, s in zip([classes, *widths], widths, strides, strict=False)]
        super().__init__(*(layer for each in blocks for layer in each), convolution(axes, widths[-1], code))


class LabelAutoEncoder(nn.Module):
    """Labels to a code on a coarse grid, and back; no skip connections.

    Args:
        classes, strides, code: see `LabelEncoder`.
    """

    def __init__(self, classes: int, strides: Strides, code: int = CODE) -> None:
        super().__init__()
        self.strides = [tuple(each) for each in strides]
        axes, widths = len(strides[0]), widths_of(len(strides))
        self.encoder = LabelEncoder(classes, strides, code)
        made = [*reversed(widths[1:]), FINEST]
        self.levels = nn.ModuleList(
            nn.Sequential(*block(axes, a, b)) for a, b in zip([code, *made], made, strict=False)
        )
        self.last = convolution(axes, FINEST, classes)

    def forward(self, labels: Tensor) -> Tensor:
        """Logits (B, C, *S) of the labels."""
        sizes = list(accumulate(self.strides, _strided, initial=tuple(labels.shape[2:])))[:-1]
        x = self.encoder(labels)
        for level, size in zip(self.levels, reversed(sizes), strict=True):
            x = nn.functional.interpolate(level(x), size=size, mode=LINEAR[len(size)])
        return self.last(x)


class LabelUNet(LabelAutoEncoder):
    """A U-Net without its skip connections, whose bottleneck has the channels and the grid of another network's."""


class TransformRegressor(nn.Module):
    """The transformation that takes one boundary to the other, from a pair of tiles (N, 2, *T).

    Gives (N, P): translations, logarithms of scales, and rotations, each divided by the largest one of the training; P is 5
    in 2-D and 9 in 3-D.

    Args:
        axes: 2 or 3.
        tile: edge of the tiles, a multiple of 8.
    """

    def __init__(self, axes: int, tile: int) -> None:
        super().__init__()
        coarse = 64 * (tile // TILE) ** axes
        self.layers = nn.Sequential(
            *block(axes, 2, 16, 2), *block(axes, 16, 32, 2), *block(axes, 32, 64), *block(axes, 64, 64, 2),
            nn.Flatten(), nn.Linear(coarse, 128), nn.SiLU(), nn.Linear(128, parameters(axes)),
        )  # fmt: skip

    def forward(self, pair: Tensor) -> Tensor:
        """The transformations."""
        return self.layers(pair)


CLASSES: Mapping[str, type[nn.Module]] = {
    "autoencoder": LabelAutoEncoder,
    "label-unet": LabelUNet,
    "inverse-form": TransformRegressor,
}


def network(header: Header) -> nn.Module:
    """The network of a prior, with weights of chance."""
    return CLASSES[header.kind](**header.network)


def loaded(prior: Prior) -> nn.Module:
    """The network of a prior, with its weights.

    Raises:
        PriorError: they do not belong to it.
    """
    made = network(prior.header)
    try:
        made.load_state_dict(dict(prior.weights))
    except RuntimeError as error:
        raise PriorError(f"prior: its weights do not fit its header: {' '.join(str(error).split())}.") from None
    return made


def untrained(kind: str, shape: NetworkShape, regions: bool) -> Prior:
    """A prior of torch's random weights, for tests."""
    header = header_of(kind, shape, regions)
    return Prior(header, network(header).state_dict())


def header_of(kind: str, shape: NetworkShape, regions: bool) -> Header:
    """The header of a prior for a network, before its training.

    Raises:
        PriorError: the bottleneck has a grid that halving does not reach.
    """
    arguments: dict[str, Any]
    bottleneck = None
    if kind == "inverse-form":
        arguments = {"axes": shape.axes, "tile": tile_of(shape.size)}
    elif kind == "label-unet":
        tap = shape.taps["bottleneck"]
        bottleneck = (tap.channels, tuple(tap.size))
        arguments = {"classes": shape.classes, "strides": strides_to(shape.size, tap.size), "code": tap.channels}
    else:
        arguments = {"classes": shape.classes, "strides": strides_of(shape.size), "code": CODE}
    size = tuple(shape.size)
    return Header(kind, shape.classes, regions, size, shape.spacing, bottleneck=bottleneck, network=arguments)


def parameters(axes: int) -> int:
    """Number of translations, scales and rotations."""
    return 2 * axes + axes * (axes - 1) // 2


def widths_of(levels: int) -> list[int]:
    """Channels of each level: doubled up to the widest."""
    return [min(WIDTH * 2**i, WIDEST) for i in range(levels)]


def tile_of(size: Sequence[int]) -> int:
    """Edge of the tiles for a patch."""
    return max(TILE, min(MOST[len(size)], min(size) // TILE * TILE))


def strides_of(size: Sequence[int]) -> list[list[int]]:
    """Strides that halve each axis of a patch as long as enough voxels are left."""
    found: list[list[int]] = []
    while len(found) < MOST_HALVINGS:
        stride = [2 if -(-n // 2) >= SMALLEST else 1 for n in size]
        if max(stride) == 1:
            break
        found.append(stride)
        size = _strided(size, stride)
    return found or [[1] * len(size)]


def strides_to(size: Sequence[int], grid: Sequence[int]) -> list[list[int]]:
    """Strides that take a patch to the grid of a bottleneck; the axes with fewer halvings begin later.

    Raises:
        PriorError: halving does not reach it.
    """
    halvings = [_halvings(n, wanted) for n, wanted in zip(size, grid, strict=True)]
    if None in halvings:
        raise PriorError(f"prior: a patch of {tuple(size)} cannot be halved to the bottleneck's grid {tuple(grid)}.")
    levels = max(max(each or 0 for each in halvings), 1)
    return [[2 if levels - i <= (each or 0) else 1 for each in halvings] for i in range(levels)]


def _halvings(n: int, wanted: int) -> int | None:
    count = 0
    while n > wanted:
        n, count = -(-n // 2), count + 1
    return count if n == wanted else None


def _strided(size: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
