"""Statistics of a chunk of voxels with labels and softmax, by hand: sums, and the gradient of the logits.

Per voxel only the true class needs more than the row sums.  Two ways to address it: a float one-hot of the chunk while the
classes are few, gathers and scatters above that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_segloss.core.counts import Stat, void

FEW_CLASSES = 8
"""Up to this many classes a one-hot of the chunk is cheaper than gathering."""


class Chunk(ABC):
    """A chunk of voxels of one sample after softmax: logits z and p (C, n), labels y and weights w (n)."""

    def __init__(self, z: Tensor, y: Tensor, w: Tensor | None) -> None:
        self.z, self.y, self.w = z, y, w
        self._top = z.amax(0)
        p = (z - self._top).exp_()
        self._norm = p.sum(0)
        self.p = p.div_(self._norm)
        self._lp_y: Tensor | None = None
        self._p_y: Tensor | None = None

    @staticmethod
    def cut(logits: Tensor, target: Tensor, weight: Tensor | None, b: int, part: slice) -> Chunk:
        """Voxels ``part`` of sample ``b``; where the weight is 0, logits and label become 0."""
        z, y = logits[b, :, part], target[b, part]
        z = z if z.dtype == torch.float64 else z.float()
        w = None if weight is None else weight[b, part]
        if w is not None:
            z, y, w = z.masked_fill(void(w), 0), y.masked_fill(void(w), 0), w.to(z.dtype)
        return _FewClasses(z, y, w) if len(z) <= FEW_CLASSES else _ManyClasses(z, y.long(), w)

    @property
    def lse(self) -> Tensor:
        """log sum exp of the logits."""
        return self._norm.log() + self._top

    @property
    def lp_y(self) -> Tensor:
        """log p of the true class."""
        if self._lp_y is None:
            self._lp_y = self.of_label(self.z) - self.lse
        return self._lp_y

    @property
    def p_y(self) -> Tensor:
        """p of the true class."""
        if self._p_y is None:
            self._p_y = self.of_label(self.p) if self._lp_y is None else self._lp_y.exp()
        return self._p_y

    @property
    def q_y(self) -> Tensor:
        """1 - p of the true class, exact near 1."""
        return self.lp_y.expm1().neg_()

    def sum_by_label(self, value: Tensor | None) -> Tensor:
        """Sum of ``value`` (n,), or of ones, over the voxels of each label, (C,)."""
        if self.w is not None:
            value = self.w if value is None else value * self.w
        return self._by_label(value)

    def row_sum(self, rows: Tensor) -> Tensor:
        """Sum over the voxels, (C,)."""
        return rows.sum(1) if self.w is None else rows @ self.w

    @abstractmethod
    def of_label(self, rows: Tensor) -> Tensor:
        """The entry of the true class, (n,)."""

    @abstractmethod
    def at_label(self, value: Tensor) -> Tensor:
        """``value`` (C,) of the true class of each voxel, (n,)."""

    @abstractmethod
    def put(self, rows: Tensor, value: Tensor | None) -> Tensor:
        """``rows`` with ``value`` (n,), or 0, in place of the entry of the true class; may write into ``rows``."""

    @abstractmethod
    def _by_label(self, value: Tensor | None) -> Tensor: ...


class _ManyClasses(Chunk):
    """Gathers and scatters: a cost per voxel that does not grow with the classes."""

    def of_label(self, rows: Tensor) -> Tensor:
        return rows.gather(0, self.y[None])[0]

    def at_label(self, value: Tensor) -> Tensor:
        return value.take(self.y)

    def put(self, rows: Tensor, value: Tensor | None) -> Tensor:
        return rows.scatter_(0, self.y[None], 0 if value is None else value[None])

    def _by_label(self, value: Tensor | None) -> Tensor:
        return torch.bincount(self.y, weights=value, minlength=len(self.p))


class _FewClasses(Chunk):
    """A float one-hot of the chunk: vectorized arithmetic, cheaper than indexing while the classes are few."""

    def __init__(self, z: Tensor, y: Tensor, w: Tensor | None) -> None:
        super().__init__(z, y, w)
        classes = torch.arange(len(z), dtype=z.dtype)[:, None]
        self.one_hot = torch.eq(y.to(z.dtype), classes, out=torch.empty(z.shape, dtype=z.dtype))

    def of_label(self, rows: Tensor) -> Tensor:
        return (rows * self.one_hot).sum(0)

    def at_label(self, value: Tensor) -> Tensor:
        return value @ self.one_hot

    def put(self, rows: Tensor, value: Tensor | None) -> Tensor:
        rows.addcmul_(rows, self.one_hot, value=-1)
        return rows if value is None else rows.addcmul_(self.one_hot, value)

    def _by_label(self, value: Tensor | None) -> Tensor:
        return self.one_hot.sum(1) if value is None else self.one_hot @ value


@dataclass(frozen=True)
class _Sparse:
    """A statistic split into what the true class gives (``hit``) and what every class gives (``row``).

    ``slope`` maps a basis function of the true class to the factor of its derivative with respect to log p.
    """

    hit: Callable[[Chunk, float], Tensor | None] | None = None
    slope: tuple[tuple[str, float], ...] = ()
    row: str | None = None


def _focal_slope(c: Chunk, power: float) -> Tensor:
    if power == 0:
        return torch.full_like(c.p_y, -1)
    q = c.q_y.clamp_min(1e-7) if power < 1 else c.q_y
    bend = power * q ** (power - 1) * c.p_y * c.lp_y
    return (torch.where(c.q_y > 1e-7, bend, 0) if power < 1 else bend) - q**power


SPARSE = {
    "g": _Sparse(hit=lambda c, a: None),
    "tp": _Sparse(hit=lambda c, a: c.p_y, slope=(("p", 1.0),)),
    "fn": _Sparse(hit=lambda c, a: c.q_y, slope=(("p", -1.0),)),
    "fp": _Sparse(row="p"),
    "tp_l1": _Sparse(hit=lambda c, a: c.p_y, slope=(("p", 1.0),)),
    "fn_l1": _Sparse(hit=lambda c, a: c.q_y, slope=(("p", -1.0),)),
    "fp_l1": _Sparse(row="p"),
    "se": _Sparse(hit=lambda c, a: c.q_y**2, slope=(("qp", -2.0),), row="p2"),
    "ce": _Sparse(hit=lambda c, a: -c.lp_y, slope=(("1", -1.0),)),
    "nlp": _Sparse(row="nlp"),
    "focal": _Sparse(
        hit=lambda c, a: -c.lp_y * (c.q_y.clamp_min(1e-7) if 0 < a < 1 else c.q_y) ** a, slope=(("focal", 1.0),)
    ),
}
BASIS: dict[str, Callable[[Chunk, float], Tensor]] = {
    "p": lambda c, a: c.p_y,
    "qp": lambda c, a: c.q_y * c.p_y,
    "focal": _focal_slope,
}


def label_sums(c: Chunk, which: tuple[Stat, ...]) -> list[Tensor]:
    if any(name in ("ce", "focal") for name, _ in which):
        _ = c.lp_y  # first, because the other quantities of the true class follow from it
    hits = [SPARSE[name].hit for name, _ in which]
    sums: list[Tensor | None]
    sums = [None if hit is None else c.sum_by_label(hit(c, power)) for hit, (_, power) in zip(hits, which, strict=True)]
    misses: Tensor | None = None
    for k, (name, _) in enumerate(which):
        row = SPARSE[name].row
        if row is None:
            continue
        if row == "nlp":
            part = c.row_sum(c.lse - c.z)
        else:
            misses = c.put(c.p, None) if misses is None else misses
            part = c.row_sum(misses if row == "p" else misses * misses)
        before = sums[k]
        sums[k] = part if before is None else before + part
    return [part for part in sums if part is not None]


@dataclass
class Slopes:
    """What the gradient of a sample's sums says about d loss / d log p, the same for all chunks."""

    hits: dict[tuple[str, float], Tensor]
    rows: dict[str, Tensor]

    @staticmethod
    def of(which: tuple[Stat, ...], grad: Tensor) -> Slopes:
        hits: dict[tuple[str, float], Tensor] = {}
        rows: dict[str, Tensor] = {}
        for (name, power), weight in zip(which, grad.unbind(1), strict=True):
            if name not in SPARSE:
                continue
            for basis, factor in SPARSE[name].slope:
                hits[basis, power] = hits.get((basis, power), 0) + factor * weight
            row = SPARSE[name].row
            if row is not None:
                rows[row] = rows.get(row, 0) + weight[:, None]
        return Slopes(hits, rows)


def label_gradient(out: Tensor, c: Chunk, slopes: Slopes) -> None:
    """With A = d loss / d log p, the gradient of the logits is A - p sum(A)."""
    hit: Tensor | None = None
    for (basis, power), weight in slopes.hits.items():
        term = c.at_label(weight)
        term = term if basis == "1" else term.mul_(BASIS[basis](c, power))
        hit = term if hit is None else hit.add_(term)
    slope = c.p * slopes.rows["p"] if "p" in slopes.rows else torch.zeros_like(c.p)
    if "p2" in slopes.rows:
        slope.addcmul_(c.p.square(), slopes.rows["p2"], value=2)
    slope = c.put(slope, hit)
    if "nlp" in slopes.rows:
        slope -= slopes.rows["nlp"]
    if c.w is not None:
        slope *= c.w
    total = slope.sum(0)
    if out.dtype == slope.dtype:
        torch.addcmul(slope, c.p, total, value=-1, out=out)
    else:
        out.copy_(slope.addcmul_(c.p, total, value=-1))
