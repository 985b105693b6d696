"""From a registry entry and a case to numbers: which cases an entry is run on, and how it is called."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from monai_segloss.core.module import SegLoss
from monai_segloss.core.registry import LOSSES, LossInfo
from monai_segloss.testing import cases
from monai_segloss.testing.cases import Case
from monai_segloss.testing.stand_in import prepared

HARD = ("labels_3d", "labels_2d", "two_classes", "five_classes", "one_class", "regions", "empty_class")
"""Names of the cases whose targets are 0 or 1."""

_ENTRIES: WeakKeyDictionary[type[SegLoss], LossInfo] = WeakKeyDictionary()


class Violation(AssertionError):
    """A property of the contract is false."""


def require(condition: object, message: str) -> None:
    """Raise `Violation` unless the condition holds."""
    if not condition:
        raise Violation(message)


def supported(info: LossInfo, *names: str) -> list[Case]:
    """The cases (all, or the named) that the entry says it can read; at least one of all."""
    every = (cases.enlarged(cases.get(name, info.size), info.min_error_width) for name in names or cases.BUILDERS)
    found = [case for case in every if case.tags <= set(info.support)]
    require(found or names, f"{info.key} supports none of the cases")
    return found


def make(info: LossInfo, case: Case, **arguments: Any) -> SegLoss:
    """The loss with the arguments of its example, reading the case."""
    _ENTRIES[info.cls] = info
    return prepared(info.cls(**{**info.example, **case.reading, **arguments}), case.input)


def fed(info: LossInfo) -> bool:
    """Whether the loss takes features, which the stand-in makes of what is called the input."""
    return bool({*info.cls(**info.example).taps} - {"image"})


def fresh(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A loss that says that it remembers its calls is copied, so that each call is the first."""
    if not isinstance(loss, SegLoss):
        return loss
    entries = (_ENTRIES.get(type(loss)), *(info for info in LOSSES.values() if info.cls is type(loss)))
    remembers = any(info is not None and "calls_leave_no_trace" in info.exempt for info in entries)
    remembers |= loss.arguments.get("every", 1) != 1  # it counts its calls
    return copy.deepcopy(loss) if remembers else loss


def value(loss: Callable[..., Tensor], case: Case, input: Tensor | None = None) -> Tensor:
    """The loss of the case, or of other logits."""
    return fresh(loss)(case.input if input is None else input, case.target, **case.call)


def gradient(loss: Callable[..., Tensor], case: Case, input: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Detached value and the gradient of its sum in the input."""
    leaf = (case.input if input is None else input).detach().clone().requires_grad_()
    found = value(loss, case, leaf)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    return found.detach(), slope


def assert_close(found: Tensor, expected: Tensor, message: str, rtol: float = 1e-6, atol: float = 1e-9) -> None:
    """Raise `Violation` where two tensors differ, in shape or type too."""
    try:
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    except AssertionError as error:
        raise Violation(f"{message}: {' '.join(str(error).split())}") from None


def refused(expected: tuple[type[Exception], str], call: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    """The call raises this kind of error, and its one line says what the pattern says."""
    kind, text = expected
    caught: Exception | None = None
    try:
        call(*args, **kwargs)
    except Exception as error:
        caught = error
    require(caught is not None, f"nothing was raised; expected {kind.__name__} with {text!r}")
    require(isinstance(caught, kind), f"{type(caught).__name__} instead of {kind.__name__}: {caught}")
    require(re.search(text, str(caught)), f"{str(caught)!r} does not say {text!r}")
    require("\n" not in str(caught), f"several lines: {caught}")
