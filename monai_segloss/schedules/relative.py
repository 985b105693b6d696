"""Weights that follow another weight, or the values of the terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from monai_segloss.schedules.base import NOTHING, Means, Schedule, at_most_one, named, schedule, weights, whole

LEAST_MEAN = 1e-5


@named("rest")
@dataclass(frozen=True)
class Rest(Schedule):
    """What another weight leaves of 1: 1 - of.

    Args:
        of: a number, a schedule or its mapping form, which never exceeds 1.

    Example:
        >>> from monai_segloss.schedules import Linear, Rest
        >>> [Rest(Linear(0.0, 1.0, epochs=4))(e) for e in (0, 1, 4)]
        [1.0, 0.75, 0.0]
    """

    of: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", schedule(self.of))
        at_most_one("of", self.of.largest)

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        return 1 - self.of(epoch, means)

    @property
    def largest(self) -> float:
        return 1.0

    @property
    def terms(self) -> tuple[str, ...]:
        return self.of.terms


@named("pause")
@dataclass(frozen=True)
class Pause(Schedule):
    """Another schedule that begins ``epochs`` epochs later; until then it stays at its first value.

    Args:
        epochs: length of the pause, at least 0.
        then: a schedule, its name or its mapping form.

    Example:
        >>> from monai_segloss.schedules import Linear, Pause
        >>> [Pause(5, Linear(1.0, 0.0, epochs=4))(e) for e in (0, 5, 6, 9)]
        [1.0, 1.0, 0.75, 0.0]
    """

    epochs: int
    then: Any

    def __post_init__(self) -> None:
        whole(0, epochs=self.epochs)
        object.__setattr__(self, "then", schedule(self.then))

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        return self.then(max(0, epoch - self.epochs), means)

    @property
    def largest(self) -> float:
        return self.then.largest

    @property
    def terms(self) -> tuple[str, ...]:
        return self.then.terms


@named("ratio")
@dataclass(frozen=True)
class Ratio(Schedule):
    """The weight of ``term`` that gave it, in the epoch before, ``ratio`` times the mean value of the term ``to``.

    ratio * mean(to) / max(mean(term), 1e-5), set anew in each epoch; ``start`` in the first one, and where a mean is not
    finite, not positive or missing since the term had no weight.  Karimi & Salcudean weigh Dice like this alongside their
    Hausdorff losses.  It compares values, not gradients, and so needs terms whose least value is 0.  Where the term may be
    much larger than the other at first, ``start`` should be small: see `DiceHausdorffDTLoss`.

    Args:
        term, to: names of two terms of the sum.
        ratio: at least 0.
        start: weight in the first epoch, at least 0.

    Raises (when called):
        ValueError: a later epoch without the means of the one before: see ``end_epoch`` of `WeightedSum`.

    Example:
        >>> from monai_segloss.schedules import Ratio
        >>> weight = Ratio("dice", to="hausdorff_dt")
        >>> weight(0), weight(1, {"dice": 0.25, "hausdorff_dt": 3.0})
        (1.0, 12.0)

    Reference:
        D. Karimi & S. E. Salcudean, IEEE TMI 39(2), 2020, arXiv:1904.10030 (from memory, the paper was not at hand).
    """

    term: str
    to: str
    ratio: float = 1.0
    start: float = 1.0

    def __post_init__(self) -> None:
        weights(ratio=self.ratio, start=self.start)

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        if epoch < 1:
            return self.start
        if not means:
            raise ValueError(
                f"the weight of {self.term!r} follows the mean values of the epoch before, which are not known in epoch "
                f"{epoch}: call end_epoch(means) after each epoch, and restore the state of the loss on resume."
            )
        own, other = means.get(self.term, math.nan), means.get(self.to, math.nan)
        if not (0 < own < math.inf and 0 < other < math.inf):
            return self.start
        return self.ratio * other / max(own, LEAST_MEAN)

    @property
    def largest(self) -> float:
        return math.inf

    @property
    def terms(self) -> tuple[str, ...]:
        return (self.term, self.to)
