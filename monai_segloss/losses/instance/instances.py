"""What the losses of components share: which channels have instances, their components and the cells of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from monai_segloss.core.arguments import numbers, shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.check import hard
from monai_segloss.core.counts import Voxels
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.exact import sum_by
from monai_segloss.core.maps import MapSpec, cached
from monai_segloss.kernels.components import Segments, nearest_component
from monai_segloss.kernels.recomputed import by_name, sums, voxel_parts
from monai_segloss.maps.components import component_cell_map, component_map

COMPONENTS = MapSpec.of("components", component_map, {}, exclusive=True, on_cpu=True, in_mm=False)
TOUCHING = MapSpec.of("components", component_map, {"faces": True}, exclusive=True, on_cpu=True, in_mm=False)
"""Where voxels that only touch at an edge or a corner are apart."""
CELLS = MapSpec.of("cells", component_cell_map, {}, on_cpu=True)
LARGEST = 2**31 - 1
"""Largest id of a component that a caller may send."""


def connectivity(faces: bool) -> MapSpec:
    """The map of components, connected over faces only or over edges and corners too."""
    return TOUCHING if faces else COMPONENTS


def first_class(batch: SegBatch) -> int:
    """First channel with instances: with one class per voxel channel 0 is the background, which has none."""
    return 0 if batch.multilabel else 1


def refuse_fractions(batch: SegBatch) -> None:
    """A component has no soft voxels: half of it could count as inside and the other half as outside."""
    if not batch.has_labels:
        hard(batch.one_hot)


def inside(batch: SegBatch) -> Tensor:
    """Voxels of each class with instances, bool (B, C', *S); a soft target is inside above 1/2."""
    return batch.one_hot[:, first_class(batch) :] > 0.5


def components(batch: SegBatch, spec: MapSpec = COMPONENTS) -> Tensor:
    """Ids of the components of each class with instances, (B, C', *S) int64, 0 outside and where ignored.

    From the map that the spec names if the caller sent it, else from ``components``, which may be annotated instances; else
    found here, without the ignored voxels.

    Raises:
        ValueError: the map is not made of whole numbers from 0 to `LARGEST`, or says 0 inside of a class.
    """
    mask, name = inside(batch), spec.key if spec.key in batch.maps else COMPONENTS.key
    ids = _sent(name, batch)
    if ids is None:
        return cached(spec, batch, first_class(batch), lambda: spec.make(mask, None, None).long())
    ids = ids.expand(mask.shape).masked_fill(~mask, 0)
    if bool((mask & (ids == 0)).any()):
        missing = int((mask & (ids == 0)).sum())
        raise ValueError(f"{name} is 0 at {missing} voxels of a class; expected the id of their component, 1 or more.")
    return ids


def cells(batch: SegBatch) -> Segments:
    """The cells of the components: what lies nearest to each, without the ignored voxels.

    From the map ``cells`` if the caller sent it (a cell whose component is not there, as on a coarser grid, is left out),
    else from the components.

    Raises:
        ValueError: the map is not made of whole numbers from 0 to `LARGEST`, or has one channel for several classes: those
            of a class are the whole image, divided between its own components.
    """
    counted = None if batch.mask is None else batch.mask[:, None]
    ids = _sent("cells", batch)
    if ids is None:
        found = cached(
            CELLS, batch, first_class(batch), lambda: nearest_component(components(batch), batch.required_spacing)
        )
        return Segments.of(found, counted)
    mask = inside(batch)
    if ids.shape[1] != mask.shape[1]:
        raise LossShapeError(
            f"cells has one channel for {mask.shape[1]} classes with instances; each class has cells of its own: expected "
            f"{tuple(batch.logits.shape)}."
        )
    segments = Segments.of(ids, counted)
    return segments.those(segments.sums(mask)[0] > 0)


def _sent(name: str, batch: SegBatch) -> Tensor | None:
    """Ids of the classes with instances that the caller sent, (B, 1 | C', *S) int64."""
    sent = batch.class_map(name)
    if sent is None:
        return None
    sent = sent[:, first_class(batch) :] if sent.shape[1] == batch.classes > 1 else sent
    sent = sent if sent.is_floating_point() else sent.long()
    if not bool(((sent >= 0) & (sent <= LARGEST) & (sent == sent.floor())).all()):
        raise ValueError(f"{name} holds ids that are not whole numbers from 0 to {LARGEST}.")
    return sent.long()


def component_sums(
    values: Callable[[Voxels], Sequence[Tensor]], batch: SegBatch, segments: Segments
) -> tuple[Tensor, ...]:
    """Sums over each component (T,) of values (1, C, n) of some voxels, which the gradient computes again."""
    z, activation = by_name(batch.masked_logits, batch.activation)
    first, maps = first_class(batch), [x.flatten(2) for x in (z, batch.one_hot, segments.number)]

    def table(_: slice, z: Tensor, g: Tensor, number: Tensor) -> Tensor:
        found = values(Voxels(z, g.to(z.dtype), activation, first))
        voxel = (number >= 0).flatten().nonzero()[:, 0]
        index = number.flatten()[voxel]
        rows = [x.flatten().index_select(0, voxel) for x in found]
        return torch.stack([sum_by(x, index, len(segments.owner)) for x in rows])

    found = sums(table, voxel_parts(maps[0]), None, *maps)
    return tuple(found)


def instance_table(segments: Segments, values: Tensor, batch: SegBatch, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean of a value per component (T,) in each (sample, class), times the class weights, and which have components."""
    mean, there = (x.to(batch.masked_logits.dtype) for x in segments.mean_by_row(values))
    if weight is not None and weight.ndim:
        weight = weight[first_class(batch) :]
    return mean if weight is None else mean * weight.to(mean), there


def clipping(clip: Sequence[float] | None) -> tuple[float, float] | None:
    """``clip``, checked: (low, high) with 0 <= low <= high."""
    if clip is None:
        return None
    found = numbers("clip", clip, "None or (low, high)").tolist()
    if not isinstance(found, list) or len(found) != 2 or found[0] > found[1]:
        raise ValueError(f"clip must be None or (low, high) with low <= high, got {shown(clip)}.")
    return found[0], found[1]
