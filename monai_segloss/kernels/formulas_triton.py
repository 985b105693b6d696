"""The statistics of a voxel and class in Triton: each function gives the value and, beside it, the slope.

The values are those of `FORMULAS` in `monai_segloss.core.counts`, with p, q = 1 - p, their logarithms ``lp`` and ``lq``, the
target g (bool where it is hard) and the exponent ``a``.  The slope is the derivative in log p; that of a statistic of
log(1 - p), which grows without bound where p nears 1, comes times q, see `COMPLEMENT`.
"""
# Triton compiles a subset of Python, without types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: SIM108

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

FLOOR = tl.constexpr(1e-7)
"""Below this the base of a power under 1 counts as constant."""
LOG_FLOOR = tl.constexpr(1e-6)
"""The same for the base -log p."""


@triton.jit
def number(g):
    """The target as a number."""
    if g.dtype == tl.int1:
        found = tl.where(g, 1.0, 0.0)
    else:
        found = g
    return found


INTERPRETED = tl.constexpr(not isinstance(number, triton.JITFunction))
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
def within(g, x):
    """g x, also 0 where g is 0 and x infinite."""
    if g.dtype == tl.int1:
        found = tl.where(g, x, 0.0)
    else:
        found = tl.where(g == 0, 0.0, g * x)
    return found


@triton.jit
def without(g, x):
    """(1 - g) x, also 0 where g is 1 and x infinite."""
    if g.dtype == tl.int1:
        found = tl.where(g, 0.0, x)
    else:
        found = tl.where(g == 1, 0.0, (1 - g) * x)
    return found


@triton.jit
def log1p_accurate(x):
    """log(1 + x) to the last digits, also for a small x."""
    u = 1 + x
    return tl.where(u == 1, x, tl.log(u) * (x / (u - 1)))


@triton.jit
def raised(x, a: tl.constexpr):
    """x^a for x >= 0."""
    if a == 0:
        found = x * 0 + 1
    elif a == 1:
        found = x
    elif a == 2:
        found = x * x
    elif a == 3:
        found = x * x * x
    else:
        found = tl.exp2(a * tl.log2(x))
    return found


@triton.jit
def _power(x, a: tl.constexpr, floor: tl.constexpr):
    """x^a and its derivative, for exponents below 1 constant below the floor.  A NaN stays one."""
    if a == 0:
        value, slope = x * 0 + 1, x * 0
    elif a < 1:
        base = tl.where(x < floor, floor, x)
        value = raised(base, a)
        slope = tl.where(x < floor, 0.0, a * value / base)
    else:
        value, slope = raised(x, a), a * raised(x, a - 1)
    return value, slope


@triton.jit
def _g(p, q, lp, lq, g, a: tl.constexpr):
    return number(g), p * 0


@triton.jit
def _tp(p, q, lp, lq, g, a: tl.constexpr):
    return within(g, p), within(g, p)


@triton.jit
def _fp(p, q, lp, lq, g, a: tl.constexpr):
    return without(g, p), without(g, p)


@triton.jit
def _fn(p, q, lp, lq, g, a: tl.constexpr):
    return within(g, q), -within(g, p)


@triton.jit
def _tn(p, q, lp, lq, g, a: tl.constexpr):
    return without(g, q), -without(g, p)


@triton.jit
def _tp_l1(p, q, lp, lq, g, a: tl.constexpr):
    t = number(g)
    # Where both are equal the smaller one is either of them, and half the slope belongs to p.
    return tl.where(p >= t, t, p), tl.where(p > t, 0.0, tl.where(p == t, 0.5 * p, p))


@triton.jit
def _fp_l1(p, q, lp, lq, g, a: tl.constexpr):
    t = number(g)
    return tl.where(p <= t, 0.0, p - t), tl.where(p <= t, 0.0, p)


@triton.jit
def _fn_l1(p, q, lp, lq, g, a: tl.constexpr):
    t = number(g)
    return tl.where(p >= t, 0.0, t - p), tl.where(p >= t, 0.0, -p)


