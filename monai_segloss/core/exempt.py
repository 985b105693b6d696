"""Where a property of the contract is false by design for a loss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exempt:
    """An exemption from a property of the contract.

    Args:
        reason: why the property is false by design for the loss.
        cases: names of the input cases on which it is false, see `monai_segloss.testing.cases`; none: on all of them.

    Example:
        >>> print(Exempt("channel 0 is left out by default", cases=("regions",)))
        channel 0 is left out by default (on regions)
    """

    reason: str
    cases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.reason} (on {', '.join(self.cases)})" if self.cases else self.reason

    def covers(self, case: str) -> bool:
        """Whether the exemption is about the case."""
        return not self.cases or case in self.cases
