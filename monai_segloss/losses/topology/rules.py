"""Rules about classes that must not touch, by their indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.arguments import shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.kernels.pairs import meeting
from monai_segloss.prior.adjacency import read_adjacency

Pairs = Sequence[Sequence[int]]
BOUNDS: Mapping[str, float] = {"radius": 100.0}
"""No box is larger."""


@dataclass(frozen=True)
class Rule:
    """Pairs of classes.

    Args:
        name: of the argument that gave them.
        pairs: of two different classes each.
        classes: that whoever found the pairs knew; None: any number.
        cases: in whose labels they were found.
    """

    name: str
    pairs: tuple[tuple[int, int], ...] = ()
    classes: int | None = None
    cases: tuple[str, ...] = ()

    def refuse_other(self, classes: int) -> None:
        """Refuse an ``input`` of other classes."""
        if self.classes not in (None, classes):
            raise ValueError(f"{self.name} is a file about {self.classes} classes, but input has {classes} channels.")
        top = max((k for pair in self.pairs for k in pair), default=0)
        if top >= classes:
            raise ValueError(f"{self.name} names class {top}, but input has {classes} channels: 0 to {classes - 1}.")

    def matrix(self, classes: int, device: torch.device) -> Tensor:
        """Symmetric, (classes, classes) bool."""
        self.refuse_other(classes)
        found = torch.zeros(classes, classes, dtype=torch.bool, device=device)
        for a, b in self.pairs:
            found[a, b] = found[b, a] = True
        return found


def rule(name: str, value: Any) -> Rule:
    """Pairs of two different classes, checked; ``name`` is that of the argument."""
    wanted = f"{name} must be a list of pairs of two different classes, as [[1, 2], [1, 3]]"
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{wanted}, got {shown(value)}.")
    if not value:
        raise ValueError(f"{wanted}, got none.")
    for each in value:
        two = isinstance(each, Sequence) and not isinstance(each, str) and len(each) == 2
        if not two or not all(isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in each):
            raise ValueError(f"{wanted}, got {shown(each)} in it.")
        if each[0] == each[1]:
            raise ValueError(f"{wanted}, got {shown(each)} in it, and a class touches itself.")
    return Rule(name, tuple((int(a), int(b)) for a, b in value))


def rules(inclusion: Pairs | None, exclusion: Pairs | None) -> tuple[Rule | None, Rule | None]:
    """The pairs of both arguments, None where there are none."""
    one = None if inclusion is None else rule("inclusion", inclusion)
    return one, None if exclusion is None else rule("exclusion", exclusion)


def rule_of(forbidden: Pairs | str, radius: int) -> Rule:
    """The pairs of a list, or those that never touch in the file of `segloss prior adjacency`."""
    if not isinstance(forbidden, str):
        return rule("forbidden", forbidden)
    found = read_adjacency(forbidden, radius)
    if not found.apart:
        raise ValueError(f"forbidden: in {forbidden!r} every two classes touch, so that there is nothing to forbid.")
    return Rule("forbidden", found.apart, len(found.voxels), found.cases)


def apart_matrix(inclusion: Rule | None, exclusion: Rule | None, classes: int, device: torch.device) -> Tensor:
    """Which classes must not touch, symmetric, (classes, classes) bool: around the first of an inclusion are but the two."""
    if inclusion is None and exclusion is None:
        return every_two(classes, device)
    none = torch.zeros(classes, classes, dtype=torch.bool, device=device)
    found = none if exclusion is None else exclusion.matrix(classes, device)
    if inclusion is not None:
        inclusion.refuse_other(classes)
        for a, b in inclusion.pairs:
            outside = [k for k in range(classes) if k not in (a, b)]
            found[a, outside] = found[outside, a] = True
    return found


@torch.no_grad()
def critical_voxels(batch: SegBatch, apart: Tensor, radius: int, faces: bool) -> Tensor:
    """Where predicted classes touch that must be apart, (B, 1, *S) bool; ignored voxels are of no class.

    What is no number is critical too, so that it shows.
    """
    scores = batch.masked_logits if isinstance(batch.activation, str) else batch.prob
    predicted = scores.argmax(1)
    if batch.mask is not None:
        predicted = predicted.masked_fill(~batch.mask, len(apart))
    found = meeting(predicted, F.pad(apart, (0, 1, 0, 1)), radius, faces)
    return (found | ~(scores < torch.inf).all(1))[:, None]


def critical_weights(
    batch: SegBatch, inclusion: Rule | None, exclusion: Rule | None, radius: int, faces: bool
) -> Tensor:
    """1 at critical voxels and 0 elsewhere, (B, 1, *S)."""
    apart = apart_matrix(inclusion, exclusion, batch.classes, batch.logits.device)
    return critical_voxels(batch, apart, radius, faces).to(batch.masked_logits.dtype)


def every_two(classes: int, device: torch.device) -> Tensor:
    """The matrix of all pairs of two foreground classes."""
    found = ~torch.eye(classes, dtype=torch.bool, device=device)
    found[0] = found[:, 0] = False
    return found


def refuse_sigmoid(sigmoid: bool) -> None:
    """Refuse regions."""
    if sigmoid:
        raise ValueError("sigmoid=True: regions overlap; rules about touching are defined for one class per voxel.")


def whole_radius(radius: float) -> int:
    """``radius``, checked."""
    if radius < 1 or radius % 1:
        raise ValueError(f"radius must be a whole number of voxels of at least 1, got {shown(radius)}.")
    return int(radius)
