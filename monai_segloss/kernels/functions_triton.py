"""The functions of the formulas in Triton, under the names that `monai_segloss.kernels.emit` writes.  A NaN stays one."""
# Triton compiles a subset of Python, without types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: SIM108

from __future__ import annotations

import hashlib
import linecache
from functools import cache
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.language.extra import libdevice

from monai_segloss.core.counts import Stat
from monai_segloss.kernels import emit


@triton.jit
def where(g, x, y):
    """x where the target holds, else y."""
    return tl.where(g, x, y)


INTERPRETED = tl.constexpr(not isinstance(where, triton.JITFunction))
"""Whether this runs in Triton's interpreter, which has no functions of the device's library."""


@triton.jit
def exp(x):
    """exp(x); on a GPU without the steps for numbers below 1e-38, which are 0 here."""
    if INTERPRETED:
        found = tl.exp(x)
    else:
        found = libdevice.fast_expf(x)
    return found


@triton.jit
def log1p_(x):
    """log(1 + x) to the last digits, also for a small x."""
    u = 1 + x
    return tl.where(u == 1, x, tl.log(u) * (x / (u - 1)))


@triton.jit
def absolute(x):
    """|x|."""
    return tl.abs(x)


@triton.jit
def sign(x):
    """-1, 0 or 1."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))


@triton.jit
def smaller(x, y):
    """The smaller one."""
    return tl.where(x >= y, y, x)


@triton.jit
def larger(x, y):
    """The larger one."""
    return tl.where(x <= y, y, x)


@triton.jit
def above(x, y):
    """1 where x > y, else 0."""
    return tl.where(x > y, 1.0, 0.0)


@triton.jit
def step(x, y):
    """1 where x > y, 1/2 where they are equal, else 0."""
    return tl.where(x > y, 1.0, tl.where(x == y, 0.5, 0.0))


@triton.jit
def raised(x, a: tl.constexpr):
    """x^a for x >= 0."""
    if a == 0:
        found = x * 0 + 1
    elif a < 0:
        found = 1 / raised(x, -a)
    elif a == 1:
        found = x
    elif a == 2:
        found = x * x
    elif a == 3:
        found = x * x * x
    else:
        found = tl.exp2(a * tl.log2(x))
    return found


@cache
def functions(which: tuple[Stat, ...], formulas: tuple[Any, ...], hard: bool) -> tuple[Any, Any, bool, bool]:
    """Values and slopes of statistics as functions of Triton; whether there are pulls, whether powers are sharp.

    Triton reads the source of a function and, in its cache on disk, knows one that is an argument by its name only.
    """
    found = emit.expressions(which)
    text, pulls = emit.triton(found, hard)
    key = hashlib.sha256(text.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    text = text.replace("def values(", f"def values_{key}(").replace("def slopes(", f"def slopes_{key}(")
    file, scope = f"<statistics {key}>", dict(globals())
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    exec(compile(text, file, "exec"), scope)
    values, slopes = (triton.jit(scope[f"{name}_{key}"]) for name in ("values", "slopes"))
    return values, slopes, pulls, emit.magnifies(found)
