"""Heads: small modules from features of a network to maps on the grid of its logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from monai_segloss.core.companions import float_features
from monai_segloss.core.counts import mask_logits
from monai_segloss.core.taps import NetworkShape

CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MODES = ("linear", "bilinear", "trilinear")
FEWEST = 8
"""Channels that a decoder without skips keeps at least."""

HEADS = {
    "linear": ("decoder",),
    "decoder": ("bottleneck", "skips"),
    "late_decoder": ("middle", "skips"),
    "free_decoder": ("bottleneck",),
}
"""Kinds of heads, and the taps that each takes."""


def head(kind: str, shape: NetworkShape, channels: int) -> nn.Module:
    """A head of one of the `HEADS`, from the features of a network to so many channels."""
    if kind == "linear":
        return Linear(shape.taps["decoder"].channels, channels)
    return TaskDecoder(shape, channels, start=HEADS[kind][0], skips="skips" in HEADS[kind])


class Linear(nn.Linear):
    """A 1x1 convolution of the decoder's features, in however many dimensions."""

    def forward(self, features: Mapping[str, Tensor], size: Sequence[int], mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(B, channels, *size); voxels that ``mask`` (B, *size) leaves out have no part in it."""
        x = float_features(features["decoder"], self)
        x = mask_logits(x, mask) if tuple(x.shape[2:]) == tuple(size) else x
        z = self.weight @ x.flatten(2) + self.bias[:, None]
        return resized(z.view(*z.shape[:2], *x.shape[2:]), size)


class TaskDecoder(nn.Module):
    """A decoder of its own: at each finer grid a 3x3 convolution, instance normalization and leaky ReLU; at last 1x1.

    Args:
        shape: of the network.
        channels: of the result.
        start: the tap from which it goes up.
        skips: it is given the encoder's features of each finer grid, and has their channels; else the grid doubles and the
            channels halve from step to step, up to half of the resolution: finer than that such features say nothing,
            and a convolution there takes most of the time.
    """

    def __init__(self, shape: NetworkShape, channels: int, start: str, skips: bool) -> None:
        super().__init__()
        self.start, width, here = start, shape.taps[start].channels, shape.taps[start].size
        finer = {name: tap for name, tap in shape.taps.items() if name.startswith("skip_")} if skips else {}
        finer = {name: tap for name, tap in finer.items() if math.prod(tap.size) > math.prod(here)}
        self.skips = sorted(finer, key=lambda name: math.prod(finer[name].size))
        given = [finer[name].channels for name in self.skips]
        if not skips:
            widest = max(b / a for a, b in zip(here, shape.size, strict=True))
            steps = max(1, math.ceil(math.log2(widest)) - 1)
            given = [max(width >> i, FEWEST) for i in range(1, 1 + steps)]
        self.steps = nn.ModuleList()
        for each in given:
            self.steps.append(_step(shape.axes, width + each * skips, each))
            width = each
        self.last = CONVOLUTIONS[shape.axes - 1](width, channels, 1)

    def forward(self, features: Mapping[str, Tensor], size: Sequence[int], mask: Tensor | None = None) -> Tensor:
        """(B, channels, *size)."""
        x = float_features(features[self.start], self)
        for i, step in enumerate(self.steps):
            if self.skips:
                skip = float_features(features[self.skips[i]], self)
                x = torch.cat((resized(x, skip.shape[2:]), skip), 1)
            else:
                x = resized(x, [min(2 * a, b) for a, b in zip(x.shape[2:], size, strict=True)])
            x = step(x)
        return resized(self.last(x), size)


class InstanceNorm(nn.GroupNorm):
    """Instance normalization, also of a single voxel, which torch's refuses."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Mean 0 and variance 1 in each channel of each sample, then the affine map."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _step(axes: int, given: int, channels: int) -> nn.Module:
    convolution = CONVOLUTIONS[axes - 1](given, channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, InstanceNorm(channels), nn.LeakyReLU(0.01))


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """The features on another grid, linear between voxels."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return nn.functional.interpolate(x, size=tuple(size), mode=MODES[x.ndim - 3])
