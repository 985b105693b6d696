"""Which classes touch in the labels of a data set: counts of pairs of voxels, in a file of JSON."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_segloss.core.prior import PriorError
from monai_segloss.files import read_json, write_json
from monai_segloss.kernels.pairs import pair_counts
from monai_segloss.prior.patches import Labels

KIND = "adjacency"


@dataclass(frozen=True)
class Contact:
    """Two classes that touch.

    Args:
        classes: their indices, the smaller one first.
        voxel_pairs: pairs of their voxels within the radius, over all cases.
        cases: in how many cases there are any.
    """

    classes: tuple[int, int]
    voxel_pairs: int
    cases: int


@dataclass(frozen=True)
class Adjacency:
    """The contacts of all classes within a radius.

    Args:
        radius: in voxels, of the box around each voxel.
        axes: of the box, the last ones of a volume.
        names: of the classes, the background first.
        cases: names of the cases.
        voxels: of each class, over all cases.
        contacts: the pairs of classes that touch; others do not.
        versions: of the packages.
    """

    radius: int
    axes: int
    names: tuple[str, ...]
    cases: tuple[str, ...]
    voxels: tuple[int, ...]
    contacts: tuple[Contact, ...]
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def apart(self) -> tuple[tuple[int, int], ...]:
        """Pairs of classes that never touch; of a class without a voxel nothing is known."""
        known = [k for k, voxels in enumerate(self.voxels) if voxels]
        touching = {each.classes for each in self.contacts}
        return tuple(pair for pair in itertools.combinations(known, 2) if pair not in touching)

    def lines(self) -> list[str]:
        """What was found, for a reader: rare contacts first, which may be slips of the annotation."""
        rare = sorted(self.contacts, key=lambda each: (each.cases, each.voxel_pairs))
        touching = [
            f"{self._pair(x.classes)}: touch in {x.cases} of {len(self.cases)} cases, {x.voxel_pairs} pairs of voxels"
            for x in rare
        ]
        apart = [f"{self._pair(pair)}: never touch within {self.radius} voxels" for pair in self.apart]
        absent = [f"{name}: in no label" for name, n in zip(self.names, self.voxels, strict=True) if not n]
        return [*touching, *apart, *absent]

    def _pair(self, classes: tuple[int, int]) -> str:
        return " - ".join(f"{self.names[k]} ({k})" for k in classes)


def count_contacts(
    labels: Labels, names: Sequence[str], radius: int, axes: int, say: Callable[[str], None] = lambda text: None
) -> Adjacency:
    """Count the contacts of all classes in the whole volumes of all cases.

    Args:
        labels: of the training cases, one class per voxel.
        names: of its classes.
        radius: in voxels.
        axes: 3, or 2 where patches are slices.
        say: is told which case is read.

    Raises:
        PriorError: there are no cases; regions, which overlap; a radius below 1.
    """
    if radius < 1:
        raise PriorError(f"radius must be a whole number of voxels of at least 1, got {radius}.")
    if labels.regions:
        raise PriorError("adjacency is of one class per voxel, and this data set has regions, which overlap.")
    if not labels.cases:
        raise PriorError("adjacency: there are no training cases.")
    n = len(labels.channels)
    pairs, cases, voxels = (torch.zeros(shape, dtype=torch.int64) for shape in ((n, n), (n, n), (n,)))
    for i, case in enumerate(labels.cases, start=1):
        say(f"adjacency: case {i} of {len(labels.cases)}, {case}")
        index = class_index(labels, labels.load(case))
        found = pair_counts(index, n, radius, axes)
        pairs, cases = pairs + found, cases + (found > 0)
        voxels = voxels + torch.bincount(index.flatten(), minlength=n + 1)[:n]
    contacts = [
        Contact((a, b), int(pairs[a, b]), int(cases[a, b]))
        for a, b in itertools.combinations(range(n), 2)
        if pairs[a, b]
    ]
    versions = {"monai-segloss": importlib.metadata.version("monai-segloss")}
    return Adjacency(radius, axes, tuple(names), labels.cases, tuple(voxels.tolist()), tuple(contacts), versions)


def class_index(labels: Labels, volume: Any) -> Tensor:
    """Index of the class of each voxel; that behind the last one where a voxel does not count."""
    known = {label: k for k, each in enumerate(labels.channels) for label in each}
    table = np.full(max(int(volume.max()), *known) + 1, len(labels.channels))
    table[list(known)] = list(known.values())
    return torch.from_numpy(table[volume])


def write_adjacency(found: Adjacency, file: Path) -> None:
    """Write the file atomically."""
    write_json(file, {"kind": KIND, **asdict(found)})


def read_adjacency(file: str | Path, radius: int | None = None) -> Adjacency:
    """Read the file.

    Args:
        radius: that it must have been counted with; None: any.

    Raises:
        PriorError: a ValueError: there is no such file, it is another one, it has another radius, or all classes touch.
    """
    try:
        content = dict(read_json(Path(file)))
        if content.pop("kind", None) != KIND:
            raise ValueError("its kind is another one")
        contacts = tuple(Contact(tuple(x["classes"]), x["voxel_pairs"], x["cases"]) for x in content.pop("contacts"))
        content |= {name: tuple(content[name]) for name in ("names", "cases", "voxels")}
        found = Adjacency(**content, contacts=contacts)
    except OSError:
        raise PriorError(f"forbidden: there is no file {str(file)!r}.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise PriorError(f"forbidden: {str(file)!r} is no file of `segloss prior adjacency`: {error}.") from None
    if radius not in (None, found.radius):
        raise PriorError(
            f"forbidden: {str(file)!r} was counted with radius {found.radius} and the loss has radius={radius}; classes "
            "that are apart within the one may touch within the other."
        )
    return found
