"""References in free text, as docstrings and recipes have them, to BibTeX."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from monai_segloss.core.docstring import IDENTIFIER

PACKAGE = {
    "author": "{The monai-segloss contributors}",
    "title": "monai-segloss: segmentation losses for {MONAI}, {nnU-Net} and {MONAI} bundles",
    "year": "2026",
}
"""This package; the file CITATION.cff says the same."""
NAME = r"(?:[a-z]+ )*[^\W\d_a-z][\w'\u2019-]*(?: [^\W\d_a-z][\w'\u2019-]*)?"
AUTHORS = re.compile(rf"(?:(?:.*; )?[^,;]* of |.*, after )?({NAME}(?:, {NAME})*(?: et al\.| & {NAME})?), (.*)")
AS_IS = ("doi", "eprint", "url")
VOLUME = re.compile(r" \d+(\(\d+\))?$")
YEAR = re.compile(r"(?P<where>.*?),? ?\b(?P<year>(?:19|20)\d\d)\b")


def bibtex(references: str, identifiers: str = "") -> list[str]:
    """BibTeX entries of references that are divided by semicolons.

    Authors, title, venue, year and number are taken from the text, which stays whole as a note.  Entries are of the type
    ``misc``, since the text does not say whether a venue is a journal.

    Args:
        references: "Authors, title, venue year, number; ...".
        identifiers: arXiv number or DOI that stands elsewhere, of the first reference.

    Example:
        >>> print(bibtex("Lin et al., Focal loss for dense object detection, ICCV 2017, arXiv:1708.02002")[0])
        @misc{lin2017,
          author = {Lin and others},
          title = {{Focal loss for dense object detection}},
          howpublished = {ICCV},
          year = {2017},
          eprint = {1708.02002},
          archivePrefix = {arXiv},
          note = {Lin et al., Focal loss for dense object detection, ICCV 2017, arXiv:1708.02002}
        }
    """
    texts = [text for text in re.split(r"; (?=[^\W\d_a-z])", references) if text]
    found = [_fields(text, identifiers if not i else "") for i, text in enumerate(texts)]
    known = [fields for fields in found if fields.keys() - {"author", "title", "note"}]  # others name no publication
    keys = [_key(fields, str(i + 1)) for i, fields in enumerate(known)]
    more = [chr(ord("a") + keys[:i].count(key)) if keys.count(key) > 1 else "" for i, key in enumerate(keys)]
    return [_entry(key + letter, fields) for key, letter, fields in zip(keys, more, known, strict=True)]


def package_bibtex() -> str:
    """The BibTeX entry of this package, in the version that is installed."""
    fields = {**PACKAGE, "note": "Python package"}
    with suppress(PackageNotFoundError):  # sources that were not installed
        fields["version"] = version("monai-segloss")
    return _entry("monai_segloss", fields, "software")


def _fields(text: str, identifier: str) -> dict[str, str]:
    """What a reference says."""
    fields: dict[str, str] = {}
    number = IDENTIFIER.search(text)
    body = re.sub(r"\s*\([^)]*\)", lambda x: x[0] if x[0].strip("( )").isdigit() else "", IDENTIFIER.split(text)[0])
    authors = AUTHORS.match(body)
    if authors:
        fields["author"] = _authors(authors[1])
        parts = authors[2].strip(" ,.").split(", ")
        place = next((i for i, part in enumerate(parts) if YEAR.search(part)), len(parts))
        titled = bool(place and parts[0] and not VOLUME.search(parts[0]))
        if titled:
            fields["title"] = f"{{{parts[0]}}}"
        dated = YEAR.match(", ".join(parts[titled : place + 1]))
        if dated:
            fields |= {"howpublished": dated["where"], "year": dated["year"]}
    kind, _, value = (number[0] if number else identifier).partition(":")
    if kind == "arXiv":
        fields.setdefault("year", f"20{value[:2]}")
        fields |= {"eprint": value, "archivePrefix": "arXiv"}
    elif kind == "doi":
        fields["doi"] = value
    elif kind == "openreview":
        fields["url"] = f"https://openreview.net/forum?id={value}"
    fields["note"] = text
    return {name: value for name, value in fields.items() if value}


def _authors(text: str) -> str:
    names = re.split(r", | & ", text.removesuffix(" et al."))
    return " and ".join([*(f"{{{n}}}" if " " in n else n for n in names), *["others"] * text.endswith("et al.")])


def _key(fields: dict[str, str], number: str) -> str:
    name = re.match(r"\{?([^ }]*(?: [^ }]+)?)", fields.get("author", "reference"))
    plain = unicodedata.normalize("NFKD", (name[1] if name else "").split(" and")[0]).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z]", "", plain.lower()) + fields.get("year", number)


def _entry(key: str, fields: dict[str, str], kind: str = "misc") -> str:
    lines = ",\n".join(
        f"  {name} = {{{value if name in AS_IS else _escaped(value)}}}" for name, value in fields.items()
    )
    return f"@{kind}{{{key},\n{lines}\n}}"


def _escaped(value: str) -> str:
    """Signs that TeX reads otherwise."""
    return re.sub(r"(?<!\\)[&%#_]", r"\\\g<0>", value)
