"""A loss of the registry with further terms that need the network: the base of this folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from monai_segloss.core.arguments import shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.opponent import Opponent
from monai_segloss.core.reduce import Term, Unreduced
from monai_segloss.core.registry import find
from monai_segloss.core.taps import NetworkShape
from monai_segloss.losses.compound.balance import BalanceConfig
from monai_segloss.losses.compound.balance import balance as balance_of
from monai_segloss.losses.compound.scheduled import term_schedule
from monai_segloss.losses.compound.weighted_sum import WeightedSum
from monai_segloss.schedules import TermWeight

Base = str | Mapping[str, TermWeight]


class Guided(WeightedSum):
    """A segmentation loss plus terms of its own, which are evaluated at the full resolution only.

    A card gives the weights of its terms to the constructor, builds what it brings along in `build`, and computes its terms
    in `own_terms`.

    Args:
        base: the segmentation loss: a registry key, or terms as `WeightedSum` has them; ``{}``: none, so that the terms can
            stand in a sum.
        weights: name of a term -> argument of the card, whose name errors bear, and weight.
        common: shared arguments, for ``base``.
        balance: of ``base``, term by term, and the own terms, see `WeightedSum`.
        kinds: what the own terms are for `UncertaintyWeighting`.
    """

    may_be_empty = True
    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr", "weight")

    def __init__(
        self,
        base: Base,
        weights: Mapping[str, tuple[str, TermWeight]],
        common: FormulaArgs,
        balance: BalanceConfig | None = None,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        terms = base_terms(base)
        super().__init__(terms, **common)
        own = {name: term_schedule(argument, weight) for name, (argument, weight) in weights.items()}
        both = own.keys() & self.schedules.keys()
        if both:
            raise ValueError(f"base: {', '.join(both)} is the name of a term of {type(self).__name__} itself.")
        self.own = tuple(own)
        schedules = {**self.schedules, **own}
        self.follow(schedules, balance_of(balance, tuple(schedules), kinds))
        self.heads = nn.ModuleDict()
        self.opponents: dict[str, Opponent] = {}

    # -- what is brought along --------------------------------------------------------------------------------------------

    own_taps: tuple[str, ...] = ()
    """What the own terms take from the network."""
    own_needs: tuple[MapSpec, ...] = ()
    """The maps that they need."""

    @property
    def taps(self) -> tuple[str, ...]:
        found = (name for term in self._losses().values() for name in term.taps)
        return tuple(dict.fromkeys((*found, *self.own_taps)))

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        found = (spec for term in self._losses().values() for spec in term.needs)
        return tuple(dict.fromkeys((*found, *self.own_needs)))

    @property
    def brings(self) -> bool:
        return True

    def prepare(self, shape: NetworkShape) -> None:
        """Build heads and opponents for a network; once, before the optimizer is made.

        Raises:
            RuntimeError: they are there already, perhaps trained.
        """
        if self.shape is not None:
            raise RuntimeError(f"{type(self).__name__} is prepared already; make a new loss for another network.")
        super().prepare(shape)
        self.build(shape)

    def build(self, shape: NetworkShape) -> None:
        """Build ``heads`` and ``opponents``."""

    def update(self) -> dict[str, Tensor]:
        """The step of the opponents, after that of the network: the detached value of each one's own loss, by its name."""
        own = {name: each.step(self.against(name)) for name, each in self.opponents.items()}
        return super().update() | {name: value for name, value in own.items() if value is not None}

    def against(self, opponent: str) -> Callable[..., Tensor]:
        """The loss of an opponent of this name, a function of its network and of what it was told to remember."""
        raise NotImplementedError

    # -- the value --------------------------------------------------------------------------------------------------------

    @abstractmethod
    def own_terms(self, batch: SegBatch) -> Mapping[str, Callable[[], Unreduced]]:
        """The terms by name; only those with a weight are computed."""

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        if not batch.full_resolution:
            return super().loss(batch) if self.terms else {"nothing": Term(1.0, batch.nothing())}
        if self.shape is None:
            raise RuntimeError(
                f"{type(self).__name__} is not prepared for a network: call loss.prepare(network_shape(network, image, "
                "loss.taps)), which builds what it brings along, before the optimizer is made."
            )
        if self.prior_kind is not None:
            raise RuntimeError(
                f"{type(self).__name__} wants a prior of the kind {self.prior_kind!r}: train one with `segloss prior train "
                f"DATASET --kind {self.prior_kind}` and give it as prior=FILE."
            )
        if (batch.classes, batch.ndim - 2) != (self.shape.classes, self.shape.axes):
            raise LossShapeError(
                f"input has shape {tuple(batch.logits.shape)}; {type(self).__name__} is prepared for {self.shape.classes} "
                f"channels on {self.shape.axes} axes, and needs spatial axes."
            )
        self.refuse_missing(batch.maps)
        out = dict(super().loss(batch)) if any(name in self.terms for name in self._active) else {}
        wide = self._wide(batch)
        parts = self.own_terms(wide)
        out |= {n: Term(self.factor(n, wide), parts[n]()) for n in self.evaluated if n in parts}
        return out | self.added(self.evaluated, wide)

    def _wide(self, batch: SegBatch) -> SegBatch:
        own = batch.full_resolution and any(name in self.own for name in self._active)
        return batch.full_precision if own else super()._wide(batch)

    # -- state ------------------------------------------------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        """Means of the terms, see `Scheduled`, and the opponents."""
        state: dict[str, Any] = dict(super().get_extra_state())
        return {**state, "opponents": {name: each.state_dict() for name, each in self.opponents.items()}}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        super().set_extra_state(state)
        found = state.get("opponents", {})
        if found.keys() != self.opponents.keys():
            raise RuntimeError(
                f"the state has the opponents {sorted(found)} and {type(self).__name__} {sorted(self.opponents)}: prepare "
                "the loss for its network before its state is restored."
            )
        for name, each in self.opponents.items():
            each.load_state_dict(found[name])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Guided:
        super()._apply(fn, recurse)
        for each in self.opponents.values():
            each.apply(fn)
        return self


def base_terms(base: Base) -> Mapping[str, TermWeight]:
    """The terms of ``base``; losses by the names of the registry."""
    if not isinstance(base, (str, Mapping)):
        raise TypeError(f"base must be the key of a loss or a mapping of terms, got {shown(base)}.")
    terms: Mapping[str, TermWeight] = {base: 1.0} if isinstance(base, str) else base
    for name, term in terms.items():
        try:
            find(str(term.get("loss", name)) if isinstance(term, Mapping) else name)
        except KeyError as error:
            raise ValueError(f"base: {error}") from None
    return terms
