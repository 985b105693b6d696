"""MkDocs hooks: formulas become MathML while the site is built, so that a page loads no script for them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(div|span) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.DOTALL)

WRITTEN_OUT = {r"\arg": r"\mathrm{arg}\,"}
"""Commands that the converter does not know."""


def on_page_content(text: str, **_: Any) -> str:
    """Formulas of a page in LaTeX to MathML."""
    return FORMULA.sub(mathml, text)


def mathml(found: re.Match[str]) -> str:
    """One formula; a command that is not known ends the build."""
    latex = html.unescape(found[3]).strip()
    for command, same in WRITTEN_OUT.items():
        latex = re.sub(re.escape(command) + r"(?![A-Za-z])", lambda _, same=same: same, latex)
    made = convert(latex, display="block" if found[2] == "[" else "inline")
    if unknown := re.findall(r"<m[a-z]+>(\\[A-Za-z]+)</m", made):
        raise ValueError(f"{', '.join(unknown)} of the formula {latex!r} has no MathML.")
    return f'<{found[1]} class="formula">{made}</{found[1]}>'
