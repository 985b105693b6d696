"""Half spaces, boxes and blobs, and boundary losses on them, for the tests of identities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import monai_segloss

READING = {"softmax": True, "to_onehot_y": True}
WIDTH, EDGE, SURE = 24, 12, 80.0


def of(key: str, input: Tensor, target: Tensor, spacing: Any = None, **arguments: Any) -> float:
    return monai_segloss.create(key, **{**READING, **arguments})(input, target, spacing=spacing).item()


def of_masks(key: str, predicted: Tensor, truth: Tensor, spacing: Any = None, **arguments: Any) -> float:
    """The loss of one hard prediction of two classes."""
    return of(key, hard(predicted), label(truth), spacing, **arguments)


def hard(mask: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Logits (1, 2, *S) that predict a mask (*S) with certainty."""
    return SURE / 2 * torch.stack((1.0 - 2 * mask.to(dtype), 2 * mask.to(dtype) - 1))[None]


def label(mask: Tensor) -> Tensor:
    return mask.long()[None, None]


def box(shape: tuple[int, ...], *edges: tuple[int, int]) -> Tensor:
    """A mask with a box of these half-open intervals."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(*edge) for edge in edges)] = True
    return mask


def half_space(shape: tuple[int, ...], axis: int, width: int) -> Tensor:
    """A mask of the first voxels along an axis."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.narrow(axis, 0, width).fill_(True)
    return mask


def shifted_half_space(axis: int, shift: int, steps: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """A prediction whose class 1 begins ``shift`` voxels before EDGE along an axis, and labels where it begins there."""
    shape = [3] * len(steps)
    shape[axis] = WIDTH
    predicted, truth = (~half_space(tuple(shape), axis, edge) for edge in (EDGE - shift, EDGE))
    return hard(predicted), label(truth)


def blobs(seed: int = 0, classes: int = 3, shape: tuple[int, ...] = (6, 8, 7), batch: int = 2) -> tuple[Tensor, Tensor]:
    """Logits that lean towards labels of cubes of two voxels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (batch, 1, *(n // 2 + 1 for n in shape)), generator=generator)
    for axis, n in enumerate(shape, start=2):
        labels = labels.repeat_interleave(2, axis).narrow(axis, 0, n)
    hot = torch.nn.functional.one_hot(labels[:, 0], classes).movedim(-1, 1).double()
    return 2 * hot + torch.randn(hot.shape, generator=generator, dtype=torch.float64), labels.contiguous()


def turned_flipped_and_copied(key: str) -> tuple[float, list[float]]:
    """The loss of blobs with a spacing, and its values that must be the same."""
    logits, labels = blobs()
    spacing = (3.0, 1.0, 0.5)
    turned = of(key, logits.permute(0, 1, 4, 2, 3), labels.permute(0, 1, 4, 2, 3), (0.5, 3.0, 1.0))
    flipped = of(key, logits.flip(2, 4), labels.flip(2, 4), spacing)
    twice = of(key, torch.cat([logits, logits]), torch.cat([labels, labels]), spacing)
    return of(key, logits, labels, spacing), [turned, flipped, twice]
