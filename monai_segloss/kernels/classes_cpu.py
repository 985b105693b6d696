"""Two ways to address the true class of the voxels of a chunk.

A float one-hot of the chunk while the classes are few, gathers and scatters above that.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from monai_segloss.kernels.chunk_cpu import Chunk, Part, Slopes, numbers, over_voxels
from monai_segloss.kernels.complement_cpu import FEW_CLASSES


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
    w, p, keep = (None if x is None else part.of(x) for x in (weight, p, keep))
    return of(part.of(logits), part.of(target), w, p, keep, part.several)


class _ManyClasses(Chunk):
    """Gathers and scatters: a cost per voxel that does not grow with the classes."""

    _lse: tuple[Tensor, Tensor] | None = None
    _index: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """Labels as gathers take them, (T, 1, m)."""
        if self._index is None:
            self._index = self.y.long()[:, None]
        return self._index

    @cached_property
    def entry(self) -> Tensor:
        """Labels as indices of flat (R, C), (T, 1, m)."""
        slabs, classes = self.p.shape[:2]
        return self.index + classes * torch.arange(slabs)[:, None, None] if self.several else self.index

    @property
    def lse(self) -> tuple[Tensor, Tensor]:
        """log sum exp of the logits (T, 1, m) in two parts, whose sum loses digits: the largest, and what is left."""
        if self._lse is None:
            top = self.z.amax(1, keepdim=True)
            self._lse = top, torch.sub(self.z, top, out=self.empty()).exp_().sum(1, keepdim=True).log_()
        return self._lse

    @property
    def lp(self) -> Tensor:
        top, rest = self.lse
        return torch.sub(self.z, top, out=self.empty()).sub_(rest)

    @property
    def log_p_y(self) -> Tensor:
        if self._log_p_y is None and self._lse is not None:
            top, rest = self._lse
            self._log_p_y = (self.of_label(self.z) - top[:, 0]).sub_(rest[:, 0])
        return super().log_p_y

    @property
    def q_y(self) -> Tensor:
        if self._q_y is None:
            self._q_y = self.log_p_y.expm1().neg_() if self._lse is not None else self.misses(self.p).sum(1)
        return self._q_y

    @property
    def errors(self) -> Tensor:
        return self.empty().copy_(self.p).scatter_(1, self.index, self.q_y[:, None])

    def misses(self, rows: Tensor) -> Tensor:
        return self.empty().copy_(rows).scatter_(1, self.index, 0)

    def of_label(self, rows: Tensor) -> Tensor:
        return rows.gather(1, self.index)[:, 0]

    def slope(self, slopes: Slopes) -> Tensor:
        hit = self._hits(slopes.log_hits, slopes)
        if slopes.hits:
            hit += self._hits(slopes.hits, slopes).mul_(self.p_y)
        rows: Tensor | None = None
        if "p" in slopes.rows:
            rows = torch.mul(self.p, slopes.rows["p"], out=self.empty())
        for (name, power), weight in slopes.misses.items():
            part = torch.mul(slopes.curve[name](self.p, power), self.p, out=self.empty())
            rows = part.mul_(weight) if rows is None else rows.addcmul_(part, weight)
        rows = self.empty().zero_() if rows is None else rows
        return rows.scatter_(1, self.index, hit[:, None])

    def _hits(self, factors: dict[tuple[str, float], Tensor], slopes: Slopes) -> Tensor:
        found = torch.zeros_like(self.index, dtype=self.dtype)[:, 0]
        for (name, power), weight in factors.items():
            term = weight.take(self.entry)[:, 0]
            found += term if name == "1" else term.mul_(slopes.basis[name](self, power))
        return found

    def _activated(self, keep: Tensor | None) -> Tensor:
        top = self.z.amax(1, keepdim=True)
        p = torch.sub(self.z, top, out=self.empty()).exp_()
        norm = p.sum(1, keepdim=True)
        p = torch.div(p, norm, out=p if keep is None else keep)
        self._lse = top, norm.log_()
        return p

    def _count(self) -> tuple[Tensor, Tensor, Tensor]:
        tp, fn = self.sum_by_label(self.p_y), self.sum_by_label(self.q_y)
        others = self.row_sum(self.p.scatter_(1, self.index, 0))
        self.p.scatter_(1, self.index, self.p_y[:, None])  # as it was, without a copy of all classes
        return tp, others, fn

    def _by_label(self, value: Tensor | None) -> Tensor:
        weights = None if value is None else value.flatten()
        samples, classes = len(self.p) if self.several else 1, self.p.shape[1]
        sums = torch.bincount(self.entry.flatten(), weights=weights, minlength=samples * classes)
        return sums.view(samples, classes)


class _FewClasses(Chunk):
    """A float one-hot of the chunk: vectorized arithmetic, cheaper than indexing while the classes are few."""

    _hit: Tensor | None = None
    _missed: Tensor | None = None
    _lp: Tensor | None = None

    @cached_property
    def one_hot(self) -> Tensor:
        """The true class in numbers (T, C, m)."""
        return torch.eq(self.y.to(self.dtype)[:, None], numbers(self.raw.shape[1], self.dtype), out=self.empty())

    @property
    def hit(self) -> Tensor:
        """p of the true class, 0 elsewhere, (T, C, m)."""
        if self._hit is None:
            self._hit = torch.mul(self.one_hot, self.p, out=self.empty())
        return self._hit

    @property
    def missed(self) -> Tensor:
        if self._missed is None:
            self._missed = self.misses(self.p) if self._hit is None else torch.sub(self.p, self._hit, out=self.empty())
        return self._missed

    @property
    def lp(self) -> Tensor:
        if self._lp is None:
            self._lp = torch.log_softmax(self.z, 1)
        return self._lp

    @property
    def log_p_y(self) -> Tensor:
        return super().log_p_y if self._lp is None else self.of_label(self._lp)

    @property
    def p_y(self) -> Tensor:
        if self._p_y is None:
            self._p_y = self.hit.sum(1)
        return self._p_y

    @property
    def q_y(self) -> Tensor:
        if self._q_y is None:
            self._q_y = self.missed.sum(1)
        return self._q_y

    @property
    def errors(self) -> Tensor:
        return torch.addcmul(self.missed, self.one_hot, self.q_y[:, None], out=self.empty())

    def misses(self, rows: Tensor) -> Tensor:
        return torch.addcmul(rows, rows, self.one_hot, value=-1, out=self.empty())

    def of_label(self, rows: Tensor) -> Tensor:
        return (self.one_hot * rows).sum(1)

    def slope(self, slopes: Slopes) -> Tensor:
        rows = self.empty()
        one, others = slopes.hits.get(("1", 0.0)), slopes.rows.get("p")
        if one is None and others is None:
            rows.zero_()
        else:  # one at the true class and others elsewhere
            rest = torch.zeros_like(one[..., None]) if others is None else others  # type: ignore[index]
            torch.addcmul(rest, self.one_hot, (0 if one is None else one[..., None]) - rest, out=rows)
        self._add(rows, slopes.hits, slopes)
        for (name, power), weight in slopes.misses.items():
            rows.addcmul_(slopes.curve[name](self.missed, power), weight)
        rows *= self.p
        if ("1", 0.0) in slopes.log_hits:
            rows.addcmul_(self.one_hot, slopes.log_hits["1", 0.0][..., None])
        self._add(rows, slopes.log_hits, slopes)
        return rows

    def _add(self, rows: Tensor, factors: dict[tuple[str, float], Tensor], slopes: Slopes) -> None:
        for (name, power), weight in factors.items():
            if name == "1":
                continue
            found = slopes.basis[name](self, power)
            if self.several:
                rows.addcmul_(self.one_hot * weight[..., None], found[:, None])
                continue
            for c, factor in enumerate(weight[0].tolist()):
                if factor:
                    rows[:, c].addcmul_(self.one_hot[:, c], found, value=factor)

    def _activated(self, keep: Tensor | None) -> Tensor:
        self._z = self.z.contiguous()  # once, should log p of all classes be wanted too
        p = torch.softmax(self._z, 1)
        if keep is not None:
            keep.copy_(p)
        return p

    def _count(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.row_sum(self.hit), self.row_sum(self.missed), self.sum_by_label(self.q_y)

    def _by_label(self, value: Tensor | None) -> Tensor:
        return over_voxels(self.one_hot if value is None else self.one_hot * value[:, None], self.several)
