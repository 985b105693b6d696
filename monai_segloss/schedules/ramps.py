"""Weights that rise or fall with the epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monai_segloss.schedules.base import NOTHING, Means, Schedule, at_most_one, named, weights, whole


@named("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The same weight in every epoch.

    Args:
        value: at least 0.

    Example:
        >>> from monai_segloss.schedules import Constant
        >>> Constant(0.5)(7)
        0.5
    """

    value: float

    def __post_init__(self) -> None:
        weights(value=self.value)

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        return self.value

    @property
    def largest(self) -> float:
        return self.value


@dataclass(frozen=True)
class _Ramp(Schedule):
    start: float
    end: float
    epochs: int
    begin: int = 0

    def __post_init__(self) -> None:
        weights(start=self.start, end=self.end)
        whole(1, epochs=self.epochs)
        whole(0, begin=self.begin)

    def _progress(self, epoch: int) -> float:
        return min(1.0, max(0.0, (epoch - self.begin) / self.epochs))

    @property
    def largest(self) -> float:
        return max(self.start, self.end)


@named("linear")
@dataclass(frozen=True)
class Linear(_Ramp):
    """From ``start`` to ``end`` in equal steps over ``epochs`` epochs, from epoch ``begin`` on; constant outside.

    Example:
        >>> from monai_segloss.schedules import Linear
        >>> [Linear(0.0, 1.0, epochs=4)(e) for e in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        return self.start + (self.end - self.start) * self._progress(epoch)


@named("cosine")
@dataclass(frozen=True)
class Cosine(_Ramp):
    """From ``start`` to ``end`` along half a cosine over ``epochs`` epochs, from epoch ``begin`` on; constant outside.

    Example:
        >>> from monai_segloss.schedules import Cosine
        >>> [round(Cosine(1.0, 0.0, epochs=4)(e), 3) for e in (0, 1, 2, 4)]
        [1.0, 0.854, 0.5, 0.0]
    """

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * self._progress(epoch))) / 2


@named("increase")
@dataclass(frozen=True)
class Increase(Schedule):
    """``start`` and ``step`` more in each epoch, up to ``end``: min(start + step * epoch, end).

    The "increase" of Kervadec et al.: alongside a term of weight 1 the boundary term gets 0.01, 0.02, 0.03 ...  (the figures
    from memory, the paper was not at hand).

    Args:
        start, step: at least 0.
        end: at least ``start``; None is without end.

    Example:
        >>> from monai_segloss.schedules import Increase
        >>> [round(Increase()(e), 2) for e in (0, 1, 199)]
        [0.01, 0.02, 2.0]

    Reference:
        H. Kervadec et al., Medical Image Analysis 67, 2021, arXiv:1812.07032.
    """

    start: float = 0.01
    step: float = 0.01
    end: float | None = None

    def __post_init__(self) -> None:
        weights(start=self.start, step=self.step, **({} if self.end is None else {"end": self.end}))
        if self.end is not None and self.end < self.start:
            raise ValueError(f"end must be at least start, got {self.end!r} and {self.start!r}.")

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        return min(self.start + self.step * epoch, self.largest)

    @property
    def largest(self) -> float:
        return math.inf if self.end is None else self.end


@named("rebalance")
@dataclass(frozen=True)
class Rebalance(Increase):
    """alpha of the pair (1 - alpha) region + alpha boundary, which moves weight from one term to the other.

    alpha = min(start + step * epoch, end).  The other term has the weight `Rest` of it.  The best of the paper's strategies;
    the authors' code stops the region term at 0.1 and lets the other grow on.

    Args:
        start, step: at least 0.
        end: at least ``start`` and at most 1.

    Example:
        >>> from monai_segloss.schedules import Rebalance, Rest
        >>> alpha = Rebalance()
        >>> [(round(Rest(alpha)(e), 2), round(alpha(e), 2)) for e in (0, 1, 98, 500)]
        [(0.99, 0.01), (0.98, 0.02), (0.01, 0.99), (0.01, 0.99)]

    Reference:
        H. Kervadec et al., Medical Image Analysis 67, 2021, arXiv:1812.07032.
    """

    end: float = 0.99

    def __post_init__(self) -> None:
        weights(end=self.end)
        super().__post_init__()
        at_most_one("end", self.end)


@named("geometric")
@dataclass(frozen=True)
class Geometric(Schedule):
    """``start``, and in each epoch ``factor`` times as much, up to ``end``: min(start * factor^epoch, end).

    The steepness of a log-barrier; 5 and 1.1 are the paper's, from memory, the limit is ours.

    Args:
        start: at least 0.
        factor: at least 1.
        end: at least ``start``.

    Example:
        >>> from monai_segloss.schedules import Geometric
        >>> [round(Geometric()(e), 2) for e in (0, 1, 2, 100)]
        [5.0, 5.5, 6.05, 1000.0]

    Reference:
        H. Kervadec et al., EUSIPCO 2022, arXiv:1904.04205.
    """

    start: float = 5.0
    factor: float = 1.1
    end: float = 1000.0

    def __post_init__(self) -> None:
        weights(start=self.start, factor=self.factor, end=self.end)
        if self.factor < 1 or self.end < self.start:
            raise ValueError(
                f"factor must be at least 1 and end at least start, got {self.factor!r}, {self.end!r} and {self.start!r}."
            )

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        # the logarithm, since a power of a late epoch is no float any more
        grown = epoch * math.log(self.factor)
        limit = math.log(self.end / self.start) if self.start else math.inf
        return self.end if grown >= limit else self.start * self.factor**epoch

    @property
    def largest(self) -> float:
        return self.end if self.factor > 1 and self.start else self.start


@named("warm_up")
@dataclass(frozen=True)
class WarmUp(Schedule):
    """``value`` after a warm-up of ``epochs`` epochs, in which it rises as value * exp(-5 (1 - epoch / epochs)^2).

    Before epoch ``begin`` the weight is 0, so that the term is not evaluated; ``epochs=0`` switches it on there.

    Args:
        value: at least 0.
        epochs: length of the rise, at least 0.
        begin: epoch in which it starts.

    Example:
        >>> from monai_segloss.schedules import WarmUp
        >>> [round(WarmUp(1.0, epochs=4, begin=2)(e), 4) for e in (1, 2, 4, 6, 9)]
        [0.0, 0.0067, 0.2865, 1.0, 1.0]
        >>> [WarmUp(1.0, epochs=0, begin=2)(e) for e in (1, 2)]
        [0.0, 1.0]

    Reference:
        S. Laine & T. Aila, ICLR 2017, arXiv:1610.02242.
    """

    value: float
    epochs: int
    begin: int = 0

    def __post_init__(self) -> None:
        weights(value=self.value)
        whole(0, epochs=self.epochs, begin=self.begin)

    def __call__(self, epoch: int, means: Means = NOTHING) -> float:
        since = epoch - self.begin
        if since < 0:
            return 0.0
        return self.value if since >= self.epochs else self.value * math.exp(-5 * (1 - since / self.epochs) ** 2)

    @property
    def largest(self) -> float:
        return self.value
