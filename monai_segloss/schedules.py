"""Weights that change with the epoch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_segloss.core.errors import nearest


class Schedule(ABC):
    """A weight as a function of the epoch, counted from 0."""

    @abstractmethod
    def __call__(self, epoch: int) -> float:
        """The weight in an epoch."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same weight in every epoch."""

    value: float

    def __post_init__(self) -> None:
        _check(self.value)

    def __call__(self, epoch: int) -> float:
        return self.value


@dataclass(frozen=True)
class _Ramp(Schedule):
    start: float
    end: float
    epochs: int
    begin: int = 0

    def __post_init__(self) -> None:
        _check(self.start)
        _check(self.end)
        if self.epochs < 1 or self.begin < 0:
            raise ValueError(f"epochs must be at least 1 and begin at least 0, got {self.epochs} and {self.begin}.")

    def _progress(self, epoch: int) -> float:
        return min(1.0, max(0.0, (epoch - self.begin) / self.epochs))


@dataclass(frozen=True)
class Linear(_Ramp):
    """From ``start`` to ``end`` in equal steps over ``epochs`` epochs, from epoch ``begin`` on; constant outside.

    Example:
        >>> from monai_segloss.schedules import Linear
        >>> [Linear(0.0, 1.0, epochs=4)(e) for e in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """

    def __call__(self, epoch: int) -> float:
        return self.start + (self.end - self.start) * self._progress(epoch)


@dataclass(frozen=True)
class Cosine(_Ramp):
    """From ``start`` to ``end`` along half a cosine over ``epochs`` epochs, from epoch ``begin`` on."""

    def __call__(self, epoch: int) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * self._progress(epoch))) / 2


SCHEDULES: dict[str, type[Schedule]] = {"constant": Constant, "linear": Linear, "cosine": Cosine}


def schedule(value: float | Schedule | Mapping[str, Any]) -> Schedule:
    """A schedule from a number, a schedule or its mapping form ``{"schedule": name, parameter: value, ...}``.

    Raises:
        ValueError: an unknown schedule, or parameters that do not fit.
    """
    if isinstance(value, Schedule):
        return value
    if not isinstance(value, Mapping):
        return Constant(float(value))
    settings = dict(value)
    name = settings.pop("schedule", None)
    if name not in SCHEDULES:
        raise ValueError(f"no schedule is called {name!r}{nearest(str(name), SCHEDULES) or '.'}")
    try:
        return SCHEDULES[name](**settings)
    except TypeError as error:
        raise ValueError(f"schedule {name!r}: {error}.") from None


def _check(weight: float) -> None:
    if not 0 <= weight < math.inf:
        raise ValueError(f"a weight must be a number of at least 0, got {weight!r}.")
