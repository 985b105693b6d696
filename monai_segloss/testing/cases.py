"""The inputs of the tests: small logits and targets of every kind a segmentation loss meets.

A case is a prediction, a target and how to read them. Cases are float64 and shared, so nothing may
change them: a property gets a copy.
`tags` names what a loss must support to be run on the case; the names are those of `LossInfo.support`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_segloss.testing.case import Case

IGNORE = 255


def _blocks(rng: np.random.Generator, batch: int, classes: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """One random box per class, and every tenth voxel of a random class: structure, several components, tiny parts."""
    labels = np.zeros((batch, *shape), dtype=np.int64)
    for sample in labels:
        for label in range(1, classes):
            corner = [rng.integers(0, max(1, n // 2)) for n in shape]
            sample[tuple(slice(a, a + max(1, n // 2)) for a, n in zip(corner, shape, strict=True))] = label
        speckle = rng.random(shape) < 0.1
        sample[speckle] = rng.integers(0, classes, size=int(speckle.sum()))
    return labels


def _logits(rng: np.random.Generator, onehot: NDArray[np.float64], pull: float = 1.5) -> Tensor:
    """Logits that lean towards the target, with mistakes."""
    return torch.from_numpy(pull * onehot + 1.5 * rng.standard_normal(onehot.shape))


def _label_case(name: str, labels: NDArray[np.int64], classes: int, rng: np.random.Generator, **more: object) -> Case:
    target = torch.from_numpy(labels)[:, None]
    onehot = np.moveaxis(np.eye(classes)[np.clip(labels, 0, classes - 1)], -1, 1)
    tags = frozenset({"labels", f"{labels.ndim - 1}-D"}) | frozenset(more.pop("tags", ()))  # type: ignore[call-overload]
    return Case(name, _logits(rng, onehot), target, tags=tags, **more)  # type: ignore[arg-type]


def _ignored(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A slab and some single voxels become the ignored label; every sample keeps others."""
    out = labels.copy()
    out[:, : max(1, labels.shape[1] // 3)] = IGNORE
    out[rng.random(labels.shape) < 0.1] = IGNORE
    out[:, -1, ..., -1] = labels[:, -1, ..., -1]
    return out


def labels_3d(rng: np.random.Generator, edge: int) -> Case:
    return _label_case("labels_3d", _blocks(rng, 2, 3, _at_least(edge, 4, 5, 6)), 3, rng)


def labels_2d(rng: np.random.Generator, edge: int) -> Case:
    return _label_case("labels_2d", _blocks(rng, 3, 3, _at_least(edge, 9, 7)), 3, rng)


def two_classes(rng: np.random.Generator, edge: int) -> Case:
    return _label_case("two_classes", _blocks(rng, 2, 2, _at_least(edge, 4, 4, 5)), 2, rng)


def five_classes(rng: np.random.Generator, edge: int) -> Case:
    case = _label_case("five_classes", _blocks(rng, 2, 5, _at_least(edge, 3, 6, 6)), 5, rng)
    return replace(case, spacing=(3.0, 1.0, 0.5))


def many_classes(rng: np.random.Generator, edge: int) -> Case:
    shape = _at_least(edge, 3, 6, 5)
    return _label_case("many_classes", rng.integers(0, 118, size=(2, *shape)), 118, rng)


def one_class(rng: np.random.Generator, edge: int) -> Case:
    target = torch.from_numpy(_blocks(rng, 2, 2, _at_least(edge, 6, 7)))[:, None]
    input = _logits(rng, target.numpy() - 0.5, 3.0)
    return Case("one_class", input, target.float(), "sigmoid", labels=False, tags=frozenset({"regions", "2-D"}))


def regions(rng: np.random.Generator, edge: int) -> Case:
    """Nested regions, as of a tumor: whole, core, enhancing."""
    labels = torch.from_numpy(_blocks(rng, 2, 4, _at_least(edge, 4, 5, 5)))[:, None]
    target = torch.cat([labels >= level for level in (1, 2, 3)], dim=1)
    input = _logits(rng, target.numpy() - 0.5, 3.0)
    return Case("regions", input, target, "sigmoid", labels=False, tags=frozenset({"regions", "3-D"}))


def empty_region(rng: np.random.Generator, edge: int) -> Case:
    """The innermost region is absent from the batch, every region from the second sample."""
    base = regions(rng, edge)
    target = base.target.clone()
    target[:, 2], target[1] = False, False
    return replace(base, name="empty_region", target=target)


def regions_masked(rng: np.random.Generator, edge: int) -> Case:
    base = regions(rng, edge)
    mask = torch.from_numpy(rng.random((2, 1, *base.input.shape[2:])) < 0.6)
    return replace(base, name="regions_masked", mask=mask, tags=base.tags | {"ignore"})


def soft_labels(rng: np.random.Generator, edge: int) -> Case:
    shape = _at_least(edge, 5, 6)
    target = torch.from_numpy(np.moveaxis(rng.dirichlet([0.5] * 3, size=(2, *shape)), -1, 1).copy())
    return Case(
        "soft_labels",
        _logits(rng, target.numpy()),
        target,
        labels=False,
        tags=frozenset({"labels", "soft labels", "2-D"}),
    )


def soft_regions(rng: np.random.Generator, edge: int) -> Case:
    shape = _at_least(edge, 5, 6)
    target = torch.from_numpy(rng.beta(0.5, 0.5, size=(2, 3, *shape)))
    tags = frozenset({"regions", "soft labels", "2-D"})
    return Case("soft_regions", _logits(rng, target.numpy() - 0.5, 3.0), target, "sigmoid", labels=False, tags=tags)


def empty_class(rng: np.random.Generator, edge: int) -> Case:
    """Class 2 is absent from the first sample, every foreground class from the second."""
    labels = _blocks(rng, 2, 3, _at_least(edge, 4, 5, 5))
    labels[0][labels[0] == 2] = 0
    labels[1] = 0
    return _label_case("empty_class", labels, 3, rng)


def one_voxel(rng: np.random.Generator, edge: int) -> Case:
    labels = np.zeros((2, *_at_least(edge, 4, 5, 5)), dtype=np.int64)
    labels[0, 1, 2, 3], labels[1, 3, 1, 0] = 1, 2
    return _label_case("one_voxel", labels, 3, rng)


def tiny(rng: np.random.Generator, edge: int) -> Case:
    """A volume of one voxel, in a batch of one."""
    return _label_case("tiny", _blocks(rng, 1, 3, _at_least(edge, 1, 1, 1)), 3, rng)


def ignored(rng: np.random.Generator, edge: int) -> Case:
    labels = _ignored(_blocks(rng, 2, 3, _at_least(edge, 6, 5, 4)), rng)
    return _label_case("ignored", labels, 3, rng, ignore_index=IGNORE, tags={"ignore"})


def ignored_2d(rng: np.random.Generator, edge: int) -> Case:
    """A negative ignored label together with a mask."""
    labels = _ignored(_blocks(rng, 2, 4, _at_least(edge, 9, 8)), rng)
    labels[labels == IGNORE] = -1
    mask = torch.from_numpy(rng.random(labels.shape) < 0.8)
    return _label_case("ignored_2d", labels, 4, rng, ignore_index=-1, mask=mask, tags={"ignore"})


def ignored_sample(rng: np.random.Generator, edge: int) -> Case:
    """Nothing of the second sample counts."""
    labels = _ignored(_blocks(rng, 3, 3, _at_least(edge, 6, 7)), rng)
    labels[1] = IGNORE
    return _label_case("ignored_sample", labels, 3, rng, ignore_index=IGNORE, tags={"ignore"})


def extreme(rng: np.random.Generator, edge: int) -> Case:
    """Confident predictions, a tenth of them confidently wrong."""
    labels = _blocks(rng, 2, 3, _at_least(edge, 5, 6))
    flipped = np.where(rng.random(labels.shape) < 0.1, (labels + 1) % 3, labels)
    case = _label_case("extreme", labels, 3, rng)
    return case.with_input(torch.from_numpy(60.0 * np.moveaxis(np.eye(3)[flipped], -1, 1)).contiguous())


def _at_least(edge: int, *shape: int) -> tuple[int, ...]:
    return tuple(max(edge, n) for n in shape)


BUILDERS: dict[str, Callable[[np.random.Generator, int], Case]] = {
    build.__name__: build
    for build in (
        labels_3d,
        labels_2d,
        two_classes,
        five_classes,
        many_classes,
        one_class,
        regions,
        empty_region,
        regions_masked,
        soft_labels,
        soft_regions,
        empty_class,
        one_voxel,
        tiny,
        ignored,
        ignored_2d,
        ignored_sample,
        extreme,
    )
}


def ten_classes(rng: np.random.Generator, edge: int) -> Case:
    """More classes than what is written for few."""
    labels = torch.arange(40).view(1, 1, 5, 8) % 10
    input = torch.randn(1, 10, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Case("ten_classes", input, labels, tags=frozenset({"labels", "2-D"}))


def ten_soft_classes(rng: np.random.Generator, edge: int) -> Case:
    case = ten_classes(rng, edge)
    target, tags = case.input.roll(3, 1).softmax(1), case.tags | {"soft labels"}
    return replace(case, name="ten_soft_classes", target=target, labels=False, tags=tags)


FURTHER: dict[str, Callable[[np.random.Generator, int], Case]] = {
    build.__name__: build for build in (ten_classes, ten_soft_classes)
}
"""Cases of some properties alone."""


@cache
def get(name: str, edge: int = 1) -> Case:
    """The named case with no edge shorter than `edge` voxels, the same numbers in every run."""
    return (BUILDERS | FURTHER)[name](np.random.default_rng(crc32(name.encode())), edge)


def enlarged(case: Case, factor: int) -> Case:
    """The same batch with every voxel as a block of `factor` voxels along each axis: no error is narrower."""
    if factor == 1:
        return case

    def grow(x: Tensor) -> Tensor:
        for axis in range(x.ndim - case.input.ndim + 2, x.ndim):
            x = x.repeat_interleave(factor, axis)
        return x

    mask = None if case.mask is None else grow(case.mask)
    return replace(case, input=grow(case.input), target=grow(case.target), mask=mask)


def everything_ignored(case: Case) -> Case:
    """The same batch with a mask that leaves nothing."""
    nothing = torch.zeros_like(case.valid)
    return replace(case, mask=nothing)


def perfect(case: Case, margin: float = 40.0) -> Case:
    """The same batch predicted with certainty and without mistake (hard targets)."""
    return case.with_input(margin * (2 * case.onehot() - 1))
