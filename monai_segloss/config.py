"""Configuration of a loss as plain data, validated against the constructors' signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from monai_segloss.core.arguments import plain
from monai_segloss.core.errors import nearest
from monai_segloss.core.module import READING, SegLoss
from monai_segloss.core.packages import described
from monai_segloss.core.registry import LossInfo, create, find, list_losses
from monai_segloss.losses import WeightedSum
from monai_segloss.losses.compound.balance import balance as balance_of
from monai_segloss.losses.compound.weighted_sum import term_arguments
from monai_segloss.schedules import Schedule, schedule

KEYS: dict[Any, tuple[Any, str]] = {
    "loss": (str, "the name of a loss"),
    "arguments": (Mapping, "a mapping of arguments of the loss"),
    "terms": (Mapping, "a mapping of terms"),
    "balance": (str | Mapping, "the name of a method, or a mapping of its settings"),
}
OPTIONAL = ("loss", "balance")


class LossConfig(BaseModel):
    """One loss with arguments, or a weighted sum of terms.

    Args:
        loss: registry key or alias.
        arguments: constructor arguments of ``loss``, the reading aside.
        terms: instead of the two, name -> weight or {"weight": ..., argument: ...}, see `WeightedSum`; there
            ``class_weight`` is what a loss by itself calls ``weight``.
        balance: of the terms, see `WeightedSum`; a loss that takes one has it among its arguments.

    Lists and mappings of other programs (OmegaConf) count as plain ones, and a number that YAML takes for a word, such as
    1e-2, as the number.

    Raises:
        pydantic.ValidationError: an unknown key, argument or schedule, with the nearest names.

    Example:
        >>> from monai_segloss import LossConfig
        >>> LossConfig(loss="focal_tversky", arguments={"gamma": 2}).build(softmax=True, to_onehot_y=True).gamma
        2.0
        >>> LossConfig(terms={"dice": 1, "cross_entropy": 0.5}).model_dump(exclude_defaults=True)
        {'terms': {'dice': {'weight': 1.0}, 'cross_entropy': {'weight': 0.5}}}
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: str | None = Field(None, description="registry key of the loss")
    arguments: dict[str, Any] = Field(default_factory=dict, description="constructor arguments of the loss")
    terms: dict[str, dict[str, Any]] = Field(default_factory=dict, description="terms of a weighted sum, by name")
    balance: str | dict[str, Any] | None = Field(
        default=None, description="how the terms are weighed alongside their weights, see `WeightedSum`"
    )

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, content: Any) -> Any:
        if isinstance(content, LossConfig):
            return content
        if not isinstance(content, Mapping):
            raise ValueError(f"a loss configuration has the keys {', '.join(cls.model_fields)}, got {content!r}.")
        content = plain(content)
        for key, value in content.items():
            wanted = KEYS.get(key)
            if wanted is None:
                raise ValueError(_misplaced(key, content))
            if not isinstance(value, wanted[0]) and not (key in OPTIONAL and value is None):
                raise ValueError(f"{key} must be {wanted[1]}, got {value!r}.")
        unnamed = [
            name for name in (*content.get("arguments", {}), *content.get("terms", {})) if not isinstance(name, str)
        ]
        if unnamed:
            raise ValueError(f"the names of arguments and terms must be text, got {unnamed[0]!r}.")
        return content

    @field_validator("terms", mode="before")
    @classmethod
    def _weights(cls, terms: Any) -> Any:
        alone = {n: v if isinstance(v, Mapping) and "schedule" not in v else {"weight": v} for n, v in terms.items()}
        return {n: {**_data(v), "weight": _weight(v.get("weight", 1.0))} for n, v in alone.items()}

    @field_validator("arguments", mode="before")
    @classmethod
    def _schedules(cls, arguments: Any) -> Any:
        return _data(arguments)

    @model_validator(mode="after")
    def _known(self) -> LossConfig:
        if (self.loss is None) == (not self.terms):
            raise ValueError("give either loss or terms")
        if self.arguments and self.loss is None:
            raise ValueError("arguments belong to loss; give the arguments of a term alongside its weight")
        if self.loss is not None:
            _check_arguments(_find(self.loss), self.arguments)
        if self.balance is not None and self.loss is not None:
            raise ValueError("balance belongs to terms; where a loss takes one, it is among its arguments")
        balance_of(self.balance, tuple(self.terms))
        for name, term in self.terms.items():
            schedule(term["weight"])
            info = _find(term.get("loss", name))
            try:
                arguments = term_arguments(info, term)
            except TypeError as error:
                raise ValueError(str(error)) from None
            _check_arguments(info, arguments)
        return self

    def build(self, **common: Any) -> SegLoss:
        """The module; ``common`` are shared arguments, each term of a sum gets those that it takes."""
        if self.loss is not None:
            return create(self.loss, **{**common, **self.arguments})
        return WeightedSum(self.terms, balance=self.balance, **common)


