"""The grammar of trainer names: every setting that is a number can stand in the name.

nnU-Net names the folder of a run after its trainer, so a setting that is not in the name would overwrite another run.

    nnUNetTrainer<Loss>[_<argument><number>]...[_softlabels][_lr<number>][_adam][_seed<N>][_<N>epochs][_<N>iterations]

A number has ``p`` for the point, ``m`` for minus and ``e`` for the exponent: ``alpha0p3``, ``lr1em2``.  There is one
spelling of a setting (arguments in the order of the constructor, the shortest number); others are read only to name it.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

PREFIX = "nnUNetTrainer"
RESERVED = ("lr", "seed", "epochs", "iterations")
OPTIMIZERS = ("adam",)
"""In place of nnU-Net's own, stochastic gradient descent with Nesterov momentum."""
SOFT_LABELS = "softlabels"
WORDS = (*OPTIMIZERS, SOFT_LABELS)
"""Settings without a number."""
NUMBER = re.compile(r"=?([-m+]?)((?:0|[1-9]\d*)?)(?:[.p](\d+))?(?:e([-m+]?)(\d{1,3}))?")

# The trainer takes these from the plan and the data set.
SET_BY_TRAINER = frozenset(
    ("to_onehot_y", "sigmoid", "softmax", "other_act", "ignore_index", "reduction", "include_background", "batch")
)

Parameters = Mapping[str, "type[int] | type[float]"]


class TrainerNameError(RuntimeError):
    """A trainer name that does not follow the grammar, with the nearest names that do (a RuntimeError, as nnU-Net's)."""


@dataclass(frozen=True)
class TrainerName:
    """What a trainer name says; a setting that it leaves open is None or missing.

    Args:
        stem: the loss in camel case (``FocalTversky``).
        arguments: numeric arguments of the loss.
        lr: initial learning rate.
        seed: seed of every random generator.
        epochs: length of the training.
        iterations: training steps per epoch.
        optimizer: one of `OPTIMIZERS`.
        soft_labels: train on soft labels.
    """

    stem: str
    arguments: Mapping[str, float] = field(default_factory=dict)
    lr: float | None = None
    seed: int | None = None
    epochs: int | None = None
    iterations: int | None = None
    optimizer: str | None = None
    soft_labels: bool = False


def numeric_parameters(loss: type) -> dict[str, type[int] | type[float]]:
    """Name and type (int or float) of the arguments of a loss that a trainer name can set, in the constructor's order.

    Raises:
        ValueError: names that could not be told apart in a trainer name.
    """
    constructor = next(vars(each)["__init__"] for each in loss.__mro__ if "__init__" in vars(each))
    hints = typing.get_type_hints(constructor)
    found: dict[str, type[int] | type[float]] = {}
    for name, parameter in inspect.signature(loss).parameters.items():
        types = set(_members(hints.get(name, type(parameter.default))))
        if name not in SET_BY_TRAINER and types & {int, float}:
            found[name] = float if float in types else int
    tokens = [token(name) for name in found]
    for each in tokens:
        if each in (*RESERVED, *WORDS) or each[-1].isdigit() or tokens.count(each) > 1 or each + "m" in tokens:
            raise ValueError(f"{loss.__name__}: argument {each!r} cannot be told apart in a trainer name, rename it")
    return found


def _members(annotation: object) -> Iterator[object]:
    arguments = typing.get_args(annotation)
    # A sequence of numbers is no number: only unions (and None) are looked into.
    if arguments and typing.get_origin(annotation) in (typing.Union, type(int | None)):
        for argument in arguments:
            yield from _members(argument)
    else:
        yield annotation


def token(name: str) -> str:
    """The name of an argument as it stands in a trainer name."""
    return name.replace("_", "")


def spell(value: float) -> str:
    """The shortest spelling of a number; of two equally short ones ``1em2`` rather than ``0p01``, else the plain one.

    Example:
        >>> from nnunet_trainers.naming import spell
        >>> [spell(x) for x in (0.3, -2, 0.01, 0.025, 1e-5, 1500.0)]
        ['0p3', 'm2', '1em2', '0p025', '1em5', '1500']
    """
    sign, numerals, exponent = Decimal(value if isinstance(value, int) else repr(float(value))).as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"a trainer name cannot hold {value}")
    written = "".join(map(str, numerals)).lstrip("0")
    digits = written.rstrip("0")
    if not digits:
        return "0"
    exponent += len(written) - len(digits)
    point = len(digits) + exponent
    if exponent >= 0:
        plain = digits + "0" * exponent
    else:
        plain = f"{digits[:point]}p{digits[point:]}" if point > 0 else f"0p{'0' * -point}{digits}"
    short = f"{digits}e{'m' if exponent < 0 else ''}{abs(exponent)}"
    tie = len(short) == len(plain) and exponent < 0 and len(digits) == 1
    return ("m" if sign else "") + (short if len(short) < len(plain) or tie else plain)


def read(text: str) -> Decimal | None:
    """The number that ``text`` spells, also loosely (``0.3``, ``=1e-2``); None where it is none."""
    match = NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    sign, whole, fraction, exponent_sign, exponent = (part or "" for part in match.groups())
    minus = {"m": "-", "-": "-", "+": "", "": ""}
    return Decimal(f"{minus[sign]}{whole}.{fraction}e{minus[exponent_sign]}{exponent or 0}")


