"""A property of the contract: a statement about a loss and an input case, true on each case that the loss supports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from monai_segloss.core.registry import LossInfo
from monai_segloss.testing.cases import BUILDERS, Case
from monai_segloss.testing.harness import Violation, supported

Check = Callable[..., None]
PLAIN = ("labels_3d", "labels_2d", "one_class", "regions")
"""Names of the cases for a loss that supports none of those of a property."""
About = Callable[[LossInfo], bool]


@dataclass(frozen=True)
class Property:
    """A property by name.

    Args:
        name: its name, that of the function.
        check: raises `Violation` where the property is false; called with the entry, and a case where there are cases.
        cases: names of the cases that it is about; none: it is about the class.
        about: whether it says anything about an entry.
    """

    name: str
    check: Check
    cases: tuple[str, ...]
    about: About

    def inputs(self, info: LossInfo) -> list[Case | None]:
        """The cases of the property that the loss supports, else the plain ones; None for the class itself.

        Raises:
            ValueError: there is none, so that the property would say nothing.
        """
        if not self.cases:
            return [None]
        found = supported(info, *self.cases) or supported(info, *PLAIN)
        if not found:
            raise ValueError(f"{self.name} runs no case of {info.key}: support is {', '.join(info.support)}.")
        return [*found]

    def violation(self, info: LossInfo, case: Case | None) -> Violation | None:
        """How a case violates the property, or None; other errors come out, with the case as a note."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                self.check(*((info,) if case is None else (info, case.copy())))
            except Violation as violation:
                return violation
            except Exception as error:
                error.add_note(f"{self.name}{on_case(case)}")
                raise
        return None

    def __call__(self, info: LossInfo) -> None:
        """The property is true on every case but those of the exemption, and false on each of those.

        Raises:
            Violation: it is not, with a line per case.
            ValueError: it runs no case, or the exemption names one that it does not run.
        """
        exempt, inputs = info.exemption(self.name), self.inputs(info)
        names = {case.name for case in inputs if case is not None}
        if exempt is not None and not set(exempt.cases) <= names:
            raise ValueError(
                f"{info.key} is exempt from {self.name} on {', '.join(set(exempt.cases) - names)}: no case."
            )
        wrong = []
        for case in inputs:
            found = self.violation(info, case)
            covered = exempt is not None and exempt.covers("" if case is None else case.name)
            if covered and found is None:
                wrong.append(f"{self.name}{on_case(case)} holds: remove the exemption ({exempt})")
            if found is not None and not covered:
                wrong.append(f"{self.name}{on_case(case)}: {found}")
        if wrong:
            raise Violation("\n".join(wrong))


def on_case(case: Case | None) -> str:
    """Where a property was looked at."""
    return "" if case is None else f" on {case.name}"


PROPERTIES: dict[str, Property] = {}
"""All properties by name; `monai_segloss.testing.properties` fills it."""


def on(*names: str, support: str = "", about: About = lambda info: True) -> Callable[[Check], Property]:
    """Decorator: a property of the named cases, see `monai_segloss.testing.cases`.

    Args:
        names: the cases; none: the property chooses its inputs itself, if it needs any.
        support: what a loss must support, of `LossInfo.support`, for the property to say something about it.
        about: any other condition.
    """

    def enter(check: Check) -> Property:
        def says_something(info: LossInfo) -> bool:
            return set(support.split()) <= set(info.support) and about(info)

        PROPERTIES[check.__name__] = found = Property(check.__name__, check, names, says_something)
        return found

    return enter


def on_every_case(check: Check) -> Property:
    """Decorator: a property of all cases."""
    return on(*BUILDERS)(check)
