"""Maps of distances to the boundary of each class, in millimeters: signed, unsigned, and weights made of them.

All functions take masks (B, C, *S), each (sample, channel) by itself; ``spacing``, (ndim,) or (B, ndim) in the order of the
array axes, in mm (None: 1); and ``valid`` (B, 1 | C, *S) bool, the voxels that count: the others make no boundary and get 0.
They return float32 on the device of the masks, without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from monai_segloss.core.arguments import numbers, shown
from monai_segloss.core.check import one_of
from monai_segloss.kernels.distance import distance_across, distance_to
from monai_segloss.maps.masks import as_mask, inner_boundary

Mode = Literal["none", "kervadec", "literal", "inner", "maurer", "surface", "swdm"]
Fill = Literal["zero", "diagonal"]
Side = Literal["both", "inside", "outside"]
Clip = float | Sequence[float] | None
MODES, FILLS, SIDES = get_args(Mode), get_args(Fill), get_args(Side)
ROUNDING = 1 + 1e-6
"""Two distances within this factor are one, found along different axes."""


@torch.no_grad()
def signed_distance_map(
    mask: Tensor,
    spacing: Tensor | None = None,
    valid: Tensor | None = None,
    *,
    mode: Mode = "kervadec",
    empty: Fill = "zero",
    full: Fill = "zero",
    clip: Clip = None,
    normalize: bool = False,
) -> Tensor:
    """Signed distance to the boundary: positive outside of a mask, negative inside.

    Outside, every mode but ``surface`` has the distance to the nearest voxel inside. Inside it has minus

    - ``none``: the distance d to the nearest voxel outside;
    - ``kervadec``: d less the smallest spacing of an axis with several voxels: the published d - 1 for voxels of 1 mm, and
      never above 0;
    - ``literal``: d - 1, as in published code whatever the unit: positive inside where voxels are smaller than 1 mm;
    - ``inner``: the distance to the nearest voxel with a face on the boundary;
    - ``maurer``: the same, neighbors over edges and corners included, as in ITK;
    - ``swdm``: d, but 0 on the voxels with a face on the boundary.

    ``surface`` measures to the faces between voxels on both sides, so that one voxel too many and one too few are as
    wrong: the mode for voxels that are not cubes.

    Args:
        mask, spacing, valid: see the module.
        mode: as above.
        empty: a mask without any voxel: ``"zero"``, or ``"diagonal"`` of the image in mm everywhere.
        full: a mask without any voxel outside, or in ``inner`` and ``maurer`` without a boundary among the voxels that
            count: ``"zero"``, or minus the ``"diagonal"``.
        clip: largest distance in mm, one number or one for (inside, outside).
        normalize: divide each side by its largest distance in the sample and class, so that the map lies in [-1, 1].

    Example:
        >>> import torch
        >>> from monai_segloss.maps import signed_distance_map
        >>> mask = torch.tensor([[[0, 0, 1, 1, 1]]])
        >>> signed_distance_map(mask, torch.tensor([2.0])).tolist()
        [[[4.0, 2.0, 0.0, -2.0, -4.0]]]
        >>> signed_distance_map(mask, torch.tensor([2.0]), mode="surface").tolist()
        [[[3.0, 1.0, -1.0, -3.0, -5.0]]]
    """
    one_of(MODES, mode=mode)
    one_of(FILLS, empty=empty, full=full)
    limits = clipping(clip)
    mask = as_mask(mask)
    if mode in ("inner", "maurer"):
        distance = distance_to(inner_boundary(mask, valid, mode == "maurer"), spacing)
        if valid is not None:  # the nearest voxel inside may have what does not count next to it
            distance = torch.where(mask, distance, distance_to(mask & valid, spacing))
    else:
        distance = distance_across(mask, spacing, valid, surface=mode == "surface")
    inside = -distance
    if mode == "kervadec":
        step = _smallest(spacing, mask)
        inside.add_(step).masked_fill_(distance <= step * ROUNDING, 0)
    elif mode == "literal":
        inside.add_(1)
    elif mode == "swdm":
        inside.masked_fill_(inner_boundary(mask, valid), 0)
    nothing = distance.isinf()
    signed = torch.where(mask, inside, distance)
    del inside, distance
    if empty == full == "zero":
        signed.masked_fill_(nothing, 0)
    else:
        instead = torch.where(mask, -_fill(full, spacing, mask), _fill(empty, spacing, mask))
        signed = torch.where(nothing, instead, signed)
    if valid is not None:
        signed = signed.masked_fill(~valid, 0)
    if limits is not None:
        signed = signed.clamp(-limits[0], limits[1])
    return normalized(signed) if normalize else signed


@torch.no_grad()
def distance_field(
    mask: Tensor,
    spacing: Tensor | None = None,
    valid: Tensor | None = None,
    exclusive: bool = False,
    *,
    side: Side = "both",
) -> Tensor:
    """Distance of each voxel to the other side of the mask, at least 0; 0 where the mask is empty or full.

    Args:
        mask, spacing, valid: see the module.
        exclusive: no voxel is in two masks, so that one pass finds the inside distances of all classes.
        side: ``"both"``, or 0 but ``"inside"`` or ``"outside"`` of the mask.
    """
    one_of(SIDES, side=side)
    mask = as_mask(mask)
    if exclusive and side == "inside" and mask.shape[1] > 1:
        field = _depth_of_labels(mask, spacing, valid)[0].expand(mask.shape)
    else:
        field = distance_across(mask, spacing, valid)
    dropped = field.isinf()
    if side != "both":
        dropped |= mask if side == "outside" else ~mask
    if valid is not None:
        dropped |= ~valid
    return field.masked_fill(dropped, 0)


@torch.no_grad()
def distance_penalty_map(
    mask: Tensor,
    spacing: Tensor | None = None,
    valid: Tensor | None = None,
    exclusive: bool = False,
    *,
    both_sides: bool = False,
) -> Tensor:
    """1 at the boundary of a class and falling to 0 at its deepest voxel, inside of each mask; 0 outside of it.

    The inverted distance of Caliva et al.: (M - d) / (M - m) with the largest and the smallest distance d of the sample
    and class.  A class whose voxels are all as deep has 1, one without boundary 0.

    Args:
        mask, spacing, valid: see the module; as a weight of all voxels, the masks of all classes, background included.
        exclusive: as for `distance_field`.
        both_sides: outside of each mask the same of what is outside, as a weight of the voxels of each mask by itself.
    """
    mask = as_mask(mask)
    inside = mask if valid is None else mask & valid
    if both_sides:
        outside = ~mask if valid is None else ~mask & valid
        return distance_penalty_map(inside, spacing, valid) + distance_penalty_map(outside, spacing, valid)
    if exclusive and mask.shape[1] > 1:
        depth, labels = _depth_of_labels(inside, spacing, valid)
        return torch.where(inside, _falling(depth, *_extremes_of_labels(depth, labels, mask.shape[1] + 1)), 0.0)
    depth = distance_field(inside, spacing, valid, side="inside")
    shallowest = _over_space(depth.masked_fill(~inside, torch.inf), "amin")
    return torch.where(inside, _falling(depth, shallowest, _over_space(depth, "amax")), 0.0)


@torch.no_grad()
def region_wise_map(
    mask: Tensor, spacing: Tensor | None = None, valid: Tensor | None = None, exclusive: bool = False
) -> Tensor:
    """The rectified region-wise map of Valverde & Tohka: minus the depth over the largest depth inside, 1 outside.

    A class that fills the image has -1 everywhere, an absent one 1.

    Args:
        mask, spacing, valid: see the module.
        exclusive: as for `distance_field`.
    """
    mask = as_mask(mask)
    if exclusive and mask.shape[1] > 1:
        depth, labels = _depth_of_labels(mask, spacing, valid)
        deepest = _extremes_of_labels(depth, labels, mask.shape[1] + 1)[1]
    else:
        depth = distance_field(mask, spacing, valid, side="inside")
        deepest = _over_space(depth, "amax")
    inside = torch.where(deepest > 0, -depth / torch.where(deepest > 0, deepest, 1), -1.0)
    out = torch.where(mask, inside, 1.0)
    return out if valid is None else out.masked_fill(~valid, 0)


def _falling(depth: Tensor, shallowest: Tensor, deepest: Tensor) -> Tensor:
    """1 at the shallowest depth, 0 at the deepest; where all are as deep 1, or 0 without a boundary."""
    several = deepest > shallowest * ROUNDING
    falling = (deepest - depth) / torch.where(several, deepest - shallowest, 1)
    return torch.where(several, falling, (deepest > 0).to(depth.dtype))


def _depth_of_labels(mask: Tensor, spacing: Tensor | None, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of masks that share no voxel: the depth of each voxel in its own, and which that is, both (B, 1, *S)."""
    labels = torch.where(mask.any(1), mask.to(torch.uint8).argmax(1), mask.shape[1])[:, None]
    counted = None if valid is None else valid[:, :1]
    depth = distance_across(labels, spacing, counted, classes=mask.shape[1] + 1)
    nothing = depth.isinf() if counted is None else depth.isinf() | ~counted
    return depth.masked_fill(nothing, 0), labels


