"""log(1 - p) of every class of a chunk of voxels, and its gradient, exact near p = 1."""

from __future__ import annotations

import torch
from torch import Tensor

FEW_CLASSES = 5
"""Up to this many classes 1 - p is the sum of the other classes, class by class."""
TINY = 1e-30
"""Below this a sum of probabilities may have lost its digits."""


class Complement:
    """log(1 - p) of the softmax ``p`` (T, C, m) of ``z``."""

    def __init__(self, z: Tensor, p: Tensor) -> None:
        self.p = p
        self.q = others(p) if p.shape[1] <= FEW_CLASSES else None
        """1 - p, where no class of any voxel is so sure that the others underflow."""
        if self.q is not None and not bool(self.q.amin() >= TINY):
            self.q = None
        self.sure = _Sure(z, p) if self.q is None else None

    @property
    def log_q(self) -> Tensor:
        """log(1 - p) of all classes (T, C, m)."""
        if self.q is None:
            assert self.sure is not None
            return self.sure.log_q
        return self.q.log().add_((1 - self.q).sub_(self.p))  # with the digits that the sum has lost where p is small

    def gradient(self, weight: Tensor) -> Tensor:
        """Gradient in the logits of -sum of weight log(1 - p), weights and result (T, C, m)."""
        if self.q is None:
            assert self.sure is not None
            return self.sure.gradient(self.p, weight)
        return torch.sub(weight, others((weight * self.p).div_(self.q))).mul_(self.p)


def others(x: Tensor) -> Tensor:
    """Sum of the other classes, for each class, without a difference (T, C, m)."""
    found = torch.empty(x.shape, dtype=x.dtype)
    classes = range(x.shape[1])
    for c in classes:
        first, *rest = [x[:, k] for k in classes if k != c] or [torch.zeros_like(x[:, 0])]
        into = found[:, c]
        torch.add(first, rest[0], out=into) if rest else into.copy_(first)
        for each in rest[1:]:
            into += each
    return found


class _Sure:
    """1 - p of many classes, or of probabilities that underflow.

    Only one class of a voxel, the ``big`` one, can have p above 1/2; its 1 - p is the sum of the others.
    """

    def __init__(self, z: Tensor, p: Tensor) -> None:
        self.big = torch.gt(p, 0.5, out=torch.empty(p.shape, dtype=p.dtype))
        self.small = torch.addcmul(p, p, self.big, value=-1)
        """p, 0 for the big class (T, C, m)."""
        self.q_big = self.small.sum(1, keepdim=True)
        self.lost = self.q_big < TINY
        """Where the voxel is so sure that the others underflow."""
        self.rest: tuple[Tensor, Tensor, Tensor] | None = None
        if bool(self.lost.any()):
            rest = z.masked_fill(self.big > 0, -torch.inf)
            self.rest = rest, rest.logsumexp(1, keepdim=True), z.logsumexp(1, keepdim=True)

    @property
    def log_q(self) -> Tensor:
        """log(1 - p) of all classes (T, C, m)."""
        log_q_big = self.q_big.log()
        if self.rest is not None:
            _, others, total = self.rest
            log_q_big = torch.where(self.lost, others - total, log_q_big)
        return (-self.small).log1p_().addcmul_(self.big, log_q_big)

    def gradient(self, p: Tensor, weight: Tensor) -> Tensor:
        """As that of `Complement`."""
        pulled = (weight * self.small).div_(1 - self.small)
        found = pulled.sub_(pulled.sum(1, keepdim=True)).add_(weight).mul_(p)
        big = (weight * self.big).sum(1, keepdim=True) * (1 - self.q_big)
        if self.rest is None:
            return found.addcmul_(self.small, big / self.q_big, value=-1)
        rest, others, _ = self.rest
        among_others = torch.where(self.lost, (rest - others).exp(), self.small / self.q_big)
        return found.addcmul_(among_others, big, value=-1)
