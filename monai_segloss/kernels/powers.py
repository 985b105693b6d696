"""Powers without `pow`, which takes three times as long as an exponential, and the slopes of statistics that have them."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-7
"""Below this a base has no slope where its power is below 1."""
LOG_FLOOR = 1e-6
"""The same for -log p."""
NATIVE = (-2, -1, -0.5, 0.5, 1, 2, 3)
"""Exponents that torch computes with a few multiplications or a root."""
WHOLE = range(1, 33)
"""Exponents for a few squares, a third of the time of logarithm and exponential."""


def raised(x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent`` for x >= 0, a new tensor."""
    if exponent == 0:
        return torch.ones_like(x)
    if exponent in NATIVE:
        return x.pow(exponent)
    if exponent in (1.5, 2.5):
        half = x.sqrt().mul_(x)
        return half if exponent == 1.5 else half.mul_(x)
    if exponent in WHOLE:
        return _multiplied(x, int(exponent))
    return x.log2().mul_(exponent).exp2_()  # a third of the time of `exp`


def _multiplied(x: Tensor, times: int) -> Tensor:
    """``x ** times`` by squares."""
    out, square = x.clone() if times & 1 else None, x
    while times := times >> 1:
        square = square * square
        if times & 1:
            out = square.clone() if out is None else out.mul_(square)
    assert out is not None
    return out


def error_slope(error: Tensor, power: float) -> Tensor:
    """d/dx of x^power over power, 0 at 0; a new tensor."""
    if power > 1:
        return raised(error, power - 1)
    slope = error.sign()
    return slope if power == 1 else slope.mul_(raised(error.clamp_min(FLOOR), power - 1))


def focal(q: Tensor, lp: Tensor, power: float) -> Tensor:
    """(1 - p)^power log p, a new tensor; ``q`` is 1 - p."""
    return raised(q.clamp_min(FLOOR) if 0 < power < 1 else q, power).mul_(lp)


def focal_slope(q: Tensor, p_log_p: Tensor, power: float) -> Tensor:
    """d/dlog p of (1 - p)^power log p, which is (1 - p)^(power - 1) (1 - p - power p log p); ``q`` is 1 - p."""
    if power == 0:
        return torch.ones_like(q)
    if power < 1:  # the floor has no slope
        p_log_p = p_log_p * torch.gt(q, FLOOR, out=torch.empty_like(q))
        q = q.clamp_min(FLOOR)
    slope = torch.sub(q, p_log_p, alpha=power)
    return slope if power == 1 else slope.mul_(q if power == 2 else raised(q, power - 1))


def nats(lp: Tensor, power: float) -> Tensor:
    """-log p, not below where its power has an infinite derivative; a new tensor."""
    return lp.neg().clamp_min_(LOG_FLOOR if power < 1 else 0)


def nats_slope(lp: Tensor, power: float) -> Tensor:
    """d/dlog p of (-log p)^power."""
    slope = raised(nats(lp, power), power - 1).mul_(-power)
    return slope.mul_(torch.le(lp, -LOG_FLOOR, out=torch.empty_like(slope))) if power < 1 else slope
