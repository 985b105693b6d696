"""What a schedule is, and how it is read from plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from monai_segloss.core.arguments import LARGEST, plain, shown
from monai_segloss.core.errors import nearest

Means = Mapping[str, float]
NOTHING: Means = MappingProxyType({})


class Schedule(ABC):
    """A weight as a function of the epoch; its parameters are plain data, see `mapping`."""

    name: ClassVar[str]
    """Name in the mapping form."""

    @abstractmethod
    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        """The weight in an epoch.

        Args:
            epoch: counted from 0.
            means: mean value of each term in the epoch before, by name, which only ratios look at.
        """

    @property
    @abstractmethod
    def largest(self) -> float:
        """No weight is larger."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Terms whose values it follows."""
        return ()

    @property
    def mapping(self) -> dict[str, Any]:
        """The schedule as data: ``{"schedule": name, parameter: value, ...}``, which `schedule` reads."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"schedule": self.name, **{n: x.mapping if isinstance(x, Schedule) else x for n, x in given.items()}}


TermWeight = float | str | Schedule | Mapping[str, Any]
"""A weight: a number, a schedule, its name where it needs no more, or its mapping form."""

SCHEDULES: dict[str, type[Schedule]] = {}
"""All schedules by the name of their mapping form."""

T = TypeVar("T", bound=type[Schedule])


def named(name: str) -> Callable[[T], T]:
    """Class decorator that enters a schedule under its name."""

    def enter(cls: T) -> T:
        cls.name = name
        SCHEDULES[name] = cls
        return cls

    return enter


def schedule(value: TermWeight) -> Schedule:
    """A schedule from a number, a schedule, its name, or its mapping form ``{"schedule": name, parameter: value, ...}``.

    Raises:
        ValueError: an unknown schedule, or parameters that do not fit.

    Example:
        >>> from monai_segloss.schedules import schedule
        >>> schedule({"schedule": "pause", "epochs": 5, "then": "rebalance"})
        Pause(epochs=5, then=Rebalance(start=0.01, step=0.01, end=0.99))
    """
    if isinstance(value, Schedule):
        return value
    value = plain(value)
    if isinstance(value, str):
        value = {"schedule": value}
    settings = dict(value) if isinstance(value, Mapping) else {"schedule": "constant", "value": value}
    name = settings.pop("schedule", None)
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"no schedule is called {name!r}{nearest(str(name), SCHEDULES) or '.'}")
    known = {f.name: f.default for f in fields(SCHEDULES[name])}  # type: ignore[arg-type]
    for each in settings:
        if each not in known:
            raise ValueError(f"schedule {name!r} has no parameter {each!r}{nearest(each, known) or '.'}")
    missing = [each for each, default in known.items() if default is MISSING and each not in settings]
    if missing:
        raise ValueError(f"schedule {name!r} needs {' and '.join(missing)}.")
    return SCHEDULES[name](**settings)


def weights(**given: Any) -> None:
    """Refuse what is no number of at least 0."""
    for name, weight in given.items():
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= LARGEST:
            raise ValueError(
                f"a weight must be a number of at least 0, got {name}={shown(weight)}; at most {LARGEST:g}."
            )


def whole(least: int, **given: Any) -> None:
    """Refuse what is no whole number of at least ``least``."""
    for name, number in given.items():
        if not isinstance(number, Integral) or isinstance(number, bool) or number < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}.")


def at_most_one(name: str, value: float) -> None:
    """Refuse a weight that leaves nothing of 1."""
    if value > 1:
        raise ValueError(f"{name} must be at most 1, since another term gets the rest, but reaches {value!r}.")
