"""What the docstring of a loss says: its summary, the sections that the registry reads, and its arguments."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping

IDENTIFIER = re.compile(r"\b(?:arXiv|doi|openreview|PMLR)[: ][^\s;,)]+[^\s;,.)]")
"""An arXiv number, a DOI and the like, as they stand in a reference."""
HEADING = re.compile(r"(Formula|When|Reference): (.+)|([A-Z][a-z]+|Keyword arguments.*):")
"""The line that begins a section: a paragraph that begins on it, or a block that is indented below it."""
READ = ("Formula", "When", "Reference", "Args")
"""Sections that have a place of their own on a page."""


def sections(cls: type) -> dict[str, str]:
    """The paragraphs of each section of a class docstring, ``""`` the ones before the first section; lines joined.

    Without docstrings (``python -OO``) all are empty.
    """
    found = {"": "", "Formula": "", "When": "", "Reference": ""}
    for name, line in _lines(cls):
        heading = HEADING.fullmatch(line)
        found[name] = found.get(name, "") + ((heading[2] or "") if heading else line.strip()) + "\n"
    return {name: _joined(text) for name, text in found.items()}


def description(cls: type) -> str:
    """The docstring without the summary and the sections that are `READ`: explanations, what raises, the example."""
    lines = [line for name, line in _lines(cls) if name not in READ]
    text = "\n".join(lines).partition("\n\n")[2]
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def arguments(cls: type, names: Iterable[str]) -> dict[str, str]:
    """What each argument is: as the nearest class among ``cls`` and its bases says that documents it, else ``""``."""
    found = [_documented(each) for each in cls.__mro__]
    return {name: next((texts[name] for texts in found if name in texts), "") for name in names}


def completed(cls: type, texts: Mapping[str, str]) -> str | None:
    """The docstring with what the class leaves to its bases: of ``texts``, argument -> what it is, and what raises."""
    if not cls.__doc__:
        return None
    own = _documented(cls)
    left = {text: [n for n in texts if texts[n] == text and n not in own] for text in texts.values() if text}
    more = [_wrapped(f"{', '.join(names)}: {text}") for text, names in left.items() if names]
    raises = next((found for base in cls.__mro__[1:] if (found := _section(base, "Raises"))), [])
    lines = _extended(list(_lines(cls)), "Args", more, ("Raises", "Example", "Reference"))
    lines = _extended(lines, "Raises", raises, ("Example", "Reference"))
    return "\n".join(line for _, line in lines)


Lines = list[tuple[str, str]]
"""Lines of a docstring, each behind the name of its section."""


def _extended(lines: Lines, name: str, more: list[str], before: tuple[str, ...]) -> Lines:
    """The lines with more of them in a section, which is put ahead of others where there is none yet."""
    if not more:
        return lines
    end = max((i + 1 for i, (section, line) in enumerate(lines) if section == name and line), default=0)
    if end:
        return [*lines[:end], *((name, line) for line in more), *lines[end:]]
    here = next((i for i, (section, _) in enumerate(lines) if section in before), None)
    added = [(name, line) for line in (f"{name}:", *more)]
    return [*lines, ("", ""), *added] if here is None else [*lines[:here], *added, ("", ""), *lines[here:]]


def _section(cls: type, wanted: str) -> list[str]:
    """The lines of a section below its heading, empty ones aside."""
    return [line for name, line in _lines(cls) if name == wanted and line][1:]


def _wrapped(entry: str) -> str:
    return textwrap.fill(entry, 116, initial_indent="    ", subsequent_indent=" " * 8, break_on_hyphens=False)


def first_paragraph(text: str) -> str:
    """The text up to the first empty line."""
    return text.split("\n\n")[0]


def _lines(cls: type) -> Iterator[tuple[str, str]]:
    """Each line of the docstring with the name of its section, ``"rest"`` for paragraphs behind one."""
    name, begun = "", False
    for line in (inspect.cleandoc(cls.__doc__) if cls.__doc__ else "").splitlines():
        heading = HEADING.fullmatch(line)
        if heading:
            name, begun = heading[1] or heading[3], bool(heading[1])
        elif name and ((begun and not line) or (not begun and line and not line.startswith(" "))):
            name, begun = "rest", False
        yield name, line


def _documented(cls: type) -> dict[str, str]:
    """The arguments in the docstring of one class, each with its text in one line."""
    found: dict[str, str] = {}
    names: tuple[str, ...] = ()
    for section, line in _lines(cls):
        entry = re.fullmatch(r" {4}(\w+(?:, \w+)*): (.+)", line)
        if section != "Args" and not section.startswith("Keyword arguments"):
            continue
        if entry:
            names = tuple(entry[1].split(", "))
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _joined(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
