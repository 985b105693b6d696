"""Maps: what a loss takes beside the target, declared so that loaders can make it ahead of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MapSpec:
    """A map that a loss names in ``needs``: taken from the caller if sent, else made by the loss itself.

    Args:
        key: keyword of the call, and key in a batch.
        make: a function of the module level, from masks (B, C', *S) bool of the classes with instances and the spacing,
            (ndim,) in array axis order or None, to the map (B, C', *S) of integers, 0 outside.
        exclusive: the map is 0 outside of its class, so that for labels one channel holds the maps of all classes.
        on_cpu: made on the CPU, which is best done in the worker processes of a loader.
    """

    key: str
    make: Callable[[Tensor, Tensor | None], Tensor]
    exclusive: bool = False
    on_cpu: bool = False
