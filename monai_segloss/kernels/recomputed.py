"""Sums over parts of maps that keep nothing but the maps: the gradient computes each part again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.counts import Activation, activate
from monai_segloss.core.derivatives import pulled
from monai_segloss.core.exact import widest_dtype
from monai_segloss.kernels.slabs import slabs

MOST = {"cpu": 2**18}
"""Most numbers of a part, by device; on the CPU what is computed from them stays near the cache."""
LEAST_ROWS = 8
"""Least rows of a part for each row of its halo, which is computed twice."""
Index = tuple[slice, ...]
Part = tuple[Index, Index, Any]
"""Where a part belongs in the table, where it lies in the maps, and what of it counts, e.g. a slice of its rows."""


def sums(f: Callable[..., Tensor], parts: Sequence[Part], shape: Sequence[int] | None, *maps: Tensor | None) -> Tensor:
    """Table to which each part adds ``f(what counts, *maps of the part)`` at its place; its first axes have a shape.

    Differentiable in the maps, twice too; f holds no other tensors that have a gradient.  A map may be None, and one with a
    single channel goes with all classes.
    """
    if torch.compiler.is_compiling() or not any(x is not None and x.requires_grad for x in maps):
        return _sums(f, parts, shape, maps)
    found: Tensor = _Sums.apply(f, parts, shape, *maps)
    return found


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(
        f: Callable[..., Tensor], parts: Sequence[Part], shape: Sequence[int] | None, *maps: Tensor | None
    ) -> Tensor:
        return _sums(f, parts, shape, maps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.f, ctx.parts, ctx.shape, *maps = inputs
        ctx.save_for_backward(*maps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        maps, f = ctx.saved_tensors, ctx.f
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]

        def given(at: Sequence[Tensor | None], values: Sequence[Tensor]) -> list[Tensor | None]:
            filled = list(at)
            for i, value in zip(wanted, values, strict=True):
                filled[i] = value
            return filled

        found: dict[int, Tensor] = {}
        with torch.autocast(grad.device.type, enabled=False):
            if torch.is_grad_enabled():  # a graph is wanted
                given_maps: list[Any] = [maps[i] for i in wanted]
                whole = pulled(lambda *x: _sums(f, ctx.parts, ctx.shape, given(maps, x)), grad, *given_maps)
                found = dict(zip(wanted, whole, strict=True))
            else:
                found = {i: torch.zeros_like(maps[i]) for i in wanted}
                for place, where, what in ctx.parts:
                    at: list[Any] = [_given(x, where) for x in maps]
                    slopes = pulled(
                        lambda *x, at=at, what=what: f(what, *given(at, x)), grad[place], *(at[i] for i in wanted)
                    )
                    for i, slope in zip(wanted, slopes, strict=True):
                        _part(found[i], where).add_(slope)
        return None, None, None, *(found.get(i) for i in range(len(maps)))


def _sums(
    f: Callable[..., Tensor], parts: Sequence[Part], shape: Sequence[int] | None, maps: Sequence[Tensor | None]
) -> Tensor:
    total: Tensor | None = None
    kind = None
    for place, where, what in parts:
        value = f(what, *(_given(x, where) for x in maps))
        kind = value.dtype
        if total is None:
            total = torch.zeros(_whole(value, shape), dtype=widest_dtype(value.device), device=value.device)
        total[place] += value
    assert total is not None
    assert kind is not None
    return total.to(kind)


def _whole(value: Tensor, shape: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(value.shape) if shape is None else (*shape, *value.shape[len(shape) :])


def _given(x: Tensor | None, where: Index) -> Tensor | None:
    return None if x is None else _part(x, where).contiguous()


def _part(x: Tensor, where: Index) -> Tensor:
    sample, channel, *rest = where
    return x[(sample, channel if x.shape[1] > 1 else slice(None), *rest)]


def by_class(f: Callable[..., Tensor], halo: int | None, *maps: Tensor | None) -> Tensor:
    """Table (B, K, ...) of ``f(rows, *maps)``, sums over rows of maps (B, K, *S) that see ``halo`` rows, or all, around."""
    x = maps[0]
    assert x is not None
    return sums(f, class_parts(x, halo), x.shape[:2], *maps)


def by_class_in_steps(f: Callable[..., Tensor], steps: Sequence[Any], *maps: Tensor | None) -> Tensor:
    """Sum over steps of the tables (B, K, ...) of ``f(step, *maps)``; one step at a time keeps its maps."""
    x = maps[0]
    assert x is not None
    parts = [(place, where, step) for place, where, _ in class_parts(x, None) for step in steps]
    return sums(f, parts, x.shape[:2], *maps)


def totals(rows: slice, counted: Tensor | None, *maps: Tensor) -> Tensor:
    """Sums of maps (b, k, *S) over the rows that count, (b, k, number of maps)."""
    kept = (x if counted is None else x * counted for x in maps)
    return torch.stack([x[:, :, rows].flatten(2).sum(2) for x in kept], 2)


def voxel_parts(x: Tensor, by_sample: bool = False) -> list[Part]:
    """Voxels of all classes of (B, C, N), one sample and so many at a time, for one table or one row of it per sample."""
    size = x.shape[2] if torch.compiler.is_compiling() else max(1, MOST.get(x.device.type, 2**26) // x.shape[1])
    whole = slice(None)
    return [
        ((slice(b, b + 1),) if by_sample else (), (slice(b, b + 1), whole, slice(start, start + size)), whole)
        for b in range(x.shape[0])
        for start in range(0, max(1, x.shape[2]), size)
    ]


def row_parts(x: Tensor, halo: int) -> list[Part]:
    """Rows of all classes of (B, C, *S) with so many rows alongside them, for one row per sample of a table."""
    whole, plane = slice(None), x.shape[3:].numel()
    most = max(MOST.get(x.device.type, 2**26) // x.shape[1], LEAST_ROWS * halo * plane)
    most = x.shape[2] * plane if torch.compiler.is_compiling() else most
    return [
        (part[:1], (around[0], whole, around[2]), slice(start, start + part[2].stop - part[2].start))
        for part, around, start in slabs(torch.Size((len(x), 1, *x.shape[2:])), halo, most)
    ]


def class_parts(x: Tensor, halo: int | None) -> list[Part]:
    """Rows of single classes of (B, K, *S) with so many rows alongside them, None: all rows; for a table (B, K)."""
    whole, least, plane = slice(None), MOST.get(x.device.type, 2**26), x.shape[3:].numel()
    if torch.compiler.is_compiling() or x.numel() <= least:
        return [((), (whole, whole), whole)]
    most = x.shape[2] * plane if halo is None else max(least, LEAST_ROWS * halo * plane)
    parts: list[Part] = []
    for part, around, start in slabs(x.shape, halo or 0, most):
        parts.append((part[:2], around, slice(start, start + part[2].stop - part[2].start)))
    return parts


def by_name(z: Tensor, activation: Activation) -> tuple[Tensor, str]:
    """Logits and the name of their activation; a caller's own one, which may have parameters, is called here."""
    return (z, activation) if isinstance(activation, str) else (activate(z, activation), "none")
