"""The worst logits of neighbors by the C++ kernels of ``neighbors.cpp``, on all threads of torch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_segloss.core.neighbors import inside, step_dtype
from monai_segloss.kernels import native


class _Worst(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("z", "codes", "worst", "steps", "planes", "classes", "labels")),
        *((name, ctypes.c_int64) for name in ("depth", "height", "width")),
        *((name, ctypes.c_int64) for name in ("along_depth", "along_height", "along_width", "wide", "far", "threads")),
    ]


class NativeNeighbors:
    """What `monai_segloss.core.neighbors` does, for contiguous or other tensors on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def worst(self, logits: Tensor, target: Tensor, mask: Tensor | None, radius: int) -> tuple[Tensor, Tensor]:
        """The worst logits, and the steps to them."""
        z, codes = logits.contiguous(), _codes(logits, target, mask)
        worst = torch.empty_like(z)
        steps = torch.empty_like(z, dtype=step_dtype(z.shape[2:], radius))
        self._run("worst_of_neighbors", z, codes, worst, steps, radius)
        return worst, steps

    def send(self, grad: Tensor, steps: Tensor) -> Tensor:
        """The gradient of the worst logits, at the voxels that were taken."""
        grad = grad.contiguous()
        slopes = torch.empty_like(grad)
        self._run("send_to_worst", grad, None, slopes, steps, 0)
        return slopes

    def _run(self, name: str, z: Tensor, codes: Tensor | None, worst: Tensor, steps: Tensor, radius: int) -> None:
        batch, classes, *space = z.shape
        space, reach = _three_axes(space, 1), _three_axes([min(radius, n - 1) for n in space], 0)
        labels = codes is not None and codes.ndim < z.ndim
        addresses = z.data_ptr(), 0 if codes is None else codes.data_ptr(), worst.data_ptr(), steps.data_ptr()
        kinds = z.dtype == torch.float64, steps.dtype == torch.int32, torch.get_num_threads()
        call = _Worst(*addresses, batch * classes, classes, labels, *space, *reach, *kinds)
        getattr(self.library, name)(ctypes.byref(call))


def _codes(logits: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Labels, or 1 in a class and 0 outside, as int16; -1 does not count."""
    if target.ndim < logits.ndim:
        codes = target.to(torch.int16)
        return (codes if mask is None else codes.masked_fill(~mask, -1)).contiguous()
    codes = inside(target).to(torch.int16)
    return (codes if mask is None else codes.masked_fill(~mask[:, None], -1)).contiguous()


def _three_axes(sizes: Sequence[int], fill: int) -> list[int]:
    """Sizes of a volume; all axes but the last two are one where there are more."""
    return [fill] * (3 - len(sizes)) + list(sizes)


def native_neighbors() -> NativeNeighbors | None:
    """The kernels, or None without a compiler."""
    library = native.load(native.source("threads", "neighbors"), "-O3")
    return None if library is None else NativeNeighbors(library)
