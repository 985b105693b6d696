"""Weights of the terms of a sum that are learned, or follow the values of the terms."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from monai_segloss.core.arguments import checked, constant, plain, shown
from monai_segloss.core.check import non_negative, one_of
from monai_segloss.core.errors import nearest
from monai_segloss.core.seeding import derive
from monai_segloss.schedules.base import whole

BalanceConfig = str | Mapping[str, Any]
"""A method by name, or ``{"method": name, setting: value, ...}``."""

BALANCES: dict[str, type[Balance]] = {}
"""All methods by name."""

T = TypeVar("T", bound="type[Balance]")


def named(name: str) -> Callable[[T], T]:
    """Class decorator that enters a method under its name."""

    def enter(cls: T) -> T:
        BALANCES[name] = cls
        return cls

    return enter


class Balance(nn.Module, ABC):
    """Factors of the terms of a sum, alongside their weights.

    Args:
        terms: names of the terms.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        super().__init__()
        self.terms = tuple(terms)

    @abstractmethod
    def factor(self, term: str) -> Tensor:
        """The factor of a term."""

    def added(self, term: str) -> Tensor | None:
        """What the term adds to the loss alongside its value."""
        return None

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0."""

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Take the mean of each term over the epoch that ended."""

    def update(self) -> None:
        """End a training step."""


@named("uncertainty_weighting")
class UncertaintyWeighting(Balance):
    r"""Learned weights: each term by the logarithm s of its uncertainty.

    | kind | value | e^s at the least value |
    | --- | --- | --- |
    | classification | e^{-s} L + s/2 | 2 L |
    | regression | e^{-s} L / 2 + s/2 | L |
    | laplace (absolute differences) | e^{-s} L + s | L |
    | liebel_koerner | e^{-s} L / 2 + log(1 + e^s), never negative | (L + \sqrt{L^2 + 8 L}) / 4 |

    s begins at 0 and stays in [-10, 10].  But for the last kind the sum goes to minus infinity as its terms go to 0.  Terms
    must not be negative.

    Args:
        kind: of all terms, or by name.  None: of each as its loss is.
        kinds: of the terms whose loss says so; the others are classification.

    Reference:
        Kendall, Gal & Cipolla, CVPR 2018, arXiv:1705.07115; Liebel & Koerner, 2018, arXiv:1805.06334.
    """

    KINDS: ClassVar = ("classification", "regression", "laplace", "liebel_koerner")
    LARGEST: ClassVar = 10.0

    def __init__(
        self, terms: Sequence[str], kinds: Mapping[str, str], *, kind: str | Mapping[str, str] | None = None
    ) -> None:
        super().__init__(terms)
        given = dict.fromkeys(terms, kind) if isinstance(kind, str) else {} if kind is None else kind
        if not isinstance(given, Mapping):
            raise ValueError(f"kind must be a word, or one by the name of each term, got {shown(kind)}.")
        for name, word in given.items():
            if name not in self.terms:
                raise ValueError(f"kind: no term is called {name!r}{nearest(str(name), terms) or '.'}")
            one_of(self.KINDS, kind=word)
        self.kinds = {name: given.get(name, kinds.get(name, "classification")) for name in terms}
        with torch.inference_mode(False):
            self.log_scales = nn.Parameter(torch.zeros(len(self.terms)))

    def factor(self, term: str) -> Tensor:
        half = 0.5 if self.kinds[term] in ("regression", "liebel_koerner") else 1.0
        return half * torch.exp(-self._scale(term))

    def added(self, term: str) -> Tensor:
        s = self._scale(term)
        if self.kinds[term] == "liebel_koerner":
            return nn.functional.softplus(s)
        return s if self.kinds[term] == "laplace" else s / 2

    def _scale(self, term: str) -> Tensor:
        return self.log_scales[self.terms.index(term)].clamp(-self.LARGEST, self.LARGEST)


class Following(Balance):
    """Factors from the means of the two epochs before, 1 until they are known; a term without a weight in them has 1."""

    def __init__(self, terms: Sequence[str]) -> None:
        super().__init__(terms)
        self.means: list[dict[str, float]] = []
        self._factors = {name: constant(1.0) for name in terms}

    @abstractmethod
    def shares(self, before: Sequence[float], last: Sequence[float]) -> Tensor:
        """Factors of the terms, whose sum is their number, from their means in the epoch before the last and in the last."""

    def factor(self, term: str) -> Tensor:
        return self._factors[term]

    def end_epoch(self, means: Mapping[str, float]) -> None:
        self.means = [*self.means[-1:], {name: float(means[name]) for name in self.terms if name in means}]

    def set_epoch(self, epoch: int) -> None:
        if epoch >= 2 > len(self.means):
            raise ValueError(
                f"balance follows the mean values of the two epochs before, which are not known in epoch {epoch}: call "
                "end_epoch(means) after each epoch, and restore the state of the loss on resume."
            )
        found: dict[str, float] = {}
        if epoch >= 2:
            known = [n for n in self.terms if all(math.isfinite(each.get(n, math.nan)) for each in self.means)]
            if known:
                before, last = ([each[n] for n in known] for each in self.means)
                found = dict(zip(known, self.shares(before, last).tolist(), strict=True))
        for name, factor in self._factors.items():
            factor.fill_(found.get(name, 1.0))

    def get_extra_state(self) -> dict[str, Any]:
        """The means of the two epochs that ended last."""
        return {"means": [dict(each) for each in self.means]}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self.means = [dict(each) for each in state["means"]]


