"""Two ways to address the true class of the voxels of a chunk.

A float one-hot of the chunk while the classes are few, gathers and scatters above that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.kernels.chunk_cpu import Basis, Chunk, Part, Slopes

FEW_CLASSES = 5
"""Up to this many classes a one-hot of the chunk is cheaper than gathering."""


def cut(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    part: Part,
    p: Tensor | None = None,
    keep: Tensor | None = None,
) -> Chunk:
    """The voxels of ``part``; ``p`` and ``keep`` are of all voxels too."""
    of = _FewClasses if logits.shape[1] <= FEW_CLASSES else _ManyClasses
    return of(part.of(logits), part.of(target), *(None if x is None else part.of(x) for x in (weight, p, keep)))


class _ManyClasses(Chunk):
    """Gathers and scatters: a cost per voxel that does not grow with the classes."""

    _lse: Tensor | None = None
    _index: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """Labels as gathers take them, (T, 1, m)."""
        if self._index is None:
            self._index = self.y.long()[:, None]
        return self._index

    @property
    def lse(self) -> Tensor:
        """log sum exp of the logits (T, 1, m)."""
        if self._lse is None:
            self._lse = self.z.logsumexp(1, keepdim=True)
        return self._lse

    @property
    def lp(self) -> Tensor:
        return torch.sub(self.z, self.lse, out=self.empty())

    @property
    def lp_y(self) -> Tensor:
        if self._lp_y is None:
            self._lp_y = self.of_label(self.z) - self.lse[:, 0]
        return self._lp_y

    @property
    def q_y(self) -> Tensor:
        if self._q_y is None:
            self._q_y = self.lp_y.expm1().neg_() if self._lse is not None else self.misses(self.p).sum(1)
        return self._q_y

    def misses(self, rows: Tensor) -> Tensor:
        return self.empty().copy_(rows).scatter_(1, self.index, 0)

    def of_label(self, rows: Tensor) -> Tensor:
        return rows.gather(1, self.index)[:, 0]

    def slope(self, slopes: Slopes, basis: Basis) -> Tensor:
        hit = torch.zeros_like(self.index, dtype=self.dtype)[:, 0]
        for (name, power), weight in slopes.hits.items():
            term = weight.take(self.index)[:, 0]
            hit += term if name == "1" else term.mul_(basis(name, power))
        rows = torch.mul(self.p, slopes.rows["p"], out=self.empty()) if "p" in slopes.rows else self.empty().zero_()
        if "p2" in slopes.rows:
            rows.addcmul_(self.p.square(), slopes.rows["p2"], value=2)
        return rows.scatter_(1, self.index, hit[:, None])

    def _activated(self, keep: Tensor | None) -> Tensor:
        top = self.z.amax(1, keepdim=True)
        p = torch.sub(self.z, top, out=self.empty()).exp_()
        norm = p.sum(1, keepdim=True)
        p = torch.div(p, norm, out=p if keep is None else keep)
        self._lse = norm.log_().add_(top)
        return p

    def _count(self) -> tuple[Tensor, Tensor, Tensor]:
        tp, fn = self.sum_by_label(self.p_y), self.sum_by_label(self.q_y)
        others = self.row_sum(self.p.scatter_(1, self.index, 0))
        self.p.scatter_(1, self.index, self.p_y[:, None])  # as it was, without a copy of all classes
        return tp, others, fn

    def _by_label(self, value: Tensor | None) -> Tensor:
        weights = None if value is None else value.flatten()
        return torch.bincount(self.index.flatten(), weights=weights, minlength=self.p.shape[1])


class _FewClasses(Chunk):
    """A float one-hot of the chunk: vectorized arithmetic, cheaper than indexing while the classes are few."""

    _lp: Tensor | None = None

    def __init__(
        self, z: Tensor, y: Tensor, w: Tensor | None, p: Tensor | None = None, keep: Tensor | None = None
    ) -> None:
        super().__init__(z, y, w, p, keep)
        classes = torch.arange(z.shape[1], dtype=self.dtype)[:, None]
        self.one_hot = torch.eq(self.y.to(self.dtype)[:, None], classes, out=self.empty())

    @property
    def lp(self) -> Tensor:
        if self._lp is None:
            self._lp = torch.log_softmax(self.z, 1)
        return self._lp

    @property
    def lp_y(self) -> Tensor:
        if self._lp_y is None:
            self._lp_y = self.of_label(self.lp)
        return self._lp_y

    @property
    def q_y(self) -> Tensor:
        if self._q_y is None:
            self._q_y = self.misses(self.p).sum(1)
        return self._q_y

    def log_likelihood(self) -> Tensor:
        return self.row_sum(self.one_hot * self.lp)

    def misses(self, rows: Tensor) -> Tensor:
        return torch.addcmul(rows, rows, self.one_hot, value=-1, out=self.empty())

    def of_label(self, rows: Tensor) -> Tensor:
        return (self.one_hot * rows).sum(1)

    def slope(self, slopes: Slopes, basis: Basis) -> Tensor:
        rows = self.empty()
        hit, others = slopes.hits.get(("p", 0.0)), slopes.rows.get("p")
        if hit is None and others is None:
            rows.zero_()
        else:  # p times hit at the true class and others elsewhere
            rest = torch.zeros_like(hit[:, None]) if others is None else others  # type: ignore[index]
            torch.addcmul(rest, self.one_hot, (0 if hit is None else hit[:, None]) - rest, out=rows).mul_(self.p)
        for (name, power), weight in slopes.hits.items():
            if name == "1":
                rows.addcmul_(self.one_hot, weight[:, None])
            elif name != "p":
                rows.addcmul_(self.one_hot * weight[:, None], basis(name, power)[:, None])
        if "p2" in slopes.rows:
            rows.addcmul_(self.misses(self.p).square_(), slopes.rows["p2"], value=2)
        return rows

    def _activated(self, keep: Tensor | None) -> Tensor:
        self._z = self.z.contiguous()  # for both of its softmaxes
        p = torch.softmax(self._z, 1)
        if keep is not None:
            keep.copy_(p)
        return p

    def _count(self) -> tuple[Tensor, Tensor, Tensor]:
        p = self.p if self.w is None else self.p * self.w[:, None]
        hit = self.one_hot * p
        tp = hit.sum(2).sum(0)
        miss = torch.sub(
            p, hit, out=hit
        )  # what is not the true class's, sum by sum without a difference of large numbers
        return tp, miss.sum(2).sum(0), self._by_label(miss.sum(1))

    def _by_label(self, value: Tensor | None) -> Tensor:
        return (self.one_hot if value is None else self.one_hot * value[:, None]).sum(2).sum(0)
