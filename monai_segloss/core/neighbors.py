"""Same-class neighbor penalization (SCNP): each voxel takes the worst logit among its neighbors of the same class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from monai_segloss.core.arguments import shown
from monai_segloss.core.derivatives import under_vmap


class Kernels(Protocol):
    """Faster equals of `worst` and `send`."""

    def worst(self, logits: Tensor, target: Tensor, mask: Tensor | None, radius: int) -> tuple[Tensor, Tensor]: ...

    def send(self, grad: Tensor, steps: Tensor) -> Tensor: ...


KERNELS: dict[str, Callable[[], Kernels | None]] = {}
"""Device type -> what gives its kernels, if there are any; `monai_segloss.kernels` fills it."""


def _kernels(x: Tensor) -> Kernels | None:
    """Those for a tensor of at most three axes of space whose values lie in memory."""
    known = x.device.type in KERNELS and x.dtype in (torch.float32, torch.float64) and x.ndim <= 5
    if not known or torch.compiler.is_compiling() or under_vmap():
        return None
    return KERNELS[x.device.type]()


def window(width: float) -> int:
    """``neighbors``, checked: an odd whole number."""
    if width < 1 or width % 2 != 1:
        raise ValueError(f"neighbors must be an odd whole number from 1, the width of a window, got {shown(width)}.")
    return int(width)


def worst_of_neighbors(logits: Tensor, target: Tensor, mask: Tensor | None, width: int) -> Tensor:
    r"""The worst logits among the neighbors of each voxel that are of its class, channel by channel.

    Formula: \tilde z_{ki} = \min_{j \in \Omega_i,\, y_{kj} = 1} z_{kj} where y_{ki} = 1, and
    \max_{j \in \Omega_i,\, y_{kj} = 0} z_{kj} where y_{ki} = 0

    The gradient goes to the voxel that was taken, which of equally bad ones is the voxel itself where it is one of them.

    Args:
        logits: (B, C, *S), finite where ``mask`` is false.
        target: labels (B, *S), or channels (B, C, *S), of which y is 1 from one half on.
        mask: (B, *S) bool, the voxels that count, or None; others are no neighbors and keep their logits.
        width: odd width of the window, in voxels; none lies beyond the image.

    Example:
        >>> import torch
        >>> z, y = torch.tensor([[[5.0, 1.0, 4.0, 3.0]]]), torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
        >>> worst_of_neighbors(z, y, None, 3).tolist()
        [[[1.0, 1.0, 4.0, 4.0]]]
    """
    if width == 1 or logits.ndim < 3:
        return logits
    worst: Tensor = _Worst.apply(logits, target, mask, width // 2)[0]
    return worst


class _Worst(torch.autograd.Function):
    """The logits, and for each voxel how far away in memory the one is that was taken."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor, mask: Tensor | None, radius: int) -> tuple[Tensor, Tensor]:
        kernels = _kernels(logits)
        return worst(logits, target, mask, radius) if kernels is None else kernels.worst(logits, target, mask, radius)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (steps,) = ctx.saved_tensors
        kernels = None if torch.is_grad_enabled() else _kernels(grad)  # else a graph is wanted
        return (send(grad, steps) if kernels is None else kernels.send(grad, steps)), None, None, None


def worst(logits: Tensor, target: Tensor, mask: Tensor | None, radius: int) -> tuple[Tensor, Tensor]:
    """The worst logits (B, C, *S), and the steps to them."""
    found = torch.empty_like(logits, memory_format=torch.contiguous_format)
    steps = torch.empty_like(found, dtype=step_dtype(logits.shape[2:], radius))
    for k in range(logits.shape[1]):  # one by one: what is kept in between is as large as one class
        z = logits[:, k]
        of_class = target == k if target.ndim < logits.ndim else inside(target[:, k])
        step = torch.zeros_like(z, dtype=steps.dtype)
        for side, badness in ((of_class, -z), (~of_class, z)):
            side = side if mask is None else side & mask
            step = torch.where(side, _to_largest(badness.masked_fill(~side, -torch.inf), radius, steps.dtype), step)
        found[:, k] = z.flatten(1).gather(1, _places(step)).view_as(z)
        steps[:, k] = step
    return found, steps


def send(grad: Tensor, steps: Tensor) -> Tensor:
    """The gradient of the worst logits, at the voxels that were taken."""
    slopes = torch.zeros_like(grad, memory_format=torch.contiguous_format)
    for k in range(grad.shape[1]):
        slope = torch.zeros_like(grad[:, k].flatten(1))
        slopes[:, k] = slope.scatter_add(1, _places(steps[:, k]), grad[:, k].flatten(1)).view_as(grad[:, k])
    return slopes


def inside(target: Tensor) -> Tensor:
    """Where the voxels of a channel are of its class: from one half on."""
    return target >= 0.5 if target.is_floating_point() else target != 0


def step_dtype(space: torch.Size, radius: int) -> torch.dtype:
    """The smaller type that holds the way to the far corner of a window."""
    reach = sum(min(radius, n - 1) * space[axis:].numel() for axis, n in enumerate(space, start=1))
    return torch.int16 if reach < 2**15 else torch.int32


def _to_largest(x: Tensor, radius: int, dtype: torch.dtype) -> Tensor:
    """How far away in memory the largest value of each voxel's window is, for maps (B, *S)."""
    steps = torch.zeros_like(x, dtype=dtype)
    for axis in range(1, x.ndim):
        n, stride = x.shape[axis], x.shape[axis + 1 :].numel()
        for _ in range(min(radius, n - 1)):
            largest, ways = x.clone(), steps.clone()
            for direction in (-1, 1):
                here, there = (1, 0) if direction < 0 else (0, 1)
                best, way = largest.narrow(axis, here, n - 1), ways.narrow(axis, here, n - 1)
                other = x.narrow(axis, there, n - 1)
                larger = other > best
                best.copy_(torch.where(larger, other, best))
                way.copy_(torch.where(larger, steps.narrow(axis, there, n - 1) + direction * stride, way))
            x, steps = largest, ways
    return steps


def _places(steps: Tensor) -> Tensor:
    """Place in memory of what steps (B, *S) lead to, (B, voxels)."""
    flat = steps.flatten(1)
    return torch.arange(flat.shape[1], device=flat.device) + flat
