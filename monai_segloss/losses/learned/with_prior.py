"""A loss of the registry with a term that needs a frozen network: the base of losses with a prior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from monai_segloss.core.companions import Frozen
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.prior import Header, Prior, PriorError
from monai_segloss.core.taps import NetworkShape
from monai_segloss.losses.learned.guided import Base, Guided
from monai_segloss.prior.networks import loaded
from monai_segloss.schedules import TermWeight


class WithPrior(Guided):
    """A segmentation loss plus a term that compares prediction and target by a frozen network.

    A card says the kind of its prior, and what of its network stays, in `part`.

    Args:
        base, weights, common: see `Guided`.
        prior: file of ``segloss prior train``; None: whoever trains hands one over by `load_prior`.
    """

    kind: ClassVar[str]
    """Kind of the prior, one of `monai_segloss.core.prior.KINDS`."""

    def __init__(
        self, base: Base, weights: Mapping[str, tuple[str, TermWeight]], prior: str | None, common: FormulaArgs
    ) -> None:
        super().__init__(base, weights, common)
        if prior is not None and not Path(prior).is_file():
            raise PriorError(f"prior: there is no file {str(prior)!r}.")
        self.file = prior
        self.header: Header | None = None
        self.frozen: nn.Module | None = None

    @property
    def prior_kind(self) -> str | None:
        return self.kind if self.frozen is None else self.prior_of_terms()

    def prepare(self, shape: NetworkShape) -> None:
        super().prepare(shape)
        if self.file is not None:
            self.load_prior(Path(self.file))

    def take_prior(self, prior: Prior) -> None:
        super().take_prior(prior)
        if self.frozen is None and prior.header.kind == self.kind:
            if self.shape is None:
                raise RuntimeError(f"{type(self).__name__} takes a prior after it is prepared for a network.")
            prior.header.refuse_other(self.shape, self.reader.sigmoid)
            self.frozen, self.header = Frozen(self.part(loaded(prior))), prior.header

    @abstractmethod
    def part(self, network: Any) -> nn.Module:
        """What the loss needs of the network of a prior."""
