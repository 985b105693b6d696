"""Tables of a report: a figure that is missing is a dash with its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from monai_segloss.experiment.measures import MEASURES

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Shown:
    """What stands in a table.

    Args:
        text: as it is shown.
        reason: why it is a dash, in a few words.
        tone: better or worse, where a difference is claimed.
    """

    text: str
    reason: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Args:
        caption: what they are.
        columns: their names.
        rows: a cell per column.
        names: how many columns at the left are names.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Shown]]
    names: int = 1

    @property
    def reasons(self) -> list[str]:
        """Of the dashes, each once; their places are the marks in the table."""
        return list(dict.fromkeys(cell.reason for row in self.rows for cell in row if cell.reason))


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows in words.

    Args:
        name: of its file.
        alt: what somebody who does not see it must know.
        caption: how it is read.
        content: the bytes.
        kind: svg, or png of slices of an image.
    """

    name: str
    alt: str
    caption: str
    content: bytes
    kind: str = "svg"

    @property
    def file(self) -> str:
        """Its name."""
        return f"{self.name}.{self.kind}"


@dataclass(frozen=True)
class Section:
    """A part of the page; without figures and tables its text says why."""

    key: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def digits(measure: str) -> int:
    """After the point: lengths are known to a hundredth of a millimetre, shares to a thousandth."""
    return 2 if MEASURES[measure].unit else 3


def plain(value: float, places: int = 3, signed: bool = False) -> str:
    """A figure, or a dash."""
    if not math.isfinite(value):
        return DASH
    value = round(value, places) + 0.0  # no negative zero
    return f"{value:+.{places}f}" if signed and value else f"{value:.{places}f}"


def number(value: float, places: int = 3, signed: bool = False, reason: str = "no value", tone: str = "") -> Shown:
    """A cell with a figure, or with a dash and its reason."""
    missing = not math.isfinite(value)
    return Shown(plain(value, places, signed), reason if missing else "", "" if missing else tone)


def percent(share: float) -> str:
    """With a space, as SI wants it."""
    return f"{100 * share:g} %"


def words(measure: str) -> str:
    """Name of a measure with its unit."""
    facts = MEASURES[measure]
    return f"{facts.words} [{facts.unit}]" if facts.unit else facts.words


def capital(text: str) -> str:
    """With a capital letter; the names of measures begin with a small one."""
    return text[:1].upper() + text[1:]


def quoted(name: str) -> str:
    """A name from outside within a sentence, between backticks."""
    return f"`{' '.join(name.split()).replace('`', chr(39))}`"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence: `a`, `b` and 3 more."""
    shown = [quoted(name) for name in names[:most]]
    left = len(names) - len(shown)
    if left:
        return f"{', '.join(shown)} and {left} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def html(text: str) -> Markup:
    """A sentence for the page: escaped, with what is between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def markdown(text: str) -> str:
    """A sentence for Markdown: what is not between backticks loses its marks and its HTML."""
    return "`".join(part if i % 2 else markdown_text(part) for i, part in enumerate(text.split("`")))


def markdown_text(text: str) -> str:
    """Text from outside for Markdown, in one line and without any marks."""
    return re.sub(r"([\\`*_\[\]|#~<>&])", r"\\\1", re.sub(r"\s+", " ", text))