def _misplaced(key: Any, content: Mapping[str, Any]) -> str:
    """What to say of a key that a configuration does not have, and where it may belong."""
    said = f"a loss configuration has no key {key!r}"
    loss = content.get("loss")
    names = {name: info for info in list_losses() for name in (info.key, *info.aliases)}
    if isinstance(loss, str) and loss in names and key in names[loss].parameters and key not in READING:
        return f"{said}: it is an argument of {loss}, and belongs under 'arguments'."
    if key in names:
        return f"{said}: it is a loss; give it as the value of 'loss', or under 'terms'."
    return f"{said}{nearest(str(key), KEYS) or '.'} It has {', '.join(KEYS)}."


def sentence(error: Exception) -> str:
    """What an error of a configuration says, without the frame that pydantic puts around it."""
    if isinstance(error, ValidationError):
        return "; ".join(_said(each["msg"], each["loc"]) for each in error.errors())
    return str(error)


def _said(message: str, place: tuple[int | str, ...]) -> str:
    """Our own sentences name what is wrong, those of pydantic get its place in front."""
    own = message.removeprefix("Value error, ")
    return own if own != message or not place else f"{'.'.join(map(str, place))}: {message}"


def _data(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.mapping if isinstance(value, Schedule) else value for name, value in settings.items()}


def _weight(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.mapping
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _find(key: str) -> LossInfo:
    try:
        return find(key)
    except KeyError as error:
        raise ValueError(str(error)) from None


def _check_arguments(info: LossInfo, arguments: Mapping[str, Any]) -> None:
    known = [name for name in info.parameters if name not in READING]
    for name in arguments:
        if name not in known:
            hint = nearest(name, known) or "."
            raise ValueError(f"{info.key} has no argument {name!r}{hint} It has {', '.join(known)}.")
    try:
        with described():
            info.cls(**arguments)
    except TypeError as error:
        raise ValueError(f"{info.key}: {error}") from None


def json_schema() -> dict[str, Any]:
    """JSON schema of `LossConfig` in which each loss lists its own arguments with their defaults."""
    schema = LossConfig.model_json_schema()
    schema["properties"]["loss"] = {
        "enum": [name for info in list_losses() for name in (info.key, *info.aliases)],
        "description": "registry key or alias of the loss",
    }
    term = [{"type": "number", "minimum": 0}, {"type": "string"}, {"type": "object"}]  # weight, schedule, or a mapping
    schema["properties"]["terms"]["additionalProperties"] = {"anyOf": term}
    schema["allOf"] = [
        {
            "if": {"properties": {"loss": {"enum": [info.key, *info.aliases]}}, "required": ["loss"]},
            "then": {"properties": {"arguments": {"properties": _properties(info), "additionalProperties": False}}},
        }
        for info in list_losses()
    ]
    return schema


def _properties(info: LossInfo) -> dict[str, Any]:
    kinds = {bool: "boolean", float: "number", int: "number"}
    return {
        name: {"default": parameter.default}
        | ({"type": kinds[type(parameter.default)]} if type(parameter.default) in kinds else {})
        for name, parameter in info.parameters.items()
        if name not in READING
    }
