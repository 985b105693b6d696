"""Maps made in the workers of nnU-Net's loader: packed alongside the segmentation there, split off before each step.

The loader carries whatever channels the segmentation has, also through the scales of deep supervision (at the nearest
voxel), and drops other entries of a sample.  So the maps travel as channels after those of the target, and the soft label
after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.maps import MapSpec

REGRESSION_TARGET = "regression_target"
"""What batchgeneratorsv2 moves with the image without noise, blur or contrast."""
SOFT_LABEL = "soft_label"
"""What `NnUNetLoss` takes in place of the target."""


@dataclass(frozen=True)
class Layout:
    """Where the maps are in a packed segmentation.

    Args:
        specs: the maps, in this order after the target.
        classes: labels of the foreground, or the number of regions.
        regions: the target has one channel per region instead of labels.
        ignore_channel: the last channel of the target marks what to ignore.
        spacing: of the patch, in array axis order, in mm.
        soft_labels: a fraction of each foreground class, or of each region, follows the maps.
        image_channels: of the image, which the soft label follows up to the first transform.
    """

    specs: tuple[MapSpec, ...]
    classes: int
    regions: bool
    ignore_channel: bool
    spacing: tuple[float, ...]
    soft_labels: bool = False
    image_channels: int = 0

    @property
    def target_channels(self) -> int:
        """Channels of the target itself."""
        return self.classes + self.ignore_channel if self.regions else 1

    @property
    def packed_channels(self) -> list[int]:
        """Channels of the target, of each map and of the soft label, in this order."""
        maps = [spec.channels(self.classes, not self.regions) for spec in self.specs]
        return [self.target_channels, *maps, *([self.classes] if self.soft_labels else [])]

    @property
    def names(self) -> str:
        """What is packed, for messages."""
        keys = ", ".join(repr(spec.key) for spec in self.specs)
        maps = [f"the map{'s' if len(self.specs) > 1 else ''} {keys}"] if keys else []
        return " and ".join([*maps, *(["the soft label"] if self.soft_labels else [])])

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

    def pack(self, segmentation: Tensor, soft: Tensor | None = None) -> Tensor:
        """Target, maps and soft label of one sample, (channels, *S) int32, or float32 with fractions.

        Maps of a soft label are those of its classes from one half on, as a loss makes them itself.
        """
        spacing, counted = torch.tensor(self.spacing), self.valid(segmentation)
        masks = self.masks(segmentation) if soft is None else soft > 0.5
        if soft is not None and counted is not None:
            masks = masks & counted
        valid = None if counted is None else counted[None]
        found = [spec.packed(masks[None], spacing, valid, not self.regions)[0] for spec in self.specs]
        found += [] if soft is None else [soft]
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
        soft = {SOFT_LABEL: self._with_background(maps.pop())} if self.soft_labels else {}
        found = {spec.key: self._as_sent(spec, each) for spec, each in zip(self.specs, maps, strict=True)}
        return target, found | soft

    def _with_background(self, soft: Tensor) -> Tensor:
        """A soft label as losses take it: of labels the background is what the foreground leaves."""
        soft = soft.clamp(0, 1)
        return soft if self.regions else torch.cat(((1 - soft.sum(1, keepdim=True)).clamp(min=0), soft), 1)

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
        soft = sample.pop(REGRESSION_TARGET, None)
        if self.layout.soft_labels and soft is None:
            raise LossShapeError(
                f"a transform of another base class drops the soft label ({REGRESSION_TARGET!r} of batchgeneratorsv2): "
                "train without that class"
            )
        return {**sample, "segmentation": self.layout.pack(sample["segmentation"], soft)}


class TakeSoftLabel:
    """The first transform of the workers: the soft label leaves the image and is moved along with it from there."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def __call__(self, **sample: Any) -> dict[str, Any]:
        image, own = sample["image"], self.layout.image_channels
        if image.shape[0] != own + self.layout.classes:
            raise LossShapeError(
                f"the image has {image.shape[0]} channels, expected {own} and {self.layout.classes} of the soft label: "
                "another base class replaces get_tr_and_val_datasets, so name the one with the loss first among the bases"
            )
        return {**sample, "image": image[:own], REGRESSION_TARGET: image[own:].clone()}


def insert(transforms: Any, layout: Layout) -> Any:
    """Put the packing after everything that moves or rewrites the segmentation, before it is scaled down."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

    steps = list(transforms.transforms)
    last = next((i for i, step in enumerate(steps) if isinstance(step, DownsampleSegForDSTransform)), len(steps))
    first = [TakeSoftLabel(layout)] if layout.soft_labels else []
    transforms.transforms = [*first, *steps[:last], PackMaps(layout), *steps[last:]]
    return transforms


def worker_maps(needs: Iterable[MapSpec]) -> tuple[MapSpec, ...]:
    """The maps that are better made in the workers."""
    return tuple(spec for spec in needs if spec.on_cpu)


def split_batch(
    batch: Mapping[str, Any], layout: Layout, device: torch.device
) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """The batch as nnU-Net knows it, with its target on the device, and the maps of each scale."""
    packed = batch["target"]
    scales: Sequence[Tensor] = packed if isinstance(packed, list) else [packed]
    parts = [layout.split(scale.to(device, non_blocking=True)) for scale in scales]
    targets = [target for target, _ in parts]
    return {**batch, "target": targets if isinstance(packed, list) else targets[0]}, [maps for _, maps in parts]
