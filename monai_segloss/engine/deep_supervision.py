"""One loss over the outputs of a deeply supervised network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from monai.data import MetaTensor
from monai.utils import CommonKeys
from torch import Tensor, nn

from monai_segloss.core.taps import is_tap
from monai_segloss.engine.around import Around


class DeepSupervision(Around):
    """Weighted sum of one loss over the outputs of a deeply supervised network, finest first.

    ``sum_l weights[l] * loss(outputs[l], target at the size of outputs[l])``. The target, a tensor or a mapping with
    ``"label"``, is sampled at the nearest voxel, its affine following; the image, for a loss that takes it, is averaged.
    What else a loss takes from the network it gets with the finest output only. A map that the loss declares in ``needs`` is
    handed on at the target's own size only; at other sizes the loss computes it from the smaller label. Of what the
    loss names in ``point_maps``, such as ``points``, no voxel is lost: a larger voxel has the largest value of those in it.
    Entries without the size of the label, such as ``labeled``, are handed on as they are.

    Args:
        loss: called as ``loss(output, target)``.
        weights: one weight per output; None means MONAI's 1, 1/2, 1/4, 1/8, 1/16, 1/16 ... An output of weight 0 costs
            nothing.

    Shape:
        outputs (B, C, *S_l) each, in a list or tuple, or one tensor; target (B, 1 or C, *S) or (B, *S).

    Raises:
        ValueError: the number of outputs is not the number of weights.

    Example:
        >>> outputs = [torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)]
        >>> float(DeepSupervision(lambda output, label: output.sum() * 0 + 1)(outputs, torch.zeros(1, 1, 8, 8)))
        1.5
    """

    def __init__(self, loss: nn.Module | Callable[..., Tensor], weights: Sequence[float] | None = None) -> None:
        super().__init__(loss)
        self.weights = None if weights is None else tuple(weights)
        self.last: dict[str, Tensor] = {}

    def forward(self, input: Tensor | Sequence[Tensor], target: Tensor | Mapping[str, Tensor]) -> Tensor:
        """The weighted sum; ``last`` then holds the weighted sum of each term of the loss."""
        outputs = [input] if isinstance(input, Tensor) else list(input)
        total = outputs[0].new_zeros((), dtype=torch.float32)
        self.last = {}
        for level, (output, weight) in enumerate(zip(outputs, self._weights(len(outputs)), strict=True)):
            if weight == 0:
                continue
            more = {"full_resolution": level == 0} if self.full_resolution_only else {}
            there = self._at(target, output.shape[2:], level == 0)
            total = total + weight * self.loss(_graded(output, outputs[0]), there, **more)
            for term, value in getattr(self.loss, "last", {}).items():
                self.last[term] = self.last.get(term, 0) + weight * value
        return total

    def _weights(self, outputs: int) -> tuple[float, ...]:
        if self.weights is None:
            return tuple(max(0.5**level, 0.0625) for level in range(outputs))
        if len(self.weights) != outputs:
            raise ValueError(f"weights has {len(self.weights)} entries, but the network gave {outputs} outputs.")
        return self.weights

    def _at(
        self, target: Tensor | Mapping[str, Tensor], size: torch.Size, finest: bool = True
    ) -> Tensor | dict[str, Tensor]:
        if isinstance(target, Tensor):
            return _nearest(target, size)
        if CommonKeys.LABEL not in target:  # which the loss refuses
            return dict(target)
        declared, space = {spec.key for spec in self.needs}, target[CommonKeys.LABEL].shape[-len(size) :]
        point_maps = getattr(self.loss, "point_maps", ())

        def sampled(key: str, value: Tensor) -> Tensor:
            if key == "image" and not finest:
                return nn.functional.interpolate(value.as_subclass(Tensor), size=tuple(size), mode="area")
            if value.ndim <= len(size) or value.shape[-len(size) :] != space:
                return value
            return _largest(value, size) if key in point_maps else _nearest(value, size)

        return {
            key: sampled(key, value)
            for key, value in target.items()
            if (finest or key == "image" or not is_tap(key, self.taps))
            and (key not in declared or value.shape[-len(size) :] == size)
        }


def _nearest(target: Tensor, size: torch.Size) -> Tensor:
    """``target`` sampled at the voxel centers of a grid of ``size``, any dtype (``interpolate`` has no integers)."""
    before = target.shape[-len(size) :]
    if before == size:
        return target
    sampled = target
    for axis, (old, new) in enumerate(zip(before, size, strict=True), start=target.ndim - len(size)):
        index = ((torch.arange(new, device=target.device) + 0.5) * (old / new)).long().clamp_(max=old - 1)
        sampled = sampled.index_select(axis, index)
    if isinstance(sampled, MetaTensor):
        factors = torch.tensor([old / new for old, new in zip(before, size, strict=True)])
        sampled.meta = dict(sampled.meta)  # that of a batch is the target's own
        sampled.affine = _scaled(sampled.affine, factors)
    return sampled


def _largest(point_maps: Tensor, size: torch.Size) -> Tensor:
    """The largest of the values in each voxel of a coarser grid; each is in one of them."""
    found = point_maps.as_subclass(Tensor)
    for axis, (old, new) in enumerate(
        zip(point_maps.shape[-len(size) :], size, strict=True), start=point_maps.ndim - len(size)
    ):
        if new < old:
            parts = torch.split(found, (torch.arange(old) * new // old).bincount().tolist(), axis)
            found = torch.stack([part.amax(axis) for part in parts], axis)
    return found


def _graded(output: Tensor, finest: Tensor) -> Tensor:
    """An output with the affine of its own grid: a network gives all of them that of its input."""
    if not isinstance(output, MetaTensor) or not isinstance(finest, MetaTensor) or output.shape == finest.shape:
        return output
    factors = torch.tensor([old / new for old, new in zip(finest.shape[2:], output.shape[2:], strict=True)])
    graded = MetaTensor(output.as_tensor(), meta=dict(finest.meta))
    graded.affine = _scaled(finest.affine, factors)
    return graded


def _scaled(affine: Tensor, factors: Tensor) -> Tensor:
    """Affine of a grid whose voxels are ``factors`` larger and whose corner stays where it is."""
    scaled, axes = affine.clone(), len(factors)
    scaled[..., :axes] = affine[..., :axes] * factors.to(affine)
    shift = affine[..., :axes] @ ((factors.to(affine) - 1) / 2)
    scaled[..., -1] = affine[..., -1] + shift
    return scaled
