"""A weighted sum of losses that share one reading of the batch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from monai_segloss.core.arguments import plain
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.errors import nearest
from monai_segloss.core.maps import MapSpec, share_maps
from monai_segloss.core.module import DEFAULTS, OF_EVERY_LOSS, READING, SegLoss
from monai_segloss.core.prior import Prior
from monai_segloss.core.reduce import Term
from monai_segloss.core.registry import LossInfo, find
from monai_segloss.core.taps import NetworkShape
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.compound.balance import balance as balance_of
from monai_segloss.losses.compound.scheduled import Scheduled, term_schedule
from monai_segloss.schedules import Constant, Schedule, TermWeight

RESERVED = ("weight", "loss", "class_weight")
"""Keys of a term that are not arguments of its loss by that name."""


def term_arguments(info: LossInfo, term: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in a term as its loss has them: there ``weight`` is that of the classes.

    Raises:
        TypeError: the loss has no class weights.
    """
    arguments = {name: value for name, value in term.items() if name not in RESERVED}
    if "class_weight" not in term:
        return arguments
    if "weight" not in info.parameters:
        raise TypeError(f"class_weight: the loss {info.key!r} has no class weights.")
    return {**arguments, "weight": term["class_weight"]}


class WeightedSum(Scheduled, SegLoss):
    """Sum of losses by name, each with a weight; one reading, one pass of statistics, each map made once for all terms.

    Args:
        terms: name -> weight, or name -> {"weight": weight, argument: value, ...}.  The name is a registry key; for two
            terms of the same key use any names and give the key as ``"loss"``.  A weight is a number, or a schedule over
            the epochs: its name, its mapping form, {"schedule": "linear", "start": 0, "end": 1, "epochs": 100}, or a
            `monai_segloss.schedules.Schedule`.  ``"class_weight"`` is the argument that a loss by itself calls ``weight``:
            one factor per scored class.  ``"neighbors"`` of a term is its own, so that a loss stands beside its penalty.
        balance: how the terms are weighed alongside their weights, by name or as {"method": name, setting: value, ...}:
            ``"uncertainty_weighting"``, ``"dynamic_weight_averaging"``, ``"softadapt"`` or ``"random_weights"``, see
            `monai_segloss.losses.compound.balance`.  Learned weights are parameters of the sum: give them to the optimizer,
            without weight decay.  What they add alongside the terms is ``last["balance"]``.
        common: arguments of `SegLoss` for all terms; each term gets those it takes.  How input is read and reduced holds
            for all of them, whatever a term by itself would take: without an activation the input holds probabilities.

    `last` holds the detached value of each term after a call; a term of weight 0 is not evaluated.  `set_epoch` drives
    the schedules, `end_epoch` tells ratios and the balance the means of the terms, `update` ends a training step; a term
    that is a sum itself follows along.  A map of the
    call, such as ``weight_map``, reaches every term that knows its name.

    Raises:
        ValueError: no terms, or a weight that is none.
        UnknownLoss, TypeError: a name or an argument that is not known, or a term with a reading of its own.

    Example:
        >>> import torch
        >>> from monai_segloss import WeightedSum
        >>> loss = WeightedSum({"dice": 1, "cross_entropy": {"weight": 0.5}}, softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.8466
    """

    scalar_only = True
    may_be_empty: ClassVar[bool] = False
    """Whether there are values alongside those of the terms."""

    def __init__(self, terms: Mapping[str, TermWeight], *, balance: BalanceConfig | None = None, **common: Any) -> None:
        terms, common = plain(terms), plain(common)
        if not terms and not self.may_be_empty:
            raise ValueError("terms is empty; give at least one loss, for example {'dice': 1}.")
        super().__init__(**{name: value for name, value in common.items() if name in OF_EVERY_LOSS})
        self.arguments = {"terms": dict(terms), **({} if balance is None else {"balance": balance}), **common}
        self._parts: dict[str, float | Tensor] = {}
        schedules: dict[str, Schedule] = {}
        self.terms = nn.ModuleDict()
        self.own_neighbors: dict[str, int] = {}
        taken: set[str] = set(OF_EVERY_LOSS)
        takers: list[tuple[Any, LossInfo]] = []  # terms that share the class weights of the sum
        for name, value in terms.items():
            if not name or "." in name or "/" in name:
                raise ValueError(f"terms: the name of a term must have no '.' or '/' in it, got {name!r}.")
            term = value if isinstance(value, Mapping) and "schedule" not in value else {"weight": value}
            info = find(str(term.get("loss", name)))
            schedules[name] = term_schedule(name, term.get("weight", 1.0))
            settings = term_arguments(info, term)
            shared = {n: v for n, v in common.items() if n in info.parameters}
            taken |= set(shared)
            _refuse_own_reading(name, settings, {**shared, **settings}.get("use_softmax", False), self.reader.softmax)
            self.terms[name] = made = info.cls(**{**shared, **settings})
            if "neighbors" in settings:
                self.own_neighbors[name] = made.reader.neighbors
            takers += [(self.terms[name], info)] if "weight" in shared and "weight" not in settings else []
        of_all = any("include_background" not in info.parameters for _, info in takers)
        for loss, info in takers:
            loss.weight_of_all = of_all and "include_background" in info.parameters and not loss.include_background
        self.reader.probabilities = any(term.reader.probabilities for term in self._losses().values())
        for name in common:
            if name not in taken:
                hint = nearest(name, DEFAULTS) or "."
                raise TypeError(f"WeightedSum() got an argument {name!r} that none of its terms takes{hint}")
        self.follow(schedules, balance_of(balance, tuple(schedules)))

    @property
    def accepts(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(name for term in self._losses().values() for name in term.accepts))

    @property
    def point_maps(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(name for term in self._losses().values() for name in term.point_maps))

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return tuple(dict.fromkeys(spec for term in self._losses().values() for spec in term.needs))

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for term in self._losses().values() for name in term.taps))

    @property
    def brings(self) -> bool:
        return any(term.brings for term in self._losses().values())

    @property
    def tells_scales_apart(self) -> bool:
        return self.brings or any(term.tells_scales_apart for term in self._losses().values())

    @property
    def prior_kind(self) -> str | None:
        return self.prior_of_terms()

    def prior_of_terms(self) -> str | None:
        """The kind of prior that a term wants and has not got."""
        return next((term.prior_kind for term in self._losses().values() if term.prior_kind), None)

    def take_prior(self, prior: Prior) -> None:
        for term in self._losses().values():
            term.take_prior(prior)

    def prepare(self, shape: NetworkShape) -> None:
        super().prepare(shape)
        for term in self._losses().values():
            term.prepare(shape)

    def update(self) -> dict[str, Tensor]:
        terms = self._losses().items()
        found = {f"{name}/{opponent}": x for name, term in terms for opponent, x in term.update().items()}
        if self.balance is not None:
            self.balance.update()
        return found

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that the weights follow; also of a term that follows it.

        Raises:
            ValueError: no whole number; a ratio needs the means of the epoch before, and neither `end_epoch` nor a restored
                state had them.
        """
        super().set_epoch(epoch)
        for term in self._losses().values():
            follow: Callable[[int], None] = getattr(term, "set_epoch", lambda _: None)
            follow(epoch)

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Keep the mean of each term over the training steps of the epoch that ended, by the names in ``last``."""
        totals: dict[str, float] = {}
        for full, weight in self._parts.items():
            name = full.split("/")[0]
            if full in means:
                totals[name] = totals.get(name, 0.0) + float(weight) * means[full]
        super().end_epoch({**means, **totals})
        for name, term in self._sums().items():
            own = {
                part: value for full, value in means.items() for part in [full.removeprefix(f"{name}/")] if part != full
            }
            off = {} if name in self._active else dict.fromkeys(term.schedules, math.nan)  # ratios start anew
            term.end_epoch({**off, **own})

    @property
    def term_weights(self) -> dict[str, float]:
        """Weight of each term in the present epoch; of a term that is a sum itself, of its parts."""
        sums, found = self._sums(), dict[str, float]()
        for name, weight in super().term_weights.items():
            own = sums[name].term_weights if name in sums else {}
            parts = {f"/{part}": w for part, w in own.items()} or {"": 1.0}
            found |= {f"{name}{part}": weight * w for part, w in parts.items()}
        return found

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return self._statistics(batch) if self._wide(batch) is batch else ()  # else of the copy that the terms get

    def _statistics(self, batch: SegBatch, neighbors: int | None = None) -> tuple[Stat, ...]:
        terms = ((name, term) for name, term in self._losses().items() if name in self._active)
        return tuple(s for name, term in terms if self._own(name) == neighbors for s in term.statistics(batch))

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        out: dict[str, Term] = {}
        losses = {name: term for name, term in self._losses().items() if name in self.evaluated}
        share_maps(batch, (spec for term in losses.values() for spec in term.needs))
        read = {neighbors: self._read(batch, neighbors) for neighbors in {self._own(name) for name in losses}}
        for name, term in losses.items():
            as_read = read[self._own(name)]
            factor, unreduced = self.factor(name, as_read), term.loss(as_read)
            if isinstance(unreduced, Mapping):
                self._parts.update({f"{name}/{part}": _constant(t.weight) for part, t in unreduced.items()})
                out.update({f"{name}/{part}": Term(factor * t.weight, t.unreduced) for part, t in unreduced.items()})
            else:
                out[name] = Term(factor, unreduced)
        return {**out, **self.added(losses, batch)}

    def _own(self, name: str) -> int | None:
        return self.own_neighbors.get(name)

    def _read(self, batch: SegBatch, neighbors: int | None) -> SegBatch:
        """The batch as the terms read it that have so many neighbors of their own, or none, with their statistics."""
        read = self._wide(batch if neighbors is None else batch.with_neighbors(neighbors))
        read.request(*self._statistics(read, neighbors))
        return read

    def _wide(self, batch: SegBatch) -> SegBatch:
        """The batch in float32 where a term takes a copy in float32 anyway, so that the gradients add up there."""
        needs = (
            term.needs or term.brings or term.in_float32
            for name, term in self._losses().items()
            if name in self._active
        )
        return batch.full_precision if any(needs) else batch

    def _sums(self) -> dict[str, Scheduled]:
        return {name: term for name, term in self._losses().items() if isinstance(term, Scheduled)}

    def _losses(self) -> dict[str, SegLoss]:
        return self.terms._modules  # type: ignore[return-value]


