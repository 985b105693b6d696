"""Maps: what a loss takes beside the target, declared so that loaders can make it ahead of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from monai_segloss.core import check

if TYPE_CHECKING:
    from monai_segloss.core.batch import Scored


@dataclass(frozen=True)
class MapSpec:
    """A map that a loss names in ``needs``: taken from the caller if sent, else made by the loss itself.

    Args:
        key: keyword of the call, and key in a batch.
        make: a function of the module level, or an object that pickles and compares by its settings, from masks
            (B, C', *S) bool of the classes, the spacing, (ndim,) or (B, ndim) in array axis order or None, and the voxels
            that count, (B, 1, *S) bool or None for all, to the map (B, C', *S), 0 where nothing counts.
        exclusive: the map is 0 outside of its class, so that for labels one channel holds the maps of all classes.
        on_cpu: made on the CPU, which is best done in the worker processes of a loader.
    """

    key: str
    make: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
    exclusive: bool = False
    on_cpu: bool = False


def scored_map(spec: MapSpec, view: Scored) -> Tensor:
    """A map of the scored classes (B, C', *S), as the caller sent it or made here: no gradient, 0 where ignored."""
    batch = view.batch
    valid = None if batch.mask is None else batch.mask[:, None]
    sent = batch.maps.get(spec.key)
    if sent is None:
        masks = batch.one_hot[:, view.first :]
        return spec.make(masks > 0.5 if masks.is_floating_point() else masks.bool(), batch.sizes, valid).to(
            batch.clean.dtype
        )
    sent = check.scored_shape(spec.key, sent, batch.logits, view.first).detach().to(batch.clean.dtype)
    return sent if valid is None else sent.masked_fill(~valid, 0)
