"""Structure and length of the paper for the Journal of Open Source Software, as its guide for authors asks for them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

PAPER = Path(__file__).resolve().parent.parent / "paper"
_, HEAD, BODY = (PAPER / "paper.md").read_text(encoding="utf-8").split("---\n", 2)
META = yaml.safe_load(HEAD)


def test_the_head_has_what_the_journal_reads() -> None:
    assert META.keys() >= {"title", "tags", "authors", "affiliations", "date", "bibliography"}
    indices = {each["index"] for each in META["affiliations"]}
    assert all(each["affiliation"] in indices for each in META["authors"])
    assert (PAPER / META["bibliography"]).is_file()


def test_sections_and_length() -> None:
    sections = re.findall(r"^# (.+)$", BODY, re.MULTILINE)
    assert {"Summary", "Statement of need", "State of the field"} <= set(sections)
    assert sections[-1] == "References"
    words = re.findall(r"[^\W_]+(?:[-'.][^\W_]+)*", re.sub(r"\[@[^]]*\]", "", BODY))
    assert 250 <= len(words) <= 1000, len(words)


def test_every_citation_has_an_entry_and_every_entry_is_cited() -> None:
    entries = re.findall(r"^@\w+\{(\w+),", (PAPER / "paper.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(entries)) == len(entries)
    assert set(re.findall(r"@(\w+)", BODY)) == set(entries)