def _extremes_of_labels(depth: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The smallest and the largest depth of each voxel's label, (B, 1, *S)."""
    index, flat = labels.flatten(1), depth.flatten(1)
    start = flat.new_zeros(flat.shape[0], classes)
    return tuple(  # type: ignore[return-value]
        start.scatter_reduce(1, index, flat, how, include_self=False).gather(1, index).view_as(depth)
        for how in ("amin", "amax")
    )


def normalized(signed: Tensor) -> Tensor:
    """Each side divided by its largest distance in the (sample, class); a side that is 0 stays 0."""
    top, bottom = _over_space(signed, "amax").clamp_min(0), _over_space(signed, "amin").clamp_max(0).neg()
    side = torch.where(signed > 0, torch.where(top > 0, top, 1), torch.where(bottom > 0, bottom, 1))
    return signed / side


def clipping(clip: Clip) -> tuple[float, float] | None:
    """``clip``, checked: the largest distances inside and outside."""
    if clip is None:
        return None
    found = numbers("clip", clip, "None, one distance or (inside, outside)")
    if found.ndim and len(found) != 2:
        raise ValueError(f"clip must be None, one distance or (inside, outside), got {shown(clip)}.")
    inside, outside = found.expand(2).tolist()
    return inside, outside


def _over_space(x: Tensor, how: Literal["amax", "amin"]) -> Tensor:
    """Largest or smallest value of each (sample, channel)."""
    found: Tensor = getattr(x.flatten(2), how)(2)
    return found.view(*x.shape[:2], *(1,) * (x.ndim - 2))


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """One number, or one per sample, in float32 alongside (B, C, *S)."""
    return values.to(like.device, torch.float32, non_blocking=True).view(-1, *(1,) * (like.ndim - 1))


def _spanned(like: Tensor) -> list[int]:
    """The axes of (B, C, *S) that have several voxels, all where none has: a slice is its volume, however thick."""
    return [axis for axis, n in enumerate(like.shape[2:]) if n > 1] or list(range(like.ndim - 2))


def _smallest(spacing: Tensor | None, like: Tensor) -> Tensor | float:
    return 1.0 if spacing is None else _per_sample(spacing[..., _spanned(like)].amin(-1), like)


def _fill(how: Fill, spacing: Tensor | None, like: Tensor) -> Tensor:
    """0, or the diagonal of the image in mm."""
    if how == "zero":
        return torch.zeros((), device=like.device)
    axes = _spanned(like)
    shape = torch.tensor([like.shape[2 + axis] for axis in axes], dtype=torch.float64)
    edges = shape if spacing is None else shape * spacing[..., axes].double()
    return _per_sample(edges.square().sum(-1).sqrt(), like)
