"""A loss of ours in the place of nnU-Net's: one scale or several, and the ignore channel of regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.taps import Taps
from nnunet_trainers.maps import SOFT_LABEL

if TYPE_CHECKING:
    from nnunet_trainers.extra_inputs import ExtraInputs

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class NnUNetLoss(nn.Module):
    """The weighted sum of a loss over the scales of deep supervision, or the loss itself where there is one output.

    Args:
        loss: called as ``loss(output, target, mask=..., spacing=...)``.
        spacings: voxel spacing of each scale, highest resolution first, in the order of the array axes, in mm.
        weights: one per scale; a weight of 0 skips the scale. None: output and target are tensors, not lists.
        ignore_channel: the last channel of the target marks voxels to ignore (nnU-Net's regions with an ignore label).
        taps: what the loss takes from the network, at the highest resolution.
        ignore_label: label of voxels to ignore where soft labels take the place of the target; else the loss knows it.

    Raises:
        LossShapeError: outputs, targets and scales differ in number.
    """

    def __init__(
        self,
        loss: nn.Module,
        spacings: Sequence[Sequence[float]],
        weights: Sequence[float] | None = None,
        ignore_channel: bool = False,
        taps: Taps | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        if weights is not None and len(weights) != len(spacings):
            raise LossShapeError(f"weights: {len(weights)} came for {len(spacings)} scales, expected one per scale")
        # nnU-Net sets the last weight to 0 and divides by the sum, which is 0/0 for a network with a single scale.
        single = weights is not None and len(weights) == 1 and math.isnan(weights[0])
        self.loss = loss
        self.spacings = tuple(tuple(map(float, spacing)) for spacing in spacings)
        self.weights = (1.0,) if single else None if weights is None else tuple(map(float, weights))
        self.ignore_channel, self.taps, self.ignore_label = ignore_channel, taps, ignore_label
        self.last: dict[str, Tensor] = {}
        self.extra_inputs: Sequence[Mapping[str, Tensor]] = ()
        """What the next call takes with its target, by scale; of no other call, so that no batch has that of another."""
        self.source: ExtraInputs | None = None

    @property
    def accepts(self) -> tuple[str, ...]:
        """Maps that the loss takes."""
        return tuple(getattr(self.loss, "accepts", ()))

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        """Maps that the loss declares."""
        return tuple(getattr(self.loss, "needs", ()))

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """The loss of one output, or of a list of outputs with a list of targets, highest resolution first."""
        if self.weights is None:
            if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
                raise LossShapeError("deep supervision is off: output and target must each be one tensor, a list came")
            return self._at(0, output, target, *self._extra_inputs(target))
        if isinstance(output, Tensor) or isinstance(target, Tensor):
            raise LossShapeError(
                "deep supervision is on: output and target must each be a list of tensors, a tensor came"
            )
        if not len(output) == len(target) == len(self.weights):
            raise LossShapeError(
                f"deep supervision has {len(self.weights)} scales: {len(output)} outputs and {len(target)} targets came"
            )
        extra_inputs = _at_scales(self._extra_inputs(target[0]) or [{} for _ in target], output)
        terms = [w * self._at(i, output[i], target[i], extra_inputs[i]) for i, w in enumerate(self.weights) if w != 0]
        return torch.stack(terms).sum()

    def _extra_inputs(self, target: Tensor) -> Sequence[Mapping[str, Tensor]]:
        found, self.extra_inputs = self.extra_inputs, ()
        if self.source is not None and not found:
            self.source.refuse_unsplit(target)
        return found

    def _at(self, scale: int, output: Tensor, target: Tensor, extra_inputs: Mapping[str, Tensor] = NOTHING) -> Tensor:
        mask = None
        if self.ignore_channel:
            mask, target = target[:, -1:] == 0, target[:, :-1]
        more: dict[str, Any] = dict(extra_inputs)
        if SOFT_LABEL in more:
            if self.ignore_label is not None:
                mask = target != self.ignore_label
            target = more.pop(SOFT_LABEL)
        if scale == 0 and self.taps is not None:
            more |= self.taps.take()
        if getattr(self.loss, "tells_scales_apart", False):
            more["full_resolution"] = scale == 0
        value: Tensor = self.loss(output, target, mask=mask, spacing=self.spacings[scale], **more)
        if scale == 0:
            terms: Mapping[str, Tensor] = getattr(self.loss, "last", {})
            self.last = dict(terms)
        return value

    @property
    def term_weights(self) -> dict[str, float]:
        """Weights of the terms in this epoch, of a loss that has them."""
        return dict(getattr(self.loss, "term_weights", {}))

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch to a loss with weights that change with it."""
        follow: Callable[[int], None] | None = getattr(self.loss, "set_epoch", None)
        if follow is not None:
            follow(epoch)

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Hand the means of the terms in the epoch that ended to a loss whose weights follow them."""
        follow: Callable[[Mapping[str, float]], None] | None = getattr(self.loss, "end_epoch", None)
        if follow is not None:
            follow(means)


def _at_scales(
    extra_inputs: Sequence[Mapping[str, Tensor]], output: Sequence[Tensor]
) -> Sequence[Mapping[str, Tensor]]:
    """The image of the batch, which comes at the highest resolution, on the grid of each scale: means of its voxels."""
    image = extra_inputs[0].get("image")
    if image is None:
        return extra_inputs
    images = [nn.functional.interpolate(image, size=each.shape[2:], mode="area") for each in output[1:]]
    return [extra_inputs[0], *({**maps, "image": x} for maps, x in zip(extra_inputs[1:], images, strict=True))]
