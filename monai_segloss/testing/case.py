"""One input of the tests: logits, a target, and how a loss must read them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Case:
    """One batch: `input` (B, C, *S) logits, `target` labels (B, 1, *S) or channels (B, C, *S)."""

    name: str
    input: Tensor
    target: Tensor
    activation: str = "softmax"
    labels: bool = True
    ignore_index: int | None = None
    mask: Tensor | None = None
    spacing: tuple[float, ...] | None = None
    tags: frozenset[str] = frozenset()

    @property
    def classes(self) -> int:
        return self.input.shape[1]

    @property
    def reading(self) -> dict[str, object]:
        """The constructor arguments that make a loss read this case."""
        found: dict[str, object] = {self.activation: True, "to_onehot_y": self.labels}
        if self.ignore_index is not None:
            found["ignore_index"] = self.ignore_index
        return found

    @property
    def call(self) -> dict[str, object]:
        """The keyword arguments of the call."""
        given = {"mask": self.mask, "spacing": self.spacing}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def valid(self) -> Tensor:
        """(B, 1, *S) bool: the voxels that count."""
        valid = torch.ones_like(self.input[:, :1], dtype=torch.bool)
        if self.mask is not None:
            valid &= self.mask.reshape(valid.shape)
        if self.ignore_index is not None:
            valid &= self.target[:, :1] != self.ignore_index
        return valid

    def copy(self) -> Case:
        """The case with tensors of its own."""
        mask = None if self.mask is None else self.mask.clone()
        return replace(self, input=self.input.clone(), target=self.target.clone(), mask=mask)

    def with_input(self, input: Tensor) -> Case:
        return replace(self, input=input)

    def onehot(self) -> Tensor:
        """The target as float64 channels, ignored labels zero."""
        if not self.labels:
            return self.target.double()
        return (self.target == torch.arange(self.classes).view(1, -1, *[1] * (self.input.ndim - 2))).double()