def encode(name: TrainerName, parameters: Parameters) -> str:
    """The one spelling of a trainer name.

    Example:
        >>> from nnunet_trainers.naming import TrainerName, encode
        >>> encode(TrainerName("Tversky", {"beta": 0.8}, lr=0.01, epochs=20), {"alpha": float, "beta": float})
        'nnUNetTrainerTversky_beta0p8_lr1em2_20epochs'
    """
    tokens = [token(each) + spell(name.arguments[each]) for each in parameters if each in name.arguments]
    tokens += [SOFT_LABELS] if name.soft_labels else []
    tokens += [] if name.lr is None else [f"lr{spell(name.lr)}"]
    tokens += [] if name.optimizer is None else [name.optimizer]
    tokens += [] if name.seed is None else [f"seed{name.seed}"]
    tokens += [] if name.epochs is None else [f"{name.epochs}epochs"]
    tokens += [] if name.iterations is None else [f"{name.iterations}iterations"]
    return "_".join([PREFIX + name.stem, *tokens])


def decode(name: str, parameters: Parameters) -> TrainerName:
    """What a trainer name says; the inverse of `encode`.

    Raises:
        TrainerNameError: an unknown setting, a setting given twice, or another spelling than that of `encode`.
    """
    stem, *tokens = name.removeprefix(PREFIX).split("_")
    values: dict[str, float] = {}
    for each in tokens:
        setting, value = _read_token(each, parameters) or _refuse(name, tokens.index(each), parameters)
        if setting in values:
            raise TrainerNameError(f"trainer {name!r} gives {setting!r} twice")
        values[setting] = value
    arguments = {each: values[each] for each in parameters if each in values}
    seed, epochs, iterations = (None if each not in values else int(values[each]) for each in RESERVED[1:])
    optimizer = next((each for each in OPTIMIZERS if each in values), None)
    result = TrainerName(stem, arguments, values.get("lr"), seed, epochs, iterations, optimizer, SOFT_LABELS in values)
    right = encode(result, parameters)
    if right != name:
        raise TrainerNameError(f"trainer {name!r} must be written {right!r}")
    return result


def is_setting(text: str, parameters: Parameters) -> bool:
    """Whether a part of a trainer name was meant as a setting: a number stands in it, or it is the bare word of one."""
    return any(map(str.isdigit, text)) or text in {*map(token, parameters), *RESERVED, *WORDS}


def _read_token(text: str, parameters: Parameters) -> tuple[str, float] | None:
    if text in WORDS:
        return text, 1.0
    counted = re.fullmatch(r"(\d+)(epochs|iterations)|(seed)(\d+)", text)
    if counted:
        setting, count = counted[2] or counted[3], int(counted[1] or counted[4])
        largest = 2**32 - 1 if setting == "seed" else 10**9
        return (setting, count) if (count > 0 or setting == "seed") and count <= largest else None
    for name in sorted([*parameters, "lr"], key=len, reverse=True):
        value = read(text[len(token(name)) :]) if text.startswith(token(name)) else None
        if value is None or not math.isfinite(float(value)):
            continue
        if name == "lr":
            return (name, float(value)) if value > 0 else None
        if parameters[name] is float:
            return name, float(value)
        return (name, int(value)) if value == int(value) else None
    return None


def _refuse(name: str, position: int, parameters: Parameters) -> typing.NoReturn:
    start, *tokens = name.split("_")
    text, known = tokens[position], [*map(token, parameters), "lr"]
    guesses = [guess for guess in _guesses(text, known) if _read_token(guess, parameters)]
    near = [repr("_".join([start, *tokens[:position], guess, *tokens[position + 1 :]])) for guess in guesses]
    numbers = [f"{each}<number>" for each in known[:-1]]
    offer = [*numbers, SOFT_LABELS, "lr<number>", *OPTIMIZERS, "seed<N>", "<N>epochs", "<N>iterations"]
    hint = f"did you mean {' or '.join(near)}?" if near else f"the settings are, in this order: {', '.join(offer)}"
    raise TrainerNameError(f"trainer {name!r} has the setting {text!r}, which cannot be read; {hint}")


def _guesses(text: str, known: list[str]) -> Iterator[str]:
    """Settings near ``text``: a misspelt word kept with its number, whichever stands first."""
    if difflib.get_close_matches(text.lower(), [SOFT_LABELS], cutoff=0.8):
        yield SOFT_LABELS
    match = re.fullmatch(r"([a-zA-Z]+)(=?[-m+]?[\d.p]+(?:e[-m+]?\d+)?)|(\d+)([a-zA-Z]+)", text)
    if match is None:
        return
    word, number = (match[1] or match[4]).lower(), match[2] or match[3]
    pool = {each.lower(): each for each in [*known, *RESERVED]}
    for hit in difflib.get_close_matches(word, pool, n=3, cutoff=0.5):
        yield f"{number}{pool[hit]}" if hit in ("epochs", "iterations") else f"{pool[hit]}{number}"