class Compound(WeightedSum):
    """A sum with a class of its own: a card gives the terms, and its arguments as theirs.

    Args:
        common: the shared arguments that were given; all terms get the others by their defaults.
        terms: by registry key, see `part`.
        weight: one factor per class, background included, or one for all; terms without the background take the others.

    Raises:
        TypeError, ValueError: an argument of another type, or out of its range; a weight that is none.
    """

    def __init__(self, common: Mapping[str, Any], **terms: Mapping[str, Any]) -> None:
        self._known(common)
        settings = {name: {n: x for n, x in term.items() if n != "argument"} for name, term in terms.items()}
        super().__init__(settings, **{name: DEFAULTS[name] for name in self.formula_arguments} | dict(common))
        for name, term in terms.items():
            weight = self.schedules[name]
            setattr(self, term["argument"], float(weight.value) if isinstance(weight, Constant) else weight)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Also of a checkpoint from when the compound was no sum: its buffers are constants of the constructor."""
        if not any(key.startswith(f"{prefix}terms.") for key in state):
            for name in ("class_weight", "alpha"):
                state.pop(f"{prefix}{name}", None)
            for name, value in self.state_dict(prefix=prefix).items():
                state.setdefault(name, value)
        super()._load_from_state_dict(state, prefix, *rest)

    @property
    def term_weights(self) -> dict[str, float]:
        """Weight of each term in the present epoch; nothing where the card takes numbers only, which no log repeats."""
        kinds = [str(parameter.annotation) for parameter in inspect.signature(type(self)).parameters.values()]
        return super().term_weights if any("TermWeight" in kind for kind in kinds) else {}


def part(argument: str, weight: TermWeight, **settings: Any) -> dict[str, Any]:
    """A term of a `Compound`: its settings, and its weight, which errors and an attribute call as the ``argument``."""
    return {"argument": argument, "weight": term_schedule(argument, weight), **settings}


def _constant(weight: float | Tensor) -> float | Tensor:
    return weight.detach() if isinstance(weight, Tensor) else weight


def _refuse_own_reading(name: str, settings: Mapping[str, Any], use_softmax: bool, softmax: bool) -> None:
    own = next((each for each in settings if each in READING), None)
    if own is not None:
        raise TypeError(f"{name}: {own} is the same for all terms; give it to the sum and not to a term.")
    if use_softmax and not softmax:
        raise TypeError(f"{name}: use_softmax, but the terms are read together; give softmax=True to the sum.")
