"""Weights of terms over the epochs: what the weighted sum and the compounds with schedules share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.arguments import constant
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.errors import nearest
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.schedules import Rest, Schedule, TermWeight, schedule
from monai_segloss.schedules.base import whole


class Scheduled:
    """In front of `SegLoss`: a loss of terms whose weights may change with the epoch.

    A trainer tells the epoch, from 0, by `set_epoch` before it and the mean of each entry of ``last`` by `end_epoch` after
    it.  Only ratios of terms look at the means, which are therefore part of the state of the module.
    """

    def follow(self, schedules: Mapping[str, Schedule]) -> None:
        """Take the schedules of the terms, at epoch 0; once, in the constructor."""
        for name, each in schedules.items():
            for other in each.terms:
                if other not in schedules:
                    raise ValueError(
                        f"{name}: a ratio needs two terms, none is called {other!r}{_known(other, schedules)}"
                    )
        self.schedules, self.epoch = dict(schedules), 0
        self.means: dict[str, float] = {}
        self._factors = {name: constant(0.0) for name in schedules}
        self._set_weights()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that the weights follow.

        Raises:
            ValueError: no whole number; a ratio needs the means of the epoch before, and neither `end_epoch` nor a restored
                state had them.
        """
        whole(0, epoch=epoch)
        self.epoch = int(epoch)
        self._set_weights()

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Keep the mean of each term over the training steps of the epoch that ended, by the names in ``last``.

        Raises:
            ValueError: a name that is not one of the terms.
        """
        for name in means:
            if name.split("/")[0] not in self.schedules:
                raise ValueError(f"means: no term is called {name!r}{_known(name, self.schedules)}")
        self.means = {name: float(value) for name, value in means.items()}

    def weighted_terms(self, batch: SegBatch, parts: Mapping[str, Callable[[], Unreduced]]) -> dict[str, Term]:
        """The terms that have a weight; the others are not computed."""
        return {name: Term(self.factor(name, batch), parts[name]()) for name in self.evaluated}

    @property
    def evaluated(self) -> tuple[str, ...]:
        """Terms whose weight is not 0 in the present epoch; an error where there is none."""
        if not self._active:
            raise ValueError(
                f"all weights of {list(self.schedules)} are 0 in epoch {self.epoch}; nothing is left to minimize."
            )
        return self._active

    @property
    def term_weights(self) -> dict[str, float]:
        """Weight of each term in the present epoch."""
        return {name: float(factor) for name, factor in self._factors.items()}

    def factor(self, name: str, batch: SegBatch) -> Tensor:
        """The weight as a tensor, so that a compiled loss need not be compiled again in each epoch."""
        double = batch.logits.dtype == torch.float64
        return self._factors[name] if double else self._factors[name].float()

    def get_extra_state(self) -> dict[str, dict[str, float]]:
        """The means of the epoch that ended last; the epoch itself is told by the trainer."""
        return {"means": dict(self.means)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self.means = dict(state["means"])

    def _set_weights(self) -> None:
        weights = {name: each(self.epoch, self.means) for name, each in self.schedules.items()}
        for name, weight in weights.items():
            self._factors[name].fill_(weight)
        self._active = tuple(name for name, weight in weights.items() if weight)


def term_schedule(name: str, value: TermWeight) -> Schedule:
    """The schedule of an argument or a term, whose name errors bear."""
    try:
        return schedule(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def share(name: str, value: TermWeight | None, other: str, of: Schedule) -> Schedule:
    """The schedule of an argument of which None means what the other weight leaves of 1."""
    if value is not None:
        return term_schedule(name, value)
    if of.largest > 1:
        raise ValueError(f"{other} reaches {of.largest}, which leaves nothing of 1; give {name} too.")
    return Rest(of)


def _known(name: str, schedules: Mapping[str, Schedule]) -> str:
    return nearest(name, schedules) or f"; there are {', '.join(schedules)}."
