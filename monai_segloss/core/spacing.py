"""Spacing of voxels: as given, else from an affine, and whether that affine can be the one of these voxels."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.arguments import LARGEST, shown
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.exact import exact

PLAUSIBLE = (1e-4, 1e3)
"""Lengths of a voxel in mm that a scanner may write: a light microscope resolves 2e-4 mm, and no slice is a meter thick."""


class SpacingError(ValueError):
    """The affine of a tensor cannot be that of its voxels."""


def spacing(value: Any, input: Tensor) -> Tensor | None:
    """Voxel spacing as a tensor (ndim,) or (B, ndim) in array axis order, from the argument; None where not given."""
    if value is None:
        return None
    ndim = input.ndim - 2
    try:
        x = exact(value).detach() if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        real = not (isinstance(value, Tensor) and (value.is_meta or value.is_complex()))
    except (TypeError, ValueError, RuntimeError, OverflowError):  # words, None, a list of tensors
        real = False
    if not real:
        wanted = f"({ndim},) or ({input.shape[0]}, {ndim})"
        raise TypeError(f"spacing must be numbers or a tensor of shape {wanted}, got {shown(value)}.")
    if x.shape not in ((ndim,), (input.shape[0], ndim)):
        raise LossShapeError(f"spacing has shape {tuple(x.shape)}; expected ({ndim},) or ({input.shape[0]}, {ndim}).")
    if not torch.compiler.is_compiling() and not bool(((x >= 1 / LARGEST) & (x <= LARGEST)).all()):
        raise ValueError(f"spacing is {shown(x.tolist())}; expected positive numbers, at most {LARGEST:g}.")
    return x


def voxel_lengths(affine: Tensor, axes: int) -> Tensor:
    """Spacing of the first ``axes`` array axes in mm, (..., axes), float64 on the CPU, of an affine (..., n + 1, n + 1)."""
    return affine.detach().cpu().double()[..., :-1, :axes].norm(dim=-2)


def affine_spacing(target: Any, input: Any) -> list[Any] | None:
    """Spacing of each sample from the affine of ``target``, else of ``input``, if one is a MetaTensor.

    Voxels of 1 mm in a tensor without a file are what a MetaTensor gets where nobody gave an affine: they say nothing.

    Raises:
        SpacingError: the lengths are those of no scanner, or the axes were exchanged after reading.
    """
    if torch.compiler.is_compiling() or not isinstance(input, Tensor):
        return None
    axes, batch = input.ndim - 2, input.shape[0]
    given: list[tuple[str, Any]] = [("target", target), ("input", input)]
    for name, x in given:
        affine = getattr(x, "affine", None)
        if isinstance(affine, Tensor) and affine.shape[-1] > axes > 0 and affine.shape[:-2] in ((), (batch,)):
            lengths = voxel_lengths(affine, axes)
            made_up = "original_affine" not in x.meta and bool((lengths == 1).all())
            if bool(((lengths > 0) & (lengths < math.inf)).all()) and not made_up:
                plausible(name, lengths)
                _in_order(name, x, affine, axes)
                return lengths.tolist()
    return None


def plausible(name: str, lengths: Tensor) -> None:
    """Refuse lengths that no scanner writes, as a transform in 2-D leaves them of an axis that it dropped."""
    low, high = PLAUSIBLE
    if not bool(((lengths >= low) & (lengths <= high)).all()):
        row = lengths.reshape(-1, lengths.shape[-1])
        worst = row[((row < low) | (row > high)).any(1)][0].tolist()
        raise SpacingError(
            f"the affine of {name} has voxels of {' x '.join(f'{x:.3g}' for x in worst)} mm, outside of {low:g} to "
            f"{high:g} mm: a transform left an affine that is not that of the voxels; pass spacing=(...)."
        )


def _in_order(name: str, x: Any, affine: Tensor, axes: int) -> None:
    """Refuse sizes that are those of the file in another order than that of the affine.

    Where a transform of MONAI turns or flips axes its affine follows: its columns then are those of the file in a new order.
    ``permute``, ``transpose``, MONAI's Transpose and the index of a slice leave the affine as it was.  After a crop, a
    resampling or a rotation by an angle the sizes say nothing.
    """
    sizes, first = x.meta.get("spatial_shape"), x.meta.get("original_affine")
    if sizes is None or first is None:
        return
    n = affine.shape[-1] - 1
    rows = torch.as_tensor(sizes).reshape(-1, torch.as_tensor(sizes).shape[-1])
    befores = torch.as_tensor(first).double().reshape(-1, *torch.as_tensor(first).shape[-2:])
    found = tuple(x.shape[-axes:])
    for row, before, now in zip(rows.tolist(), befores, affine.cpu().double().reshape(-1, n + 1, n + 1), strict=False):
        if len(row) < axes or before.shape[-1] != n + 1:
            continue
        expected = _followed(row, before[:n, :n], now[:n, :n])
        if expected is not None and found != expected[:axes] and found in itertools.permutations(expected, axes):
            raise SpacingError(
                f"{name} has the spatial shape {found}, its affine belongs to {expected}: axes were exchanged or "
                "dropped after reading, without their affine; pass spacing=(...)."
            )


def _followed(sizes: list[int], before: Tensor, now: Tensor) -> tuple[int, ...] | None:
    """The sizes of the file in the order of the columns ``now``, None where these are not those ``before``."""
    if len(sizes) != len(before):
        return tuple(sizes) if torch.equal(before, now) else None
    same = torch.stack([(now - s * before.mT[:, :, None]).norm(dim=1) for s in (1, -1)]).amin(0)  # (before, now)
    match = same <= 1e-4 * before.norm(dim=0)[:, None]
    if not bool((match.sum(0) == 1).all() & (match.sum(1) == 1).all()):
        return None
    return tuple(sizes[i] for i in match.int().argmax(0).tolist())


def known_spacing(x: Tensor | None, axes: int) -> Tensor:
    """The spacing of a loss that measures distances; 1 without one, which a warning says."""
    if x is not None:
        return x
    if not torch.compiler.is_compiling():
        warnings.warn(
            "no voxel spacing came, so that distances count voxels: pass spacing=(...) in mm, or a "
            "label with an affine.",
            stacklevel=2,
        )
    return torch.ones(axes, dtype=torch.float64)


def spacing_rows(value: Any) -> tuple[tuple[float, ...], ...] | None:
    """Voxel spacing given in numbers as rows of numbers, which a compiled graph can count with; else None."""
    if not isinstance(value, (list, tuple)) or any(isinstance(x, Tensor) or getattr(x, "ndim", 0) for x in value):
        return None
    rows = value if isinstance(value[0], (list, tuple)) else (value,)
    return tuple(tuple(map(float, row)) for row in rows)
