"""Numbers of components, tunnels and cavities that are known of classes and of unions of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.arguments import shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.kernels.persistence import DIMENSIONS
from monai_segloss.losses.boundary.neighborhood import class_view

WANTED = (
    "betti must be numbers of components, tunnels and cavities, (1, 0), or these by class or union, "
    '{"1": (1,), "1+2": (1, 1)}'
)
Classes = tuple[int, ...]


@dataclass(frozen=True)
class Betti:
    """Numbers of components, tunnels and cavities; what is left out is 0."""

    given: tuple[int, ...]

    def numbers(self, axes: int, device: torch.device) -> Tensor:
        """(3,) int64.

        Raises:
            ValueError: an image of so many axes has no such features.
        """
        if any(self.given[axes:]):
            raise ValueError(f"betti asks for {shown(self.given)}, but an image of {axes} axes has no cavities.")
        return torch.tensor([*self.given, 0, 0, 0][:DIMENSIONS], device=device)


Topologies = Betti | dict[Classes, Betti]


def topologies(given: Any) -> Topologies:
    """The argument ``betti``, checked: for all classes, or by the labels of each union of classes.

    Raises:
        TypeError, ValueError: it is neither.
    """
    if isinstance(given, Mapping):
        found = {_classes(key): _numbers(value) for key, value in given.items()}
        if len(found) < max(len(given), 1):
            raise ValueError(f"{WANTED}: each once, got {shown(given)}.")
        return found
    return _numbers(given)


def maps_and_numbers(betti: Topologies, batch: SegBatch) -> tuple[Tensor, Tensor]:
    """The probabilities (B, K, *S) of the classes or unions, 0 where ignored, and how many features each has, (B * K, 3).

    Raises:
        ValueError: there is no such class or feature, or the classes of a union may overlap.
    """
    p = batch.prob if batch.mask is None else batch.prob.masked_fill(~batch.mask[:, None], 0)
    if isinstance(betti, Betti):
        p = p[:, class_view(batch, None).first :]
        wanted = [betti] * p.shape[1]
    else:
        p, wanted = torch.cat([union(p, each, batch.multilabel) for each in betti], 1), list(betti.values())
    return p, torch.stack([each.numbers(batch.ndim - 2, p.device) for each in wanted]).repeat(len(p), 1)


def union(p: Tensor, classes: Classes, multilabel: bool) -> Tensor:
    """The probability of a union of classes, (B, 1, *S), from that of all classes (B, C, *S).

    Raises:
        ValueError: there is no such class, or the classes may overlap.
    """
    if max(classes) >= p.shape[1]:
        raise ValueError(f"betti names the class {max(classes)}, but input has {p.shape[1]} channels.")
    if len(classes) > 1 and multilabel:
        raise ValueError(
            f"betti names the union {'+'.join(map(str, classes))}, whose probability is a sum only where each voxel has one "
            "class: it cannot be combined with sigmoid=True or a single channel."
        )
    return p[:, list(classes)].sum(1, keepdim=True)


def _numbers(given: Any) -> Betti:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"{WANTED}, got {shown(given)}.")
    whole = all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= 1e6 for x in given)
    if not whole or not 0 < len(given) <= DIMENSIONS:
        raise ValueError(f"{WANTED}, got {shown(given)}.")
    return Betti(tuple(given))


def _classes(key: Any) -> Classes:
    parts = key if isinstance(key, tuple) else str(key).split("+")
    try:
        found = tuple(sorted({int(part) for part in parts}))
    except (TypeError, ValueError):
        found = ()
    if not found or found[0] < 0 or len(found) < len(parts):
        raise ValueError(f"{WANTED}, got the key {shown(key)}.")
    return found
