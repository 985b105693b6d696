"""Statistics of a chunk of voxels with labels and softmax, by hand: sums, and the gradient of the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_segloss.core.counts import Stat
from monai_segloss.kernels.chunk_cpu import Chunk, Slopes

FLOOR = 1e-7
"""Below this 1 - p has no gradient where its power is below 1."""


@dataclass(frozen=True)
class _Sparse:
    """A statistic as a sum, and its derivative split into the true class and the rows of all classes.

    ``slope`` maps a basis function of the true class to the factor of its derivative with respect to log p; ``row`` names
    what the other classes give, times ``sign``.
    """

    total: Callable[[Chunk, float], Tensor]
    slope: tuple[tuple[str, float], ...] = ()
    row: str | None = None
    sign: float = 1.0


def _focal(c: Chunk, power: float) -> Tensor:
    """(1 - p)^power log p of the true class."""
    if power == 0:
        return c.lp_y
    q = -c.lp_y.expm1()
    return _power_(q.clamp_min_(FLOOR) if power < 1 else q, power).mul_(c.lp_y)


def _focal_slope(c: Chunk, power: float) -> Tensor:
    """d/dlog p of (1 - p)^power log p, which is (1 - p)^(power - 1) (1 - p - power p log p)."""
    if power == 0:
        return torch.ones_like(c.p[:, 0])
    q = c.q_y
    if power < 1:  # the power magnifies the error of log p near 1, and the floor has no slope
        clipped = q.clamp_min(FLOOR)
        p_log_p = torch.where(q > 0.5, -torch.special.entr(c.p_y), c.p_y * torch.log1p(-q.clamp(FLOOR, 0.5)))
        return (clipped - torch.where(q > FLOOR, power * p_log_p, 0)) * clipped ** (power - 1)
    p = (1 - q).clamp_min_(0)  # q is a sum and may pass 1 by a rounding error
    slope = torch.add(q, torch.special.entr(p, out=p), alpha=power, out=p)
    return slope if power == 1 else slope.mul_(_power_(q.clone() if power != 2 else q, power - 1))


def _power_(base: Tensor, exponent: float) -> Tensor:
    return base if exponent == 1 else base.square_() if exponent == 2 else base.pow_(exponent)


def _missed(c: Chunk) -> Tensor:
    return c.sum_by_label(c.q_y.square())


def _extra(c: Chunk) -> Tensor:
    return c.row_sum(c.misses(c.p).square_())


_AREA = (
    _Sparse(lambda c, a: c.area[0], slope=(("p", 1.0),)),
    _Sparse(lambda c, a: c.area[1], row="p"),
    _Sparse(lambda c, a: c.area[2], slope=(("p", -1.0),)),
)
SPARSE = {
    "g": _Sparse(lambda c, a: c.sum_by_label(None)),
    "tp": _AREA[0],
    "fp": _AREA[1],
    "fn": _AREA[2],
    "tp_l1": _AREA[0],
    "fp_l1": _AREA[1],
    "fn_l1": _AREA[2],
    "tn": _Sparse(lambda c, a: c.row_sum(c.misses(1 - c.p)), row="p", sign=-1.0),
    "g_sq": _Sparse(lambda c, a: c.sum_by_label(None)),
    "p_sq": _Sparse(lambda c, a: c.sum_by_label(c.p_y.square()) + _extra(c), slope=(("pp", 2.0),), row="p2"),
    "se": _Sparse(lambda c, a: _missed(c) + _extra(c), slope=(("qp", -2.0),), row="p2"),
    "se_g": _Sparse(lambda c, a: _missed(c), slope=(("qp", -2.0),)),
    "se_neg": _Sparse(lambda c, a: _extra(c), row="p2"),
    "ce": _Sparse(lambda c, a: -c.log_likelihood(), slope=(("1", -1.0),)),
    "ce_neg": _Sparse(lambda c, a: -c.row_sum(c.misses(c.complement.log_q)), row="lq"),
    "nlp": _Sparse(lambda c, a: -c.row_sum(c.lp), row="nlp"),
    "focal": _Sparse(lambda c, a: -c.sum_by_label(_focal(c, a)), slope=(("focal", -1.0),)),
}
BASIS: dict[str, Callable[[Chunk, float], Tensor]] = {
    "p": lambda c, a: c.p_y,
    "pp": lambda c, a: c.p_y.square(),
    "qp": lambda c, a: c.q_y * c.p_y,
    "focal": _focal_slope,
}


def label_sums(c: Chunk, which: tuple[Stat, ...]) -> list[Tensor]:
    """The statistics of a chunk, (C,) each."""
    return [SPARSE[name].total(c, power) for name, power in which]


def slopes_of(which: tuple[Stat, ...], grad: Tensor) -> Slopes:
    """What the gradient (C, K) of a sample's sums says about d loss / d log p."""
    hits: dict[tuple[str, float], Tensor] = {}
    rows: dict[str, Tensor] = {}
    for (name, power), weight in zip(which, grad.unbind(1), strict=True):
        for basis, factor in SPARSE[name].slope:
            power = power if basis == "focal" else 0.0
            hits[basis, power] = hits.get((basis, power), 0) + factor * weight
        row = SPARSE[name].row
        if row is not None:
            rows[row] = rows.get(row, 0) + SPARSE[name].sign * weight[:, None]
    return Slopes(hits, rows)


def label_gradient(out: Tensor, c: Chunk, slopes: Slopes) -> None:
    """With A = d loss / d log p, the gradient of the logits is A - p sum(A); ``out`` may be ``c.p``."""
    slope = c.slope(slopes, lambda basis, power: BASIS[basis](c, power))
    if "nlp" in slopes.rows:
        slope -= slopes.rows["nlp"]
    extra = None
    if "lq" in slopes.rows:
        extra = c.complement.gradient(c.p, c.misses(slopes.rows["lq"].expand_as(c.p)))
        extra = extra if c.w is None else extra.mul_(c.w[:, None])
    if c.w is not None:
        slope *= c.w[:, None]
    total = slope.sum(1, keepdim=True)
    if out.dtype == slope.dtype:
        torch.addcmul(slope, c.p, total, value=-1, out=out)
        found = out
    else:
        found = slope.addcmul_(c.p, total, value=-1)
    if extra is not None:
        found += extra
    if found is not out:
        out.copy_(found)
