"""What the docstring of a loss says: its summary and the sections that the registry reads."""

from __future__ import annotations

import inspect
import re

IDENTIFIER = re.compile(r"\b(?:arXiv|doi|openreview|PMLR)[: ][^\s;,)]+[^\s;,.)]")
"""An arXiv number, a DOI and the like, as they stand in a reference."""


def sections(cls: type) -> dict[str, str]:
    """The paragraphs of each section of a class docstring, ``""`` the ones before the first section; lines joined.

    A section begins with a line such as ``When:`` and is indented below it.  Without docstrings (``python -OO``) all are
    empty.
    """
    found = {"": "", "Formula": "", "When": "", "Reference": ""}
    name = ""
    for line in (inspect.cleandoc(cls.__doc__) if cls.__doc__ else "").splitlines():
        if re.fullmatch(r"[A-Z][a-z]+:", line):
            name = line[:-1]
            found[name] = ""
        elif line and not line.startswith(" ") and name:
            name = "rest"
            found[name] = found.get(name, "") + line + "\n"
        else:
            found[name] += line.strip() + "\n"
    return {name: _joined(text) for name, text in found.items()}


def description(cls: type) -> str:
    """The docstring without what `sections` reads of it: what remains are explanations, arguments and the example."""
    kept, skipping, first = list[str](), False, True
    for line in (inspect.cleandoc(cls.__doc__) if cls.__doc__ else "").splitlines():
        if first:  # the summary
            first = bool(line)
            continue
        if line and not line.startswith(" "):
            skipping = line[:-1] in ("Formula", "When", "Reference") and line.endswith(":")
        if not skipping:
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def first_paragraph(text: str) -> str:
    """The text up to the first empty line."""
    return text.split("\n\n")[0]


def _joined(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
