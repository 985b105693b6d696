"""Running means of the terms of a loss, which its log shows and ratios of terms follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from monai_segloss.core.sync import is_distributed


class TermMeans:
    """The running mean of each term of a loss; values stay on their device until the mean is asked for.

    Example:
        >>> from monai_segloss.schedules.means import TermMeans
        >>> means = TermMeans()
        >>> for value in (0.5, 1.0):
        ...     means.add({"dice": value})
        >>> means.take(), means.take()
        ({'dice': 0.75}, {})
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, terms: Mapping[str, Tensor | float]) -> None:
        """Take the terms of one step; one that is not there counts as 0."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + torch.as_tensor(value).detach()
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means since the last call, over all processes that train together."""
        means = {name: float(total) / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        if not is_distributed():
            return means
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, means)
        return {name: sum(each.get(name, 0.0) for each in every) / len(every) for name in means}
