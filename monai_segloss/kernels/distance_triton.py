"""The passes of the distance transform as one Triton kernel, for CUDA.

Tested in Triton's interpreter, and compiled for a GPU; not yet run or measured on one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LINES, POINTS = 32, 64


@triton.jit  # type: ignore[untyped-decorator]
def _pass(  # type: ignore[no-untyped-def]
    source, out, rows, lines, per_sample, length, inner, axis, ndim, half,
    FIRST: tl.constexpr, LAST: tl.constexpr, LINES: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """out(x) = min_q source(q) + max(|x - q| s - half s, 0)^2 along one axis, for a block of lines and of x."""
    line = tl.program_id(0).to(tl.int64) * LINES + tl.arange(0, LINES)
    x = tl.program_id(1) * POINTS + tl.arange(0, POINTS)
    inside = line < lines
    step = tl.load(rows + (line // per_sample) * ndim + axis, mask=inside, other=1.0)
    start = (line // inner) * length * inner + line % inner
    best = tl.full((LINES, POINTS), float("inf"), tl.float32)
    for q in range(length):
        value = tl.load(source + start + q * inner, mask=inside, other=0)
        if FIRST:
            value = tl.where(value != 0, 0.0, float("inf"))
        gap = tl.abs(x - q).to(tl.float32)
        gap = tl.maximum(gap - half, 0.0)[None, :] * step[:, None]
        best = tl.minimum(best, value[:, None] + gap * gap)
    if LAST:
        best = tl.sqrt(best)
    where = start[:, None] + x[None, :].to(tl.int64) * inner
    tl.store(out + where, best, mask=inside[:, None] & (x < length)[None, :])


def min_plus(sources: Tensor, rows: Tensor, surface: bool) -> Tensor:
    """Distance to the nearest source (B, C, *S) bool, one launch per axis; nothing waits for the device."""
    shape = sources.shape
    ndim = len(shape) - 2
    rows = rows.to(sources.device, torch.float32, non_blocking=True).contiguous()
    f = sources.contiguous().view(torch.uint8)
    for axis, length in enumerate(shape[2:]):
        inner = shape[axis + 3 :].numel()
        lines = f.numel() // length
        out = torch.empty(shape, dtype=torch.float32, device=sources.device)
        grid = (triton.cdiv(lines, LINES), triton.cdiv(length, POINTS))
        _pass[grid](
            f, out, rows, lines, lines // shape[0], length, inner, axis, ndim, 0.5 if surface else 0.0,
            FIRST=axis == 0, LAST=axis == ndim - 1, LINES=LINES, POINTS=POINTS,
        )  # fmt: skip
        f = out
    return f
