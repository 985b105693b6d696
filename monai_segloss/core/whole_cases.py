"""Losses that have a meaning on whole cases only: what their trainers refuse, and what they leave out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class PatchError(ValueError):
    """Patches that are smaller than the cases, for a loss that has no meaning on them."""


def wants_whole_cases(loss: nn.Module) -> bool:
    """Whether a loss, or a part of it, has a meaning on whole cases only."""
    return any(getattr(each, "whole_cases", False) for each in loss.modules())


def wants_no_mirroring(loss: nn.Module) -> bool:
    """Whether a loss, or a part of it, loses its meaning on mirrored images."""
    return not all(getattr(each, "mirrored", True) for each in loss.modules())


def refuse_patches(loss: nn.Module, patch: Sequence[int], case: Sequence[int], how: str) -> None:
    """Refuse patches that are smaller than the cases.

    Args:
        loss: that is to be trained.
        patch: voxels along each axis.
        case: the same of the largest case; it may have one more axis in front, of slices.
        how: to train on whole cases, as the end of a sentence.

    Raises:
        PatchError: the loss wants whole cases, and the patch is smaller than the largest one.
    """
    if not wants_whole_cases(loss):
        return
    size = (1,) * (len(case) - len(patch)) + tuple(patch)
    if any(n < whole for n, whole in zip(size, case, strict=True)):
        names = sorted({type(each).__name__ for each in loss.modules() if getattr(each, "whole_cases", False)})
        raise PatchError(
            f"{', '.join(names)} is about whole cases, and patches of {_edges(patch)} voxels are smaller than the largest "
            f"case, {_edges(case)}: {how}; or say on_patches=true among its arguments to train on patches all the same."
        )


def _edges(size: Sequence[int]) -> str:
    return " x ".join(str(int(n)) for n in size)
