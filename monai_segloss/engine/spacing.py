"""A loss with a voxel spacing that is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.utils import CommonKeys
from torch import Tensor, nn

from monai_segloss.core.module import SegLoss
from monai_segloss.engine.around import Around


class KnownSpacing(Around):
    """A loss that measures distances in one voxel spacing, whatever affine the labels carry.

    For data that is resampled to one spacing, and may lose its affine afterwards: in a `monai.data.PersistentDataset`, which
    keeps none, or in a transform that attaches another one.

    Args:
        loss: called as ``loss(input, target)``; also our `DeepSupervision`, whose coarser outputs then have larger voxels.
        spacing: of the patches that the loss sees, in mm, in array axis order.

    Shape:
        input (B, C, *S), or several in a list; target as for ``loss``.

    Raises:
        ValueError: ``spacing`` holds anything but positive numbers.

    Example:
        >>> from monai_segloss import BoundaryLoss
        >>> logits, label = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> label[..., 1:3, 1:] = 1
        >>> loss = BoundaryLoss(softmax=True, to_onehot_y=True)
        >>> round(float(KnownSpacing(loss, (2.0, 2.0))(logits, label) / loss(logits, label, spacing=(1.0, 1.0))), 4)
        2.0
    """

    def __init__(self, loss: nn.Module | Callable[..., Tensor], spacing: Sequence[float]) -> None:
        super().__init__(loss)
        self.spacing = tuple(float(step) for step in spacing)
        if not self.spacing or not all(0 < step < math.inf for step in self.spacing):
            raise ValueError(f"spacing must be positive numbers, one per axis, got {spacing!r}.")

    @property
    def last(self) -> Mapping[str, Tensor]:
        """The terms of the loss in the last call."""
        return getattr(self.loss, "last", {})

    def forward(self, input: Any, target: Tensor | Mapping[str, Tensor], **more: Any) -> Tensor:
        """The loss at this spacing."""
        if isinstance(self.loss, SegLoss):
            return self.loss(input, target, spacing=self.spacing, **more)
        if isinstance(target, Mapping):
            return self.loss(input, {**target, CommonKeys.LABEL: self._placed(target[CommonKeys.LABEL])}, **more)
        return self.loss(input, self._placed(target), **more)

    def _placed(self, label: Tensor) -> Tensor:
        return MetaTensor(label.as_subclass(Tensor), affine=torch.diag(torch.tensor([*self.spacing, 1.0])).double())
