"""A kernel is verified on the first call of each kind: on some voxels it is compared with the definition."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

VOXELS = 1000
"""Voxels of the comparison; no multiple of a tile, so that the rest of one is in it."""
TOLERANCE = 1e-2
"""Of the largest value.  It is there for drivers and compilers that give something else, not for the last digits."""
Results = Callable[[], tuple[Tensor, ...]]
ON: set[str] = {"cuda"}
"""Device types with trials."""
_VERIFIED: dict[Hashable, bool] = {}


def is_verified(kind: Hashable, device: torch.device, kernel: Results, definition: Results) -> bool:
    """Whether a kernel may run: its trial on this device, which waits for it once, succeeded.

    Args:
        kind: of call: whatever the kernel is compiled for.
        device: of the call.
        kernel: runs it on a few voxels.
        definition: computes the same.

    Warns:
        RuntimeWarning: once for each kind, that the kernel failed or gave other values and the definition runs instead.
    """
    if device.type not in ON:
        return True
    key = (kind, device)
    if key not in _VERIFIED:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return True  # nothing may wait in a graph that is being captured; it has run before
        _VERIFIED[key] = _try(kernel, definition)
    return _VERIFIED[key]


def _try(kernel: Results, definition: Results) -> bool:
    try:
        reason = _difference(kernel(), definition())
    except _errors() as error:
        reason = f"it failed with {type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
    if reason is None:
        return True
    warnings.warn(
        f"the fused kernel does not run on this machine: {reason}. The plain formula takes its place, with the same values "
        "but more memory. Please report it.",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def _errors() -> tuple[type[BaseException], ...]:
    """What a compiler, a driver or a missing C compiler raises; a mistake in a table is none of these."""
    found = (RuntimeError, OSError, ImportError, subprocess.SubprocessError)
    try:
        from triton.errors import TritonError
    except ImportError:
        return found
    return (*found, TritonError)


def _difference(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> str | None:
    for got, right in zip(found, expected, strict=True):
        right = right.to(got.dtype)
        size = float(right.nan_to_num(0, 0, 0).abs().amax()) if right.numel() else 0.0
        if not torch.allclose(got, right, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True):
            return f"it differs from the definition by up to {float((got - right).abs().nan_to_num().amax()):.3g}"
    return None
