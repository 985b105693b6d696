"""A chunk of voxels with labels and softmax: what its statistics are made of.

Per voxel only the true class needs more than the row sums.  Two ways to address it: a float one-hot of the chunk and matrix
products while the classes are few, gathers and scatters above that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_segloss.core.counts import void

FEW_CLASSES = 8
"""Up to this many classes a one-hot of the chunk is cheaper than gathering."""

TINY = 1e-30
"""Below this a sum of probabilities may have lost its digits."""
Basis = Callable[[str, float], Tensor]
"""A function of p of the true class by name and power, (n,)."""


@dataclass(frozen=True)
class Slopes:
    """What the gradient of a sample's sums says about d loss / d log p, the same for all chunks.

    ``hits``: basis function and power -> factor per class; ``rows``: part of all classes -> factor (C, 1); ``area``: both
    for p, as a matrix (C, true class).
    """

    hits: dict[tuple[str, float], Tensor]
    rows: dict[str, Tensor]
    area: Tensor | None


class Complement:
    """1 - p of every class, exact near p = 1.

    Only one class of a voxel, the ``big`` one, can have p above 1/2; its 1 - p is the sum of the others.
    """

    def __init__(self, z: Tensor, p: Tensor) -> None:
        self.big = (p > 0.5).to(p.dtype)
        self.small = torch.addcmul(p, p, self.big, value=-1)
        """p, 0 for the big class (C, n)."""
        self.q_big = self.small.sum(0)
        self.log_q_big = self.q_big.log()
        self.among_others: Tensor = self.small / self.q_big
        """p of the classes beside the big one, relative to their sum (C, n)."""
        lost = self.q_big < TINY
        if bool(lost.any()):  # so sure that the others underflow
            rest = z.masked_fill(self.big > 0, -torch.inf)
            total = rest.logsumexp(0)
            self.log_q_big = torch.where(lost, total - z.logsumexp(0), self.log_q_big)
            self.among_others = torch.where(lost, (rest - total).exp(), self.among_others)

    @property
    def log_q(self) -> Tensor:
        """log(1 - p) of all classes (C, n)."""
        return torch.addcmul(torch.log1p(-self.small), self.big, self.log_q_big)

    def gradient(self, p: Tensor, weight: Tensor) -> Tensor:
        """Gradient in the logits of -sum of weight log(1 - p), weights and result (C, n)."""
        pulled = weight * self.small / (1 - self.small)
        found = weight * p - p * (pulled.sum(0) - pulled)
        big = (weight * self.big).sum(0) * (1 - self.q_big)
        return found.addcmul_(self.among_others, big, value=-1)


class Chunk(ABC):
    """A chunk of voxels of one sample after softmax: logits z and p (C, n), labels y and weights w (n).

    ``p``, if given, is the softmax of ``z`` from an earlier call; ``keep`` receives it.
    """

    def __init__(
        self, z: Tensor, y: Tensor, w: Tensor | None, p: Tensor | None = None, keep: Tensor | None = None
    ) -> None:
        self.z, self.y, self.w = z, y, w
        self._lse: Tensor | None = None
        if p is None:
            top = z.amax(0)
            p = (z - top).exp_()
            norm = p.sum(0)
            p = p.div_(norm) if keep is None else torch.div(p, norm, out=keep)
            self._lse = norm.log_().add_(top)
        self.p = p
        self._lp_y: Tensor | None = None
        self._p_y: Tensor | None = None
        self._q_y: Tensor | None = None
        self._area: tuple[Tensor, Tensor, Tensor] | None = None
        self._complement: Complement | None = None

    @staticmethod
    def cut(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        b: int,
        part: slice,
        p: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Chunk:
        """Voxels ``part`` of sample ``b``; where the weight is 0, logits and label become 0."""
        z, y = logits[b, :, part], target[b, part]
        z = z if z.dtype == torch.float64 else z.float()
        w = None if weight is None else weight[b, part]
        if w is not None:
            z, y, w = z.masked_fill(void(w), 0), y.masked_fill(void(w), 0), w.to(z.dtype)
        if len(z) <= FEW_CLASSES:
            return _FewClasses(z, y, w, p, keep)
        return _ManyClasses(z, y.long(), w, p, keep)

    @property
    def lse(self) -> Tensor:
        """log sum exp of the logits."""
        if self._lse is None:
            self._lse = self.z.logsumexp(0)
        return self._lse

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
            self._p_y = self.of_label(self.p)
        return self._p_y

    @property
    @abstractmethod
    def q_y(self) -> Tensor:
        """1 - p of the true class, exact near 1."""

    @property
    def area(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of p g, p (1 - g) and (1 - p) g, each (C,)."""
        if self._area is None:
            self._area = self._count()
        return self._area

    @property
    def complement(self) -> Complement:
        """What log(1 - p) is made of."""
        if self._complement is None:
            self._complement = Complement(self.z, self.p)
        return self._complement

    def sum_by_label(self, value: Tensor | None) -> Tensor:
        """Sum of ``value`` (n,), or of ones, over the voxels of each label, (C,)."""
        if self.w is not None:
            value = self.w if value is None else value * self.w
        return self._by_label(value)

    def row_sum(self, rows: Tensor) -> Tensor:
        """Sum over the voxels, (C,)."""
        return rows.sum(1) if self.w is None else rows @ self.w

    @abstractmethod
    def misses(self, rows: Tensor) -> Tensor:
        """A copy of ``rows`` with 0 in place of the entry of the true class."""

    @abstractmethod
    def of_label(self, rows: Tensor) -> Tensor:
        """The entry of the true class, (n,)."""

    @abstractmethod
    def slope(self, slopes: Slopes, basis: Basis) -> Tensor:
        """d loss / d log p (C, n) as if the logs were independent, without the parts that every class has alike."""

    @abstractmethod
    def _count(self) -> tuple[Tensor, Tensor, Tensor]: ...

    @abstractmethod
    def _by_label(self, value: Tensor | None) -> Tensor: ...


