"""A weighted sum of losses that share one reading of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.errors import nearest
from monai_segloss.core.maps import MapSpec
from monai_segloss.core.module import DEFAULTS, READING, SegLoss
from monai_segloss.core.reduce import Term
from monai_segloss.core.registry import find
from monai_segloss.schedules import Schedule, schedule


class WeightedSum(SegLoss):
    """Sum of losses by name, each with a weight; one reading and one pass of statistics serve all terms.

    Args:
        terms: name -> weight, or name -> {"weight": weight, argument: value, ...}.  The name is a registry key; for two
            terms of the same key use any names and give the key as ``"loss"``.  A weight is a number, or a schedule over
            the epochs: a `Schedule` or its mapping form, {"schedule": "linear", "start": 0, "end": 1, "epochs": 100}.
        common: arguments of `SegLoss` for all terms; each term gets those it takes.

    `last` holds the detached value of each term after a call; a term of weight 0 is not evaluated.  `set_epoch` drives
    the schedules.

    Raises:
        ValueError: no terms, or a negative weight.
        UnknownLoss, TypeError: a name or an argument that is not known.

    Example:
        >>> import torch
        >>> from monai_segloss import WeightedSum
        >>> loss = WeightedSum({"dice": 1, "cross_entropy": {"weight": 0.5}}, softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.8466
    """

    scalar = True

    def __init__(self, terms: Mapping[str, float | Schedule | Mapping[str, Any]], **common: Any) -> None:
        if not terms:
            raise ValueError("terms is empty; give at least one loss, for example {'dice': 1}.")
        super().__init__(**{name: value for name, value in common.items() if name in READING})
        self.arguments = {"terms": dict(terms), **common}
        self.epoch = 0
        self.schedules: dict[str, Schedule] = {}
        self.terms = nn.ModuleDict()
        taken: set[str] = set(READING)
        for name, value in terms.items():
            settings = dict(value) if isinstance(value, Mapping) and "schedule" not in value else {"weight": value}
            info = find(str(settings.pop("loss", name)))
            self.schedules[name] = schedule(settings.pop("weight", 1.0))
            shared = {n: v for n, v in common.items() if n in info.parameters}
            taken |= set(shared)
            self.terms[name] = info.cls(**{**shared, **settings})
        for name in common:
            if name not in taken:
                hint = nearest(name, DEFAULTS) or "."
                raise TypeError(f"WeightedSum() got an argument {name!r} that none of its terms takes{hint}")

    @property
    def accepts(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(name for term in self._losses().values() for name in term.accepts))

    @property
    def needs(self) -> tuple[MapSpec, ...]:
        return tuple(dict.fromkeys(spec for term in self._losses().values() for spec in term.needs))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch from which scheduled weights follow."""
        self.epoch = epoch

    def weight(self, name: str) -> float:
        """Weight of a term in the present epoch."""
        return self.schedules[name](self.epoch)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return tuple(s for name, term in self._losses().items() if self.weight(name) for s in term.statistics(batch))

    def loss(self, batch: SegBatch) -> Mapping[str, Term]:
        out: dict[str, Term] = {}
        for name, term in self._losses().items():
            weight = self.weight(name)
            if not weight:
                continue
            scores = term.loss(batch)
            if isinstance(scores, Mapping):
                out |= {f"{name}/{part}": Term(weight * t.weight, t.scores) for part, t in scores.items()}
            else:
                out[name] = Term(weight, scores)
        if not out:
            raise ValueError(
                f"all weights of {list(self.terms)} are 0 in epoch {self.epoch}; nothing is left to minimize."
            )
        return out

    def _losses(self) -> dict[str, SegLoss]:
        return dict(self.terms.items())  # type: ignore[arg-type]