@named("dynamic_weight_averaging")
class DynamicWeightAveraging(Following):
    """K softmax(r / T), r the mean of the last epoch over that of the one before: what falls slowly gets more weight.

    A term whose mean in the epoch before the last was not above 0 has r = 1.

    Args:
        temperature: T, above 0; large ones make the factors alike.

    Reference:
        Liu, Johns & Davison, End-to-end multi-task learning with attention, CVPR 2019, arXiv:1803.10704.
    """

    def __init__(self, terms: Sequence[str], *, temperature: float = 2.0) -> None:
        super().__init__(terms)
        (self.temperature,) = non_negative(temperature=temperature)
        if not self.temperature:
            raise ValueError("temperature must be above 0.")

    def shares(self, before: Sequence[float], last: Sequence[float]) -> Tensor:
        rates = [b / a if a > 0 else 1.0 for a, b in zip(before, last, strict=True)]
        return len(rates) * torch.softmax(constant(rates) / self.temperature, 0)


@named("softadapt")
class SoftAdapt(Following):
    """K softmax(beta * slope), slope the change of the mean from epoch to epoch: what rises gets more weight.

    The published weights times the number K of terms, so that terms that fall alike keep theirs.

    Args:
        beta: at least 0.
        normalize: divide the slopes by the sum of their absolute values; published code divides by their sum, which may be
            near 0 or negative.
        loss_weighted: multiply the shares by the means, then scale them again.

    Reference:
        Heydari, Thompson & Mehmood, SoftAdapt, 2019, arXiv:1912.12355.
    """

    def __init__(
        self, terms: Sequence[str], *, beta: float = 0.1, normalize: bool = False, loss_weighted: bool = False
    ) -> None:
        super().__init__(terms)
        (self.beta,) = non_negative(beta=beta)
        self.normalize, self.loss_weighted = normalize, loss_weighted

    def shares(self, before: Sequence[float], last: Sequence[float]) -> Tensor:
        slopes = constant(last) - constant(before)
        if self.normalize:
            slopes = slopes / slopes.abs().sum().clamp_min(1e-12)
        found = torch.softmax(self.beta * slopes, 0)
        if self.loss_weighted:
            weighted = found * constant(last).clamp_min(0)
            found = weighted / weighted.sum() if weighted.sum() > 0 else found
        return len(found) * found


@named("random_weights")
class RandomWeights(Balance):
    """K softmax of normal random numbers, drawn anew in each training step: the baseline for the other methods.

    The numbers follow from ``seed`` and the number of steps, so that they are the same in all processes and on resume.

    Args:
        seed: whole number of at least 0.

    Reference:
        Lin, Ye, Zhang & Tsang, Reasonable effectiveness of random weighting, TMLR 2022, arXiv:2111.10603.
    """

    def __init__(self, terms: Sequence[str], *, seed: int = 0) -> None:
        super().__init__(terms)
        whole(0, seed=seed)
        self.seed, self.steps = int(seed), 0
        self._factors = {name: constant(1.0) for name in terms}
        self._draw()

    def factor(self, term: str) -> Tensor:
        return self._factors[term]

    def update(self) -> None:
        self.steps += 1
        self._draw()

    def get_extra_state(self) -> dict[str, Any]:
        """The number of steps."""
        return {"steps": self.steps}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self.steps = int(state["steps"])
        self._draw()

    def _draw(self) -> None:
        (seed,) = derive(self.seed, self.steps)
        normal = torch.randn(len(self.terms), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for name, share in zip(self.terms, torch.softmax(normal, 0), strict=True):
            self._factors[name].copy_(len(self.terms) * share)


def balance(value: Any, terms: Sequence[str], kinds: Mapping[str, str] | None = None) -> Balance | None:
    """A method from its name or its mapping form, for the terms of a sum; None is none.

    Args:
        value: see `BalanceConfig`.
        terms: names of the terms.
        kinds: for `UncertaintyWeighting`, of terms whose loss says what it is.

    Raises:
        ValueError: an unknown method, or settings that do not fit.
    """
    value = plain(value)
    if value is None:
        return None
    settings = dict(value) if isinstance(value, Mapping) else {"method": value}
    name = settings.pop("method", None)
    if not isinstance(name, str) or name not in BALANCES:
        hint = nearest(name, BALANCES) if isinstance(name, str) else ""
        raise ValueError(f"balance: no method is called {shown(name)}{hint or '.'} There are {', '.join(BALANCES)}.")
    cls = BALANCES[name]
    parameters = inspect.signature(cls).parameters
    known = [each for each, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    for each in settings:
        if each not in known:
            raise ValueError(
                f"balance: {name} has no setting {each!r}{nearest(str(each), known) or '.'} It has {', '.join(known)}."
            )
    given = {"kinds": kinds or {}} if "kinds" in parameters else {}
    try:
        settings = {each: checked(each, x, str(parameters[each].annotation)) for each, x in settings.items()}
        return cls(terms, **given, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"balance: {error}") from None