class _ManyClasses(Chunk):
    """Gathers and scatters: a cost per voxel that does not grow with the classes."""

    @property
    def q_y(self) -> Tensor:
        if self._q_y is None:
            self._q_y = self.lp_y.expm1().neg_() if self._lse is not None else self.misses(self.p).sum(0)
        return self._q_y

    def misses(self, rows: Tensor) -> Tensor:
        return rows.scatter(0, self.y[None], 0)

    def of_label(self, rows: Tensor) -> Tensor:
        return rows.gather(0, self.y[None])[0]

    def slope(self, slopes: Slopes, basis: Basis) -> Tensor:
        hit = torch.zeros_like(self.p[0])
        for (name, power), weight in slopes.hits.items():
            term = weight.take(self.y)
            hit += term if name == "1" else term.mul_(basis(name, power))
        rows = self.p * slopes.rows["p"] if "p" in slopes.rows else torch.zeros_like(self.p)
        if "p2" in slopes.rows:
            rows.addcmul_(self.p.square(), slopes.rows["p2"], value=2)
        return rows.scatter_(0, self.y[None], hit[None])

    def _count(self) -> tuple[Tensor, Tensor, Tensor]:
        tp, fn = self.sum_by_label(self.p_y), self.sum_by_label(self.q_y)
        others = self.row_sum(self.p.scatter_(0, self.y[None], 0))
        self.p.scatter_(0, self.y[None], self.p_y[None])  # as it was, without a copy of all classes
        return tp, others, fn

    def _by_label(self, value: Tensor | None) -> Tensor:
        return torch.bincount(self.y, weights=value, minlength=len(self.p))


class _FewClasses(Chunk):
    """A float one-hot of the chunk: vectorized arithmetic, cheaper than indexing while the classes are few.

    With the confusion matrix M = p one_hot^T, tp is the diagonal, fp what else stands in its row, fn in its column.
    """

    def __init__(
        self, z: Tensor, y: Tensor, w: Tensor | None, p: Tensor | None = None, keep: Tensor | None = None
    ) -> None:
        super().__init__(z, y, w, p, keep)
        classes = torch.arange(len(z), dtype=z.dtype)[:, None]
        self.one_hot = torch.eq(y.to(z.dtype), classes, out=torch.empty(z.shape, dtype=z.dtype))
        inside = self.one_hot.sum() == len(y)
        self.outside = None if inside else 1 - self.one_hot.sum(0)
        """1 where the label is none of the classes (n): there every class has false positives."""

    @property
    def q_y(self) -> Tensor:
        if self._q_y is None:
            self._q_y = self.misses(self.p).sum(0)
        return self._q_y

    def misses(self, rows: Tensor) -> Tensor:
        return torch.addcmul(rows, rows, self.one_hot, value=-1)

    def of_label(self, rows: Tensor) -> Tensor:
        return (rows * self.one_hot).sum(0)

    def slope(self, slopes: Slopes, basis: Basis) -> Tensor:
        rows = None if slopes.area is None else (slopes.area @ self.one_hot).mul_(self.p)
        if rows is not None and self.outside is not None and "p" in slopes.rows:
            rows.addcmul_(self.p * self.outside, slopes.rows["p"])
        for (name, power), weight in slopes.hits.items():
            if name == "p":  # part of the area
                continue
            hit = weight[:, None] if name == "1" else (weight @ self.one_hot).mul_(basis(name, power))
            rows = self.one_hot * hit if rows is None else rows.addcmul_(self.one_hot, hit)
        if rows is None:
            rows = torch.zeros_like(self.p)
        if "p2" in slopes.rows:
            rows.addcmul_(self.misses(self.p).square_(), slopes.rows["p2"], value=2)
        return rows

    def _count(self) -> tuple[Tensor, Tensor, Tensor]:
        confusion = self.p @ (self.one_hot if self.w is None else self.one_hot * self.w).T
        tp = confusion.diagonal().clone()
        confusion.fill_diagonal_(0)
        fp, fn = confusion.sum(1), confusion.sum(0)
        if self.outside is not None:
            fp = fp + self.row_sum(self.p * self.outside)
        return tp, fp, fn

    def _by_label(self, value: Tensor | None) -> Tensor:
        return self.one_hot.sum(1) if value is None else self.one_hot @ value
