"""log(1 - p) of every class of a chunk of voxels, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-30
"""Below this a sum of probabilities may have lost its digits."""


class Complement:
    """1 - p of every class, exact near p = 1.

    Only one class of a voxel, the ``big`` one, can have p above 1/2; its 1 - p is the sum of the others.
    """

    def __init__(self, z: Tensor, p: Tensor) -> None:
        self.big = (p > 0.5).to(p.dtype)
        self.small = torch.addcmul(p, p, self.big, value=-1)
        """p, 0 for the big class (T, C, m)."""
        self.q_big = self.small.sum(1, keepdim=True)
        self.log_q_big = self.q_big.log()
        self.among_others: Tensor = self.small / self.q_big
        """p of the classes beside the big one, relative to their sum (T, C, m)."""
        lost = self.q_big < TINY
        if bool(lost.any()):  # so sure that the others underflow
            rest = z.masked_fill(self.big > 0, -torch.inf)
            total = rest.logsumexp(1, keepdim=True)
            self.log_q_big = torch.where(lost, total - z.logsumexp(1, keepdim=True), self.log_q_big)
            self.among_others = torch.where(lost, (rest - total).exp(), self.among_others)

    @property
    def log_q(self) -> Tensor:
        """log(1 - p) of all classes (T, C, m)."""
        return torch.addcmul(torch.log1p(-self.small), self.big, self.log_q_big)

    def gradient(self, p: Tensor, weight: Tensor) -> Tensor:
        """Gradient in the logits of -sum of weight log(1 - p), weights and result (T, C, m)."""
        pulled = weight * self.small / (1 - self.small)
        found = weight * p - p * (pulled.sum(1, keepdim=True) - pulled)
        big = (weight * self.big).sum(1, keepdim=True) * (1 - self.q_big)
        return found.addcmul_(self.among_others, big, value=-1)
