"""`reference`, which enters a formula under the key of its loss and gives it the reading and the loss's defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

import monai_segloss
from monai_segloss.core.module import OF_EVERY_LOSS

from .reading import Array, Reading, read

Formula = Callable[..., Array]
Closed = Callable[[float, float, int], float]

READ = ("labels", "ignore_index", "spacing", "at")

REFERENCES: dict[str, Formula] = {}
UNIFORM: dict[str, Closed] = {}
PUBLISHED: dict[str, dict[str, Any]] = {}


def reference(key: str, uniform: Closed | None = None, **published: Any) -> Callable[[Formula], Formula]:
    """Enter the formula of a loss: a function of a `Reading` and of the arguments of the loss that it names.

    An argument without a default has that of the registry; `**rest` takes all that it does not name.  An argument with a
    default is an input of the call, such as a map.  A formula is given no argument that it would ignore, unless with its
    default.

    Args:
        key: of the loss.
        uniform: value, without smoothing, at the uniform prediction p = 1/C for a class of `volume` voxels of `n`.
        published: the defaults that the source states: neither off (None, False) nor those of all losses.  A test compares
            them with the registry.

    Raises:
        TypeError: where the formula and the loss do not have the same arguments, or a formula is given one that it ignores.
    """
    parameters = monai_segloss.find(key).parameters
    defaults = {name: p.default for name, p in parameters.items() if name not in OF_EVERY_LOSS or name == "reduction"}

    def enter(formula: Formula) -> Formula:
        named = list(inspect.signature(formula).parameters.values())[1:]
        takes_the_rest = any(p.kind is p.VAR_KEYWORD for p in named)
        names = {p.name for p in named if p.kind is not p.VAR_KEYWORD}
        inputs = {p.name for p in named if p.default is not p.empty}
        if unknown := names - inputs - defaults.keys():
            raise TypeError(f"reference of {key}: the loss has no arguments {sorted(unknown)}.")
        if repeated := inputs & defaults.keys():
            raise TypeError(f"reference of {key}: the defaults of {sorted(repeated)} are those of the loss.")

        @functools.wraps(formula)
        def of_reading(r: Reading, /, **given: Any) -> Array:
            for name, value in given.items():
                if name not in inputs | defaults.keys():
                    raise TypeError(f"{key} has no argument {name!r}.")
                if not (name in names or takes_the_rest or np.array_equal(value, defaults[name])):
                    raise TypeError(f"the reference of {key} ignores {name}, but got {value!r}.")
            known = {**defaults, **given}
            return formula(r, **(known if takes_the_rest else {name: known[name] for name in known.keys() & names}))

        @functools.wraps(formula)
        def of_logits(*tensors: Any, **given: Any) -> Array:
            common = {name: given.pop(name) for name in READ if name in given}
            return of_reading(read(*tensors, **common), **given)

        REFERENCES[key], PUBLISHED[key] = of_logits, published
        if uniform is not None:
            UNIFORM[key] = uniform
        return of_reading

    return enter
