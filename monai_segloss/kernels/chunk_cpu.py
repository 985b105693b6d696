"""A chunk of voxels with labels and softmax: what its statistics are made of.

Arrays are (T, C, m) and (T, m), contiguous: T slabs of m voxels, about one per thread.  Torch splits an operation evenly
over its threads, so each of them works on the same voxels throughout, whether it scales an array or reduces over the
classes.  With (C, n) a thread reads what another one has just written: half as fast where two cores share no cache.  Small
samples go together, one slab each, so that a batch of slices costs no call per slice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from monai_segloss.core.counts import void
from monai_segloss.kernels.complement_cpu import TINY, Complement


@dataclass(frozen=True)
class Part:
    """Voxels ``start`` to ``stop`` of sample ``b`` in equal ``slabs``, or of several whole ``samples`` from there on."""

    b: int
    start: int
    stop: int
    slabs: int
    samples: int = 1

    @property
    def several(self) -> bool:
        """Whether the slabs are samples."""
        return self.samples > 1

    def of(self, x: Tensor) -> Tensor:
        """That part of (B, n) as (T, m), of (B, C, n) as (T, C, m); a view."""
        if self.several:
            return x.narrow(0, self.b, self.samples)
        x = x[self.b].narrow(-1, self.start, self.stop - self.start)
        if self.slabs == 1:
            return x[None]
        x = x.view(*x.shape[:-1], self.slabs, -1)
        return x if x.ndim == 2 else x.transpose(0, 1)


@dataclass(frozen=True)
class Slopes:
    """What the gradient of the sums of a sample says, the same for all its chunks, or of R samples.

    ``hits`` and ``log_hits``: function of the true class, in ``basis`` or "1", and power -> factor (R, C), parts of
    d loss / dp and of d loss / d log p; ``misses``: function of p of the other classes, in ``curve``, and power ->
    factor (R, C, 1), parts of d loss / dp; ``rows``: what else the other classes have -> factor (R, C, 1).
    """

    hits: dict[tuple[str, float], Tensor]
    log_hits: dict[tuple[str, float], Tensor]
    misses: dict[tuple[str, float], Tensor]
    rows: dict[str, Tensor]
    basis: Mapping[str, Callable[[Chunk, float], Tensor]]
    curve: Mapping[str, Callable[[Tensor, float], Tensor]]


class Chunk(ABC):
    """A chunk of voxels after softmax: logits z and p (T, C, m), labels y and weights w (T, m).

    ``p``, if given, is the softmax of ``z`` from an earlier call; ``keep`` receives it.  Where the weight is 0, logits and
    label become 0.  Sums are (R, C): of one sample, or with ``several`` of each slab.
    """

    def __init__(
        self,
        z: Tensor,
        y: Tensor,
        w: Tensor | None,
        p: Tensor | None = None,
        keep: Tensor | None = None,
        several: bool = False,
    ) -> None:
        self.raw, self.weight, self.several = z, w, several
        self.dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
        self.y = y if w is None else y.masked_fill(void(w), 0)
        self.w = None if w is None else w.to(self.dtype)
        self._z: Tensor | None = None
        self._log_p_y: Tensor | None = None
        self._p_y: Tensor | None = None
        self._q_y: Tensor | None = None
        self._area: tuple[Tensor, Tensor, Tensor] | None = None
        self._complement: Complement | None = None
        self.p = self._activated(keep) if p is None else p

    @property
    def z(self) -> Tensor:
        """Logits in float32 (or float64), 0 where nothing counts."""
        if self._z is None:
            plain = self.raw.dtype == self.dtype and self.weight is None
            self._z = self.raw if plain else self.empty().copy_(self.raw)
            if self.weight is not None:
                self._z.masked_fill_(void(self.weight)[:, None], 0)
        return self._z

    def empty(self) -> Tensor:
        """Memory for (T, C, m), slab by slab."""
        return torch.empty(self.raw.shape, dtype=self.dtype)

    @property
    @abstractmethod
    def lp(self) -> Tensor:
        """log p of all classes (T, C, m)."""

    @property
    def log_p_y(self) -> Tensor:
        """log p of the true class (T, m), as exact as the float p."""
        if self._log_p_y is None:
            log = self.p_y.log()
            if not bool(self.p_y.amin() >= TINY):  # p has lost its digits
                log = torch.where(self.p_y < TINY, self.of_label(torch.log_softmax(self.z, 1)), log)
            self._log_p_y = log
        return self._log_p_y

    @property
    def p_y(self) -> Tensor:
        """p of the true class (T, m)."""
        if self._p_y is None:
            self._p_y = self.of_label(self.p)
        return self._p_y

    @property
    def p_log_p_y(self) -> Tensor:
        """p log p of the true class (T, m), from 1 - p and so exact near p = 1; a new tensor."""
        q = self.q_y.clamp_max(1 - torch.finfo(self.dtype).eps)  # a sum, it may pass 1 by a rounding error
        p = 1 - q
        return q.neg_().log1p_().mul_(p)

    @property
    @abstractmethod
    def q_y(self) -> Tensor:
        """1 - p of the true class (T, m), exact near 1."""

    @property
    def area(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of p g, p (1 - g) and (1 - p) g, each (R, C)."""
        if self._area is None:
            self._area = self._count()
        return self._area

    @property
    def complement(self) -> Complement:
        """What log(1 - p) is made of."""
        if self._complement is None:
            self._complement = Complement(self.z, self.p)
        return self._complement

    def log_likelihood(self) -> Tensor:
        """Sum of log p of the true class over the voxels of each label, (R, C)."""
        return self.sum_by_label(self.log_p_y)

    def sum_by_label(self, value: Tensor | None) -> Tensor:
        """Sum of ``value`` (T, m), or of ones, over the voxels of each label, (R, C)."""
        if self.w is not None:
            value = self.w if value is None else value * self.w
        return self._by_label(value)

    def row_sum(self, rows: Tensor) -> Tensor:
        """Sum over the voxels, (R, C)."""
        return over_voxels(rows if self.w is None else rows * self.w[:, None], self.several)

    @property
    def missed(self) -> Tensor:
        """p with 0 in place of the entry of the true class, (T, C, m); not to be written to."""
        return self.misses(self.p)

    @property
    @abstractmethod
    def errors(self) -> Tensor:
        """|p - g|, (T, C, m)."""

    @abstractmethod
    def misses(self, rows: Tensor) -> Tensor:
        """A copy of ``rows`` with 0 in place of the entry of the true class."""

    @abstractmethod
    def of_label(self, rows: Tensor) -> Tensor:
        """The entry of the true class, (T, m)."""

    @abstractmethod
    def slope(self, slopes: Slopes) -> Tensor:
        """d loss / d log p (T, C, m) as if the logs were independent, without the parts that every class has alike."""

    @abstractmethod
    def _activated(self, keep: Tensor | None) -> Tensor:
        """The softmax of ``z``, also in ``keep``."""

    @abstractmethod
    def _count(self) -> tuple[Tensor, Tensor, Tensor]: ...

    @abstractmethod
    def _by_label(self, value: Tensor | None) -> Tensor: ...


def over_voxels(rows: Tensor, several: bool) -> Tensor:
    """Sum of (T, C, m) over the voxels, each slab by one thread: (T, C) of ``several`` samples, else (1, C)."""
    sums = rows.sum(2)
    return sums if several or sums.shape[0] == 1 else sums.sum(0, keepdim=True)


def softmax_gradient(out: Tensor, p: Tensor, slope: Tensor, extra: Tensor | None) -> None:
    """A - p sum(A) into ``out``, A = d loss / d log p in ``slope``, plus ``extra``; ``out`` may be ``p``."""
    total = slope.sum(1, keepdim=True)
    if out.dtype == slope.dtype:
        found = torch.addcmul(slope, p, total, value=-1, out=out)
    else:
        found = slope.addcmul_(p, total, value=-1)
    if extra is not None:
        found += extra
    if found is not out:
        out.copy_(found)


@cache
def numbers(classes: int, dtype: torch.dtype) -> Tensor:
    """0, 1, ... (C, 1), to compare labels with."""
    return torch.arange(classes, dtype=dtype)[:, None]
