"""Published comparisons of losses: what fills a comparison of ours, and what the page sets beside it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monai_segloss.config import sentence
from monai_segloss.core.errors import nearest
from monai_segloss.experiment.arms import Arm
from monai_segloss.experiment.matrix import Matrix, MatrixError
from monai_segloss.files import read_json

FILE = "protocol.json"
"""In the folder of a comparison: the protocol that it followed."""


class Published(BaseModel):
    """What a paper reports.

    Args:
        source: where the values are from.
        values: data set -> arm -> one value per measure of the protocol.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    values: dict[str, dict[str, tuple[float, ...]]]


class Protocol(BaseModel):
    """A published comparison.

    Args:
        name: on the command line.
        paper: citation.
        facts: where losses and settings are from.
        matrix: what it fills of a `Matrix`.
        generated: what else where no data are given, so that it ends on a CPU.
        rates: grid of initial learning rates, the baseline's first; every loss is trained with each.
        measures: that the paper reports, names of ours.
        published: its values, where they are known.
        differs: what is not as in the paper, in sentences.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    paper: str
    facts: str
    matrix: dict[str, Any]
    generated: dict[str, Any]
    rates: tuple[float, ...] = ()
    measures: tuple[str, ...] = Field(min_length=1)
    published: Published | None = None
    differs: tuple[str, ...] = ()

    def fill(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The comparison as plain data; what is given takes the place of what the protocol says."""
        given = dict(given)
        if given.get("demo") is True and "data" not in given:
            del given["demo"]  # which generated volumes, the protocol says
        content = {**self.matrix, **({} if "data" in given else self.generated), **given}
        if not self.rates or "lr" in given:
            return content
        arms = [Arm.model_validate(arm) for arm in content["arms"]]
        content["arms"] = [each for arm in arms for each in self._grid(arm)]
        baseline = next((arm for arm in arms if arm.name == content.get("baseline")), None)
        return content if baseline is None else {**content, "baseline": self._grid(baseline)[0].name}

    def _grid(self, arm: Arm) -> list[Arm]:
        """An arm with each of the rates; one that has its own as it is."""
        if arm.lr is not None:
            return [arm]
        return [arm.model_copy(update={"name": with_rate(arm.name, rate), "lr": rate}) for rate in self.rates]

    def rates_of(self, arm: str) -> list[str]:
        """Names that an arm of the protocol has in a comparison: one for each rate, or its own."""
        return [arm, *(with_rate(arm, rate) for rate in self.rates)]

    def other_settings(self, comparison: Mapping[str, Any]) -> list[str]:
        """Where the comparison was told something else, in sentences.

        Args:
            comparison: its matrix as plain data, without defaults.
        """
        defaults = {name: field.default for name, field in Matrix.model_fields.items()}
        found = [
            f"`{key}` is {_shown(here)} here and {_shown(value)} in the protocol."
            for key, value in self.matrix.items()
            if key not in ("arms", "baseline") and (here := comparison.get(key, defaults[key])) != value
        ]
        return [*found, "The data are generated."] if comparison.get("demo") else found


def with_rate(arm: str, rate: float) -> str:
    """Name of an arm that is trained with a rate of the grid."""
    from nnunet_trainers.naming import spell

    return f"{arm}_lr{spell(rate)}"


def names() -> list[str]:
    """Of the protocols that there are."""
    folder = files("monai_segloss.experiment.protocols")
    return sorted(each.name.removesuffix(".json") for each in folder.iterdir() if each.name.endswith(".json"))


def read_protocol(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        MatrixError: there is none.
    """
    if name not in names():
        hint = nearest(name, names()) or "."
        raise MatrixError(f"no protocol is called {name!r}{hint} There are {', '.join(names())}.")
    text = files("monai_segloss.experiment.protocols").joinpath(f"{name}.json").read_text(encoding="utf-8")
    return Protocol.model_validate_json(text)


def followed(folder: Path) -> Protocol | None:
    """The protocol of a comparison in its folder; None where it followed none.

    Raises:
        MatrixError: the file holds no protocol.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return Protocol.model_validate(read_json(file))
    except ValidationError as error:
        raise MatrixError(f"{file} holds no protocol: {sentence(error)}") from None
    except ValueError as error:
        raise MatrixError(f"{file} cannot be read: {error}.") from None


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
