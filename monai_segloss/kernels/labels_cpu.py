"""Statistics of a chunk of voxels with labels and softmax, by hand: sums, and the gradient of the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from monai_segloss.core.counts import Stat
from monai_segloss.kernels.chunk_cpu import Chunk, Slopes, softmax_gradient
from monai_segloss.kernels.powers import error_slope, focal, focal_slope, nats, nats_slope, raised

POWERED = ("focal", "ce_power", "ae")
"""What has an exponent."""


@dataclass(frozen=True)
class _Sparse:
    """A statistic as a sum, and its derivative split into the true class and the other classes.

    ``hits`` are basis functions of the true class with a factor each, whose sum is the derivative with respect to p,
    ``log_hits`` with respect to log p; ``misses`` are functions of p of another class, derivatives with respect to p;
    ``row`` names what the other classes give in a way of its own, times ``sign``.
    """

    total: Callable[[Chunk, float], Tensor]
    hits: tuple[tuple[str, float], ...] = ()
    log_hits: tuple[tuple[str, float], ...] = ()
    misses: tuple[tuple[str, float], ...] = ()
    row: str | None = None
    sign: float = 1.0


def _errors(c: Chunk, power: float) -> Tensor:
    """Sum of |p - g|^power."""
    return _missed(c, power) + _extra(c, power)


def _missed(c: Chunk, power: float) -> Tensor:
    """Sum of (1 - p)^power over the voxels of each label."""
    return c.sum_by_label(raised(c.q_y, power))


def _extra(c: Chunk, power: float) -> Tensor:
    """Sum of p^power over the voxels of other labels."""
    return c.row_sum(raised(c.missed, power))


_TP = _Sparse(lambda c, a: c.area[0], hits=(("1", 1.0),))
_FP = _Sparse(lambda c, a: c.area[1], row="p")
_FN = _Sparse(lambda c, a: c.area[2], hits=(("1", -1.0),))
_SE = _Sparse(lambda c, a: _errors(c, 2), hits=(("q", -2.0),), misses=(("p", 2.0),))
SPARSE = {
    "g": _Sparse(lambda c, a: c.sum_by_label(None)),
    "tp": _TP,
    "fp": _FP,
    "fn": _FN,
    "tp_l1": _TP,
    "fp_l1": _FP,
    "fn_l1": _FN,
    "tn": _Sparse(lambda c, a: c.row_sum(c.misses(1 - c.p)), row="p", sign=-1.0),
    "g_sq": _Sparse(lambda c, a: c.sum_by_label(None)),
    "p_sq": _Sparse(lambda c, a: c.row_sum(c.p.square()), hits=(("p", 2.0),), misses=(("p", 2.0),)),
    "pq": _Sparse(
        lambda c, a: c.sum_by_label(c.q_y * c.p_y) + c.row_sum((1 - c.missed).mul_(c.missed)),
        hits=(("1", -1.0), ("q", 2.0)),
        misses=(("p", -2.0),),
        row="p",
    ),
    "se": _SE,
    "se_g": _Sparse(lambda c, a: _missed(c, 2), hits=(("q", -2.0),)),
    "se_neg": _Sparse(lambda c, a: _extra(c, 2), misses=(("p", 2.0),)),
    "ae": _Sparse(lambda c, a: c.row_sum(raised(c.errors, a)), hits=(("ae", -1.0),), misses=(("ae", 1.0),)),
    "ae_tp": _Sparse(lambda c, a: c.sum_by_label(c.q_y * c.p_y), hits=(("1", -1.0), ("q", 2.0))),
    "ae_err": _SE,
    "ce": _Sparse(lambda c, a: -c.log_likelihood(), log_hits=(("1", -1.0),)),
    "ce_neg": _Sparse(lambda c, a: -c.row_sum(c.misses(c.complement.log_q)), row="lq"),
    "nlp": _Sparse(lambda c, a: -c.row_sum(c.lp), row="nlp"),
    "log1p": _Sparse(lambda c, a: c.sum_by_label(c.p_y.log1p()), hits=(("log1p", 1.0),)),
    "focal": _Sparse(lambda c, a: -c.sum_by_label(focal(c.q_y, c.log_p_y, a)), log_hits=(("focal", -1.0),)),
    "ce_power": _Sparse(lambda c, a: c.sum_by_label(raised(nats(c.log_p_y, a), a)), log_hits=(("ce_power", 1.0),)),
}
BASIS: dict[str, Callable[[Chunk, float], Tensor]] = {
    "p": lambda c, a: c.p_y,
    "q": lambda c, a: c.q_y,
    "ae": lambda c, a: error_slope(c.q_y, a),
    "log1p": lambda c, a: (1 + c.p_y).reciprocal_(),
    "focal": lambda c, a: focal_slope(c.q_y, c.p_log_p_y, a),
    "ce_power": lambda c, a: nats_slope(c.log_p_y, a),
}
CURVES: dict[str, Callable[[Tensor, float], Tensor]] = {"p": lambda p, a: p, "ae": error_slope}


def label_sums(c: Chunk, which: tuple[Stat, ...]) -> list[Tensor]:
    """The statistics of a chunk, (R, C) each; what needs log p of all classes goes first, others then read it."""
    found = {stat: SPARSE[stat.name].total(c, stat.power) for stat in sorted(which, key=lambda s: s.name != "nlp")}
    return [found[stat] for stat in which]


def slopes_of(which: tuple[Stat, ...], grad: Tensor) -> Slopes:
    """What the gradient (R, C, K) of the sums of samples says about the slopes."""
    slopes = Slopes({}, {}, {}, {}, BASIS, CURVES)
    for (name, power), weight in zip(which, grad.unbind(2), strict=True):
        given, column = SPARSE[name], weight[..., None]
        for parts, found, factors in (
            (given.hits, slopes.hits, weight),
            (given.log_hits, slopes.log_hits, weight),
            (given.misses, slopes.misses, column),
        ):
            for function, factor in parts:
                key = function, power if function in POWERED else 0.0
                found[key] = found.get(key, 0) + factor * (power if function == "ae" else 1) * factors
        if given.row is not None:
            slopes.rows[given.row] = slopes.rows.get(given.row, 0) + given.sign * column
    return slopes


def label_gradient(out: Tensor, c: Chunk, slopes: Slopes) -> None:
    """With A = d loss / d log p, the gradient of the logits is A - p sum(A); ``out`` may be ``c.p``."""
    slope = c.slope(slopes)
    if "nlp" in slopes.rows:
        slope -= slopes.rows["nlp"]
    extra = None
    if "lq" in slopes.rows:
        extra = c.complement.gradient(c.misses(slopes.rows["lq"].expand_as(c.p)))
        extra = extra if c.w is None else extra.mul_(c.w[:, None])
    if c.w is not None:
        slope *= c.w[:, None]
    softmax_gradient(out, c.p, slope, extra)