@triton.jit
def _se(p, q, lp, lq, g, a: tl.constexpr):
    d = p - number(g)
    return d * d, 2 * p * d


@triton.jit
def _se_g(p, q, lp, lq, g, a: tl.constexpr):
    d = p - number(g)
    return within(g, d * d), within(g, 2 * p * d)


@triton.jit
def _se_neg(p, q, lp, lq, g, a: tl.constexpr):
    d = p - number(g)
    return without(g, d * d), without(g, 2 * p * d)


@triton.jit
def _p_sq(p, q, lp, lq, g, a: tl.constexpr):
    return p * p, 2 * p * p


@triton.jit
def _g_sq(p, q, lp, lq, g, a: tl.constexpr):
    return within(g, number(g)), p * 0


@triton.jit
def _pq(p, q, lp, lq, g, a: tl.constexpr):
    return p * q, p * (q - p)


@triton.jit
def _sign(d):
    return tl.where(d > 0, 1.0, tl.where(d < 0, -1.0, d))


@triton.jit
def _ae(p, q, lp, lq, g, a: tl.constexpr):
    d = p - number(g)
    if a == 0:
        slope = d * 0
    else:
        slope = tl.where(d == 0, 0.0, a * raised(tl.abs(d), a - 1) * _sign(d) * p)
    return raised(tl.abs(d), a), slope


@triton.jit
def _ae_tp(p, q, lp, lq, g, a: tl.constexpr):
    d = p - number(g)
    return within(g, tl.abs(d) * p), within(g, p * (_sign(d) * p + tl.abs(d)))


@triton.jit
def _ae_err(p, q, lp, lq, g, a: tl.constexpr):
    d, error = p - number(g), without(g, p) + within(g, q)
    return tl.abs(d) * error, p * (_sign(d) * error + tl.abs(d) * (1 - 2 * number(g)))


@triton.jit
def _ce(p, q, lp, lq, g, a: tl.constexpr):
    return within(g, -lp), -number(g)


@triton.jit
def _ce_neg(p, q, lp, lq, g, a: tl.constexpr):
    return without(g, -lq), without(g, p)


@triton.jit
def _nlp(p, q, lp, lq, g, a: tl.constexpr):
    return -lp, p * 0 - 1


@triton.jit
def _log1p(p, q, lp, lq, g, a: tl.constexpr):
    return within(g, log1p_accurate(p)), within(g, p / (1 + p))


@triton.jit
def _focal(p, q, lp, lq, g, a: tl.constexpr):
    factor, rise = _power(q, a, FLOOR)
    return within(g, -factor * lp), within(g, rise * p * lp - factor)


@triton.jit
def _focal_neg(p, q, lp, lq, g, a: tl.constexpr):
    factor, rise = _power(p, a, FLOOR)
    # q log q goes to 0 with q
    return without(g, -factor * lq), without(g, p * (factor - rise * tl.where(q == 0, 0.0, q * lq)))


@triton.jit
def _ce_power(p, q, lp, lq, g, a: tl.constexpr):
    value, rise = _power(-lp, a, LOG_FLOOR)
    return within(g, value), within(g, -rise)


@triton.jit
def _ce_neg_power(p, q, lp, lq, g, a: tl.constexpr):
    value, rise = _power(-lq, a, LOG_FLOOR)
    return without(g, value), without(g, rise * p)


FORMULAS = {
    "g": _g, "tp": _tp, "fp": _fp, "fn": _fn, "tn": _tn, "tp_l1": _tp_l1, "fp_l1": _fp_l1, "fn_l1": _fn_l1,
    "se": _se, "se_g": _se_g, "se_neg": _se_neg, "p_sq": _p_sq, "g_sq": _g_sq, "pq": _pq,
    "ae": _ae, "ae_tp": _ae_tp, "ae_err": _ae_err, "ce": _ce, "ce_neg": _ce_neg, "nlp": _nlp, "log1p": _log1p,
    "focal": _focal, "focal_neg": _focal_neg, "ce_power": _ce_power, "ce_neg_power": _ce_neg_power,
}  # fmt: skip
"""Name of a statistic -> its value and slope."""
