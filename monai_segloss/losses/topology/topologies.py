"""Numbers of components, tunnels and cavities that are known of classes and of unions of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_segloss.core.arguments import shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.kernels.betti import DIMENSIONS
from monai_segloss.losses.boundary.neighborhood import class_view

WANTED = (
    "betti must be numbers of components, tunnels and cavities, each a number or [lower, upper], (1, 0), these by class or "
    'union, {"1": (1,), "1+2": (1, [0, 2])}, or a file'
)
NAMES = ("components", "tunnels", "cavities")
Classes = tuple[int, ...]
Numbers = list[tuple[int | None, ...]]
"""(lower, upper) of components, tunnels and cavities; None is no bound."""


def topologies(given: Any) -> tuple[tuple[Classes, ...] | None, Numbers | list[Numbers]]:
    """The argument ``betti``, checked: the unions of classes, None for all scored classes, and the numbers of each.

    Raises:
        TypeError, ValueError: it has no numbers, or numbers of something else.
    """
    if not isinstance(given, Mapping):
        return None, _numbers(given)
    found = {_classes(key): _numbers(value) for key, value in given.items()}
    if len(found) < max(len(given), 1):
        raise ValueError(f"{WANTED}: each once, got {shown(given)}.")
    return tuple(found), list(found.values())


def scored_unions(unions: Sequence[Classes] | None, batch: SegBatch) -> Tensor:
    """The probabilities (B, K, *S) of unions of classes, or of all scored classes, 0 where ignored.

    Raises:
        ValueError: there is no such class, or the classes of a union may overlap.
    """
    p = batch.prob if batch.mask is None else batch.prob.masked_fill(~batch.mask[:, None], 0)
    if unions is None:
        return p[:, class_view(batch, None).first :]
    return torch.cat([union(p, each, batch.multilabel) for each in unions], 1)


def required_axes(numbers: Numbers | list[Numbers]) -> int:
    """How many axes an image must have, so that it can have such features."""
    rows = [numbers] if isinstance(numbers[0], tuple) else numbers
    return max(k + 1 for row in rows for k, pair in enumerate(row) if k == 0 or pair != (0, 0))


def whole_numbers(limits: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds (B, K, axes, 2), rounded outwards, as the least and the largest numbers of each map, (B * K, 3) int64."""
    numbers = F.pad(limits.clamp(0, 2.0**40).flatten(0, 1), (0, 0, 0, DIMENSIONS - limits.shape[2]))
    return numbers[..., 0].floor().long(), numbers[..., 1].ceil().long()


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


def _numbers(given: Any) -> Numbers:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"{WANTED}, got {shown(given)}.")
    found = [tuple(x) if isinstance(x, Sequence) and not isinstance(x, str) else (x, x) for x in given]
    if not 0 < len(found) <= DIMENSIONS or not all(len(pair) == 2 and _is_interval(*pair) for pair in found):
        raise ValueError(f"{WANTED}, got {shown(given)}.")
    return [*found, (0, 0), (0, 0)][:DIMENSIONS]


def _is_interval(lower: Any, upper: Any) -> bool:
    known = [x for x in (lower, upper) if x is not None]
    whole = all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= 1e6 for x in known)
    return whole and known == sorted(known)


def _classes(key: Any) -> Classes:
    parts = key if isinstance(key, tuple) else str(key).split("+")
    try:
        found = tuple(sorted({int(part) for part in parts}))
    except (TypeError, ValueError):
        found = ()
    if not found or found[0] < 0 or len(found) < len(parts):
        raise ValueError(f"{WANTED}, got the key {shown(key)}.")
    return found
