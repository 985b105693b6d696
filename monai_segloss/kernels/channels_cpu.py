"""Statistics of a chunk of voxels with one channel per class, softmax or sigmoid, by hand: the gradient of the logits.

The sums are the plain formulas on values that several statistics share.  A derivative has three parts, as a statistic is
written in p, log p and log(1 - p): affine in 1, p and g where it can be, so that many statistics cost one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.counts import FORMULAS, Stat, Voxels, void
from monai_segloss.kernels.chunk_cpu import numbers, over_voxels, softmax_gradient
from monai_segloss.kernels.complement_cpu import Complement
from monai_segloss.kernels.powers import error_slope, focal, focal_slope, nats, nats_slope, raised


class Channels(Voxels):
    """A chunk of voxels: logits z and target g (T, C, m), weights w (T, 1, m) or None.

    ``p`` is the probability from an earlier call, if any.  Where the weight is 0, logits and target become 0.  Sums are
    (R, C): of one sample, or with ``several`` of each slab.
    """

    def __init__(
        self,
        z: Tensor,
        g: Tensor,
        w: Tensor | None,
        activation: str,
        p: Tensor | None = None,
        several: bool = False,
    ) -> None:
        self.several = several
        dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
        z = z.to(dtype)
        if g.ndim == 2:  # labels
            g = torch.eq(g.to(dtype)[:, None], numbers(z.shape[1], dtype), out=torch.empty(z.shape, dtype=dtype))
        if w is not None:
            nothing = void(w)[:, None]
            z, g = z.masked_fill(nothing, 0), g.masked_fill(nothing, 0)
        super().__init__(z, g.to(dtype), activation)
        self.w = None if w is None else w.to(dtype)[:, None]
        self._p = p

    def spread(self, x: Tensor) -> Tensor:
        """Weighted values as (T, C, m)."""
        return x if self.w is None else x * self.w

    def pick(self, factor: Tensor) -> Tensor:
        """Factors (R, C, 1) as they multiply values."""
        return factor

    @cached_property
    def q(self) -> Tensor:
        """1 - p."""
        return self.z.neg().sigmoid_() if self.activation == "sigmoid" else 1 - self.p

    @cached_property
    def lp(self) -> Tensor:
        """log p."""
        if self.activation == "softmax":
            return torch.log_softmax(self.z, 1)
        return self.z.clamp_max(0).sub_(self.rest)

    @cached_property
    def lq(self) -> Tensor:
        """log(1 - p)."""
        return self.complement.log_q if self.activation == "softmax" else (-self.z).clamp_max_(0).sub_(self.rest)

    @cached_property
    def rest(self) -> Tensor:
        """log(1 + exp(-|z|)), which the logarithms of both sides share."""
        return F.softplus(self.z.abs().neg_())

    @cached_property
    def complement(self) -> Complement:
        """What log(1 - p) of a softmax is made of."""
        return Complement(self.z, self.p)

    @cached_property
    def d(self) -> Tensor:
        """p - g."""
        return self.p - self.g


class TrueClass(Channels):
    """The channel of the true class alone, (T, 1, m), for sigmoid and labels: a third of the work with three classes."""

    def __init__(self, z: Tensor, y: Tensor, w: Tensor | None, activation: str, several: bool = False) -> None:
        super().__init__(z, y, w, activation, None, several)
        self.one_hot = self.g
        self.z, self.g = (self.z * self.g).sum(1, keepdim=True), self.g.new_ones(())

    def spread(self, x: Tensor) -> Tensor:
        return self.one_hot * super().spread(x)

    def pick(self, factor: Tensor) -> Tensor:
        return (self.one_hot * factor).sum(1, keepdim=True)


POSITIVE = ("g", "g_sq", "tp", "fn", "tp_l1", "fn_l1", "se_g", "ae_tp", "ce", "log1p", "focal", "ce_power")
"""Statistics of the voxels of a class."""
Curve = Callable[[Channels, float], Tensor]
VALUES: dict[str, Curve] = {
    "ce": lambda v, a: (v.lp * v.g).neg_(),
    "ce_neg": lambda v, a: (v.g - 1).mul_(v.lq),
    "ae": lambda v, a: raised(v.d.abs(), a),
    "focal": lambda v, a: focal(v.q, v.lp, a).mul_(v.g).neg_(),
    "focal_neg": lambda v, a: focal(v.p, v.lq, a).mul_(v.g - 1),
    "ce_power": lambda v, a: raised(nats(v.lp, a), a).mul_(v.g),
    "ce_neg_power": lambda v, a: raised(nats(v.lq, a), a).mul_(1 - v.g),
}
"""Formulas with powers or of fewer operations, as the plain ones."""


@dataclass(frozen=True)
class _Slope:
    """Derivative of a statistic in each variable: factors of 1, g and p, and a function beyond these."""

    affine: tuple[tuple[str, str, float], ...] = ()
    curve: tuple[str, Curve] | None = None


def _affine(variable: str, **factors: float) -> _Slope:
    return _Slope(tuple((variable, "1" if name == "one" else name, x) for name, x in factors.items()))


SLOPES = {
    "g": _Slope(),
    "g_sq": _Slope(),
    "tp": _affine("p", g=1),
    "fp": _affine("p", one=1, g=-1),
    "fn": _affine("p", g=-1),
    "tn": _affine("p", one=-1, g=1),
    "se": _affine("p", p=2, g=-2),
    "p_sq": _affine("p", p=2),
    "pq": _affine("p", one=1, p=-2),
    "ce": _affine("lp", g=-1),
    "ce_neg": _affine("lq", one=-1, g=1),
    "nlp": _affine("lp", one=-1),
    "tp_l1": _Slope(curve=("p", lambda v, a: v.d.sign().sub_(1).mul_(-0.5))),
    "fp_l1": _Slope(curve=("p", lambda v, a: torch.ge(v.d, 0, out=torch.empty_like(v.d)))),
    "fn_l1": _Slope(curve=("p", lambda v, a: torch.le(v.d, 0, out=torch.empty_like(v.d)).neg_())),
    "se_g": _Slope(curve=("p", lambda v, a: (v.d * v.g).mul_(2))),
    "se_neg": _Slope(curve=("p", lambda v, a: (1 - v.g).mul_(v.d).mul_(2))),
    "ae": _Slope(curve=("p", lambda v, a: error_slope(v.d.abs(), a).mul_(v.d.sign()).mul_(a))),
    "ae_tp": _Slope(curve=("p", lambda v, a: v.d.sign().mul_(v.p).add_(v.d.abs()).mul_(v.g))),
    "ae_err": _Slope(
        curve=("p", lambda v, a: (v.p * (1 - v.g)).addcmul_(v.q, v.g).mul_(v.d.sign()).addcmul_(v.d.abs(), 1 - 2 * v.g))
    ),
    "log1p": _Slope(curve=("p", lambda v, a: v.g / (1 + v.p))),
    "focal": _Slope(curve=("lp", lambda v, a: focal_slope(v.q, v.p * v.lp, a).mul_(v.g).neg_())),
    "focal_neg": _Slope(curve=("lq", lambda v, a: focal_slope(v.p, v.q * v.lq, a).mul_(v.g - 1))),
    "ce_power": _Slope(curve=("lp", lambda v, a: nats_slope(v.lp, a).mul_(v.g))),
    "ce_neg_power": _Slope(curve=("lq", lambda v, a: nats_slope(v.lq, a).mul_(1 - v.g))),
}


def channel_sums(v: Channels, which: tuple[Stat, ...]) -> list[Tensor]:
    """The statistics of a chunk, (R, C) each."""
    values = (VALUES.get(name, FORMULAS[name])(v, power) for name, power in which)
    return [over_voxels(v.spread(x), v.several) for x in values]


@dataclass(frozen=True)
class Pulls:
    """What the gradient of the sums of R samples says about each variable, the same for all chunks: factors (R, C, 1)."""

    affine: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    curves: dict[str, list[tuple[Curve, float, Tensor]]] = field(default_factory=dict)


def pulls_of(which: tuple[Stat, ...], grad: Tensor) -> Pulls:
    """From the gradient (R, C, K) of the sums of samples."""
    pulls = Pulls()
    for (name, power), weight in zip(which, grad[:, :, None].unbind(3), strict=True):
        for variable, basis, factor in SLOPES[name].affine:
            found = pulls.affine.setdefault(variable, {})
            found[basis] = found.get(basis, 0) + factor * weight
        if (curve := SLOPES[name].curve) is not None:
            pulls.curves.setdefault(curve[0], []).append((curve[1], power, weight))
    return pulls


def _slope(v: Channels, pulls: Pulls, variable: str) -> Tensor | None:
    """d loss / d variable (T, C, m), new or one number per class."""
    affine = pulls.affine.get(variable, {})
    slope = v.pick(affine["1"]) if "1" in affine else None
    for basis, x in (("g", v.g), ("p", v.p)):
        if basis in affine:
            factor = v.pick(affine[basis])
            slope = x * factor if slope is None else torch.addcmul(slope, x, factor)
    for curve, power, weight in pulls.curves.get(variable, []):
        found, factor = curve(v, power), v.pick(weight)
        slope = found.mul_(factor) if slope is None else torch.addcmul(slope, found, factor)
    return slope


def channel_gradient(out: Tensor, v: Channels, pulls: Pulls) -> None:
    """The gradient of the logits; ``out`` may be ``v.p``."""
    by_p, by_lp, by_lq = (_slope(v, pulls, variable) for variable in ("p", "lp", "lq"))
    slope = None if by_p is None else by_p * v.p
    if by_lp is not None:
        slope = by_lp if slope is None else slope.add_(by_lp)
    if v.activation == "sigmoid":
        slope = None if slope is None else slope * v.q
        if by_lq is not None:
            slope = (v.p * by_lq).neg_() if slope is None else slope.addcmul_(v.p, by_lq, value=-1)
        slope = torch.zeros_like(v.z) if slope is None else slope
        out.copy_(v.spread(slope))
        return
    slope = v.z.new_zeros(()) if slope is None else slope
    slope = slope if slope.shape == v.z.shape else slope.expand_as(v.z).clone()
    extra = None if by_lq is None else v.complement.gradient(by_lq.neg().expand_as(v.p))
    if v.w is not None:
        slope *= v.w
        extra = None if extra is None else extra.mul_(v.w)
    softmax_gradient(out, v.p, slope, extra)
