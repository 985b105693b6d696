"""Maps made in the workers of nnU-Net's loader: packed alongside the segmentation there, split off before each step.

The loader carries whatever channels the segmentation has, also through the scales of deep supervision (at the nearest
voxel), and drops other entries of a sample.  So the maps travel as channels after those of the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.maps import MapSpec


@dataclass(frozen=True)
class Layout:
    """Where the maps are in a packed segmentation.

    Args:
        specs: the maps, in this order after the target.
        classes: labels of the foreground, or the number of regions.
        regions: the target has one channel per region instead of labels.
        ignore_channel: the last channel of the target marks what to ignore.
        spacing: of the patch, in array axis order, in mm.
    """

    specs: tuple[MapSpec, ...]
    classes: int
    regions: bool
    ignore_channel: bool
    spacing: tuple[float, ...]

    @property
    def target_channels(self) -> int:
        """Channels of the target itself."""
        return self.classes + self.ignore_channel if self.regions else 1

    @property
    def packed_channels(self) -> list[int]:
        """Channels of the target and of each map, in this order."""
        return [self.target_channels, *(spec.channels(self.classes, not self.regions) for spec in self.specs)]

    @property
    def names(self) -> str:
        """The maps by name, for messages."""
        return f"the map{'s' if len(self.specs) > 1 else ''} {', '.join(repr(spec.key) for spec in self.specs)}"

    def masks(self, segmentation: Tensor) -> Tensor:
        """Voxels of each class (C', *S) bool, none where ignored."""
        if not self.regions:
            labels = torch.arange(1, self.classes + 1).view(-1, *(1,) * (segmentation.ndim - 1))
            return segmentation[:1] == labels
        masks = segmentation[: self.classes] > 0
        return masks & (segmentation[self.classes] == 0) if self.ignore_channel else masks

    def valid(self, segmentation: Tensor) -> Tensor | None:
        """Voxels that count (1, *S) bool, None where all do."""
        if self.regions:
            return segmentation[self.classes :] == 0 if self.ignore_channel else None
        return (segmentation[:1] >= 0) & (segmentation[:1] <= self.classes)

    def pack(self, segmentation: Tensor) -> Tensor:
        """Target and maps of one sample, (channels, *S) int32, or float32 with a map of fractions."""
        masks, spacing = self.masks(segmentation)[None], torch.tensor(self.spacing)
        counted = self.valid(segmentation)
        valid = None if counted is None else counted[None]
        found = [spec.packed(masks, spacing, valid, not self.regions)[0] for spec in self.specs]
        dtype = torch.float32 if any(x.is_floating_point() for x in found) else torch.int32
        return torch.cat([x.to(dtype) for x in (segmentation, *found)])

    def split(self, packed: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Target, of the type that nnU-Net gives it, and maps of a batch (B, channels, *S)."""
        channels = self.packed_channels
        if packed.shape[1] != sum(channels):
            raise LossShapeError(
                f"the target has {packed.shape[1]} channels, expected {sum(channels)} with {self.names}: another "
                "base class replaces get_training_transforms, so name the trainer with the loss first among the bases"
            )
        target, *maps = torch.split(packed, channels, 1)
        target = target.bool() if self.regions else target.to(torch.int16)
        return target, {spec.key: self._as_sent(spec, each) for spec, each in zip(self.specs, maps, strict=True)}

    def _as_sent(self, spec: MapSpec, found: Tensor) -> Tensor:
        """A map as losses take it: one channel per class, of which the background of labels has no map, or one for all."""
        if self.regions or spec.exclusive:
            return found
        return torch.cat((torch.zeros_like(found[:, :1]), found), 1)


class PackMaps:
    """The transform of the workers."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __call__(self, **sample: Any) -> dict[str, Any]:
        return {**sample, "segmentation": self.layout.pack(sample["segmentation"])}


def insert(transforms: Any, layout: Layout) -> Any:
    """Put the packing after everything that moves or rewrites the segmentation, before it is scaled down."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

    steps = list(transforms.transforms)
    last = next((i for i, step in enumerate(steps) if isinstance(step, DownsampleSegForDSTransform)), len(steps))
    transforms.transforms = [*steps[:last], PackMaps(layout), *steps[last:]]
    return transforms


def worker_maps(needs: Iterable[MapSpec]) -> tuple[MapSpec, ...]:
    """The maps that are better made in the workers."""
    return tuple(spec for spec in needs if spec.on_cpu)


def split_batch(batch: Mapping[str, Any], layout: Layout) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """The batch as nnU-Net knows it, and the maps of each scale."""
    packed = batch["target"]
    scales: Sequence[Tensor] = packed if isinstance(packed, list) else [packed]
    parts = [layout.split(scale) for scale in scales]
    targets = [target for target, _ in parts]
    return {**batch, "target": targets if isinstance(packed, list) else targets[0]}, [maps for _, maps in parts]
