"""The discriminator and the critic: one small network in plain torch, and what it is shown.

Its own, since a loss may not need MONAI, and since MONAI's ``LabelDiscriminator`` has batch or instance normalization, which
fails on one voxel, and kernels of 4, which have no result on a grid of one.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.taps import NetworkShape
from monai_segloss.schedules import TermWeight, WarmUp
from monai_segloss.schedules.base import whole

LEVELS = 3
SLOPE = 0.2
"""Of the leaky ReLU below 0."""
CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
FIRST_STEPS = 15
"""Of the power iteration before the first use."""


class PatchConv(nn.Module):
    """A convolution over 3 voxels per axis, which has a result on every grid.

    Args:
        axes, channels, features, stride, bias: as torch's.
        spectral: divide the weights, as a matrix (features, rest), by their largest singular value, estimated by power
            iteration with one step per training call (Miyato et al., ICLR 2018).
    """

    def __init__(self, axes: int, channels: int, features: int, stride: int, spectral: bool, bias: bool = True) -> None:
        super().__init__()
        made = getattr(nn, f"Conv{axes}d")(channels, features, 3, bias=bias)
        self.weight, self.bias = made.weight, made.bias
        self.axes, self.stride = axes, stride
        self.u: Tensor | None
        self.register_buffer("u", functional.normalize(torch.randn(features), dim=0) if spectral else None)
        for _ in range(FIRST_STEPS if spectral else 0):
            self.scaled()

    def scaled(self) -> Tensor:
        """The weights, divided."""
        if self.u is None:
            return self.weight
        matrix, u = self.weight.flatten(1), self.u
        with torch.no_grad():
            v = functional.normalize(u @ matrix, dim=0)
            if self.training:
                u = functional.normalize(matrix @ v, dim=0)
                self.u.copy_(u)
        return self.weight / (u @ matrix @ v).clamp_min(1e-12)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, *S / stride)."""
        return CONVOLUTIONS[self.axes](x, self.scaled(), self.bias, stride=self.stride, padding=1)


class PatchNetwork(nn.Module):
    """Convolutions of stride 2, each level with twice the features of the one before, and leaky ReLUs.

    With ``spectral`` every convolution is normalized, which an instance norm behind it would undo; else there is an instance
    norm from the second level on.

    Args:
        axes, channels: of what goes in.
        features: of the first level.
        spectral: see `PatchConv`.
    """

    def __init__(self, axes: int, channels: int, features: int, spectral: bool) -> None:
        super().__init__()
        widths = enumerate(pairwise([channels, *(features * 2**level for level in range(LEVELS))]))
        self.levels = nn.ModuleList(
            PatchConv(axes, low, high, 2, spectral, bias=spectral or not level) for level, (low, high) in widths
        )
        self.normalizes = not spectral

    def forward(self, x: Tensor) -> list[Tensor]:
        """What goes in, then the features of each level."""
        found = [x]
        for number, level in enumerate(self.levels):
            x = level(x)
            x = instance_norm(x) if number and self.normalizes else x
            found.append(functional.leaky_relu(x, SLOPE))
            x = found[-1]
        return found


class LabelDiscriminator(PatchNetwork):
    """A logit for each patch of 31 voxels per axis, in steps of 8."""

    def __init__(self, axes: int, channels: int, features: int, spectral: bool) -> None:
        super().__init__(axes, channels, features, spectral)
        self.last = PatchConv(axes, features * 2 ** (LEVELS - 1), 1, 1, spectral)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (B, 1, *S / 8)."""
        logits: Tensor = self.last(super().forward(x)[-1])
        return logits


class PatchCritic(PatchNetwork):
    """Features on several scales, the first of them what it is shown."""


def instance_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 of each channel; 0 on a grid of one voxel, where torch's own is an error."""
    axes = tuple(range(2, x.ndim))
    x = x - x.mean(axes, keepdim=True)
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + eps)


def counted(x: Tensor, valid: Tensor | None) -> Tensor:
    """``x`` with 0 at ignored voxels, of which an opponent sees nothing; ``valid`` is (B, 1, *S)."""
    return x if valid is None else x.masked_fill(~valid, 0)


def valid(batch: SegBatch) -> Tensor | None:
    """(B, 1, *S) bool, or None where all voxels count."""
    return None if batch.mask is None else batch.mask[:, None]


def image_of(batch: SegBatch, shape: NetworkShape) -> Tensor:
    """What the network was given, as the precision of the logits has it.

    Raises:
        LossShapeError: another number of channels than at the start, or another grid than that of the logits.
    """
    image = batch.maps["image"]
    wanted = (batch.logits.shape[0], shape.image_channels, *batch.logits.shape[2:])
    if image.shape != wanted:
        raise LossShapeError(f"image has shape {tuple(image.shape)}; expected {wanted}, on the grid of input.")
    return image.to(batch.masked_logits.dtype)


def after(warmup: int, argument: str, weight: TermWeight) -> TermWeight:
    """A weight that is 0 in the first epochs.

    Raises:
        ValueError: the weight is a schedule, which has a beginning of its own.
    """
    whole(0, warmup=warmup)
    if not warmup:
        return weight
    if not isinstance(weight, (int, float)):
        raise ValueError(f"warmup={warmup}: {argument} is a schedule; let it be 0 in these epochs itself.")
    return WarmUp(weight, epochs=0, begin=warmup)
