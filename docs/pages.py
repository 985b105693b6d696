"""Generated pages of the site: the sections of a loss, the gallery, the reference of Python names and of commands."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from monai_segloss import LossInfo
from monai_segloss.core import module as core
from monai_segloss.core.docstring import description
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.registry import EVERYTHING

REFERENCE = {
    "monai_segloss": "monai_segloss._public",
    **{f"monai_segloss.{name}": f"monai_segloss.{name}" for name in (
        "schedules", "maps", "transforms", "engine", "datalist", "bundle", "testing"
    )},
    "monai_segloss.core.card": "monai_segloss.core.card",
}  # fmt: skip
"""Public modules, and where their names are written down."""
SHARED = {name: hint.__forward_arg__ for name, hint in FormulaArgs.__annotations__.items()}
"""Types of the arguments of every loss."""
LONG = 80
"""Characters of a type from which on its short name is clearer."""
PROPERTIES = {"compiles": "one graph", "second_derivatives": "second derivative"}
"""Properties of the contract that stand in the tables of what a loss supports."""


def markdown(text: str) -> str:
    """A sentence of a docstring: code in single backticks, other signs as they are."""
    parts = text.replace("``", "`").split("`")
    return "`".join(part if i % 2 else re.sub(r"[*<|]", r"\\\g<0>", part) for i, part in enumerate(parts))


def parameter_table(info: LossInfo) -> list[str]:
    """Name, type, default and meaning of each argument."""
    lines = ["| parameter | type | default | what it is |", "| --- | --- | --- | --- |"]
    for name, parameter in info.parameters.items():
        own = SHARED[name] if parameter.annotation is parameter.empty else parameter.annotation
        kind = spelled(own, inspect.unwrap(info.cls.__init__).__globals__)
        default = "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        cells = (f"`{name}`", f"`{kind}`", default, markdown(info.arguments[name]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def spelled(annotation: str, names: dict[str, Any]) -> str:
    """An annotation with short names of types written out, or as it stands where that is long or unknown."""
    try:
        found = eval(annotation, {**vars(core), **names})
    except NameError:  # for type checkers only
        return annotation
    full = re.sub(r"[a-z_.]+\.(?=[A-Z])", "", found.__name__ if isinstance(found, type) else str(found))
    full = re.sub(r"Literal\[(.*?)\]", lambda choice: choice[1].replace(", ", " | "), full)
    return full if len(full) <= LONG else annotation


def prose(info: LossInfo) -> list[str]:
    """The explanations of the docstring, what raises, and the example."""
    lines: list[str] = []
    for block in re.split(r"\n\n(?=\S)", description(info.cls)):
        head, _, rest = block.partition("\n")
        if head == "Example:":
            lines += ["```pycon", *textwrap.dedent(rest).splitlines(), "```", ""]
        elif head == "Raises:":
            lines += [f"**Raises.** {markdown(' '.join(rest.split()))}", ""]
        elif block:
            lines += [markdown(" ".join(block.split())), ""]
    return lines


def support_cells(info: LossInfo) -> list[str]:
    """What a loss supports, as cells of a table."""
    known = [what in info.support for what in EVERYTHING]
    return ["yes" if each else "-" for each in (*known, *(name not in info.exempt for name in PROPERTIES))]


def support_table(info: LossInfo) -> list[str]:
    """One row with what the loss supports, and the reasons of what it does not."""
    columns = [*EVERYTHING, *PROPERTIES.values()]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}", f"| {' | '.join(support_cells(info))} |", ""]
    return lines + [f"- Without the property `{name}` of the contract: {why}" for name, why in info.exempt.items()]


def gallery_page(losses: Iterable[LossInfo], caption: str) -> str:
    """All figures, by family."""
    lines = ["# Gallery", "", caption, ""]
    families: dict[str, list[LossInfo]] = {}
    for info in losses:
        families.setdefault(info.family, []).append(info)
    for family in sorted(families):
        lines += [f"## {family.capitalize()}", "", '<div class="gallery" markdown>', ""]
        for info in families[family]:
            figure = f"![Value and gradient of {info.key}](images/losses/{info.key}.svg)"
            lines += [f"[{figure} {info.key}](losses/{info.key}.md)", ""]
        lines += ["</div>", ""]
    return "\n".join(lines)


EXAMPLES = ("own_loss", "train_nnunet", "bundle_dicom", "vessel_topology", "compare_losses", "losses_in_a_notebook")
"""The examples in the order of their page."""


def examples_page(folder: Path) -> str:
    """What each example shows and needs, a picture where there is one, and its code."""
    lines = [
        "# Examples",
        "",
        "Each is a program of this repository that continuous integration runs on small data.",
        "",
    ]
    for name in EXAMPLES:
        file = next(folder.glob(f"{name}.*"))
        title, text, code = _notebook(file) if file.suffix == ".ipynb" else _script(file)
        lines += [f"## {title.rstrip('.')}", "", text, ""]
        if (folder.parent / "docs" / "images" / "examples" / f"{name}.png").exists():
            lines += [f"![What the example draws](../docs/images/examples/{name}.png)", ""]
        lines += [f'??? example "examples/{file.name}"', "", textwrap.indent(code, "    "), ""]
    return "\n".join(lines)


def _script(file: Path) -> tuple[str, str, str]:
    """First line and rest of the docstring, and the code below it."""
    source = file.read_text(encoding="utf-8")
    about = ast.get_docstring(ast.parse(source)) or ""
    title, _, text = about.partition("\n\n")
    code = source.partition('"""')[2].partition('"""')[2].strip()
    return title, text, f"```python\n{code}\n```"


def _notebook(file: Path) -> tuple[str, str, str]:
    """Heading and text of the first cell, and the others."""
    first, *others = json.loads(file.read_text(encoding="utf-8"))["cells"]
    title, _, text = "".join(first["source"]).removeprefix("# ").partition("\n\n")
    parts = [(cell["cell_type"], "".join(cell["source"])) for cell in others]
    shown = [f"```python\n{part}\n```" if kind == "code" else part.replace("## ", "#### ") for kind, part in parts]
    return title, text, "\n\n".join(shown)


def public_names(module: ModuleType) -> list[str]:
    """Names of ``__all__``, else those that are defined in the package; losses have pages of their own."""
    from monai_segloss.core.registry import LOSSES

    here = module.__name__
    inside = [n for n, x in vars(module).items() if n[0] != "_" and getattr(x, "__module__", "").startswith(here)]
    own = {info.cls.__name__ for info in LOSSES.values()}
    return sorted(set(getattr(module, "__all__", inside)) - own - set(typing.__all__))


def reference_pages() -> dict[str, str]:
    """A page for each public module, an entry for each of its names, by file name."""
    index = ["# Python reference", "", "Each loss has [a page of its own](../losses.md).", ""]
    index += ["| module | what | names |", "| --- | --- | --- |"]
    pages = {}
    for name, source in REFERENCE.items():
        module, shown = importlib.import_module(source), importlib.import_module(name)
        names = public_names(module)
        file = f"{name.rpartition('.')[2]}.md"
        what = (shown.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
        links = ", ".join(f"[`{each}`]({file}#{source}.{each})" for each in names)
        index.append(f"| [{name}]({file}) | {markdown(what)} | {links} |")
        entries = [f"::: {source}.{each}\n    options:\n      heading: {each}\n" for each in names]
        pages[file] = "\n".join([f"# {name}", "", markdown(what), "", *entries])
    return {"index.md": "\n".join([*index, ""]), **pages, "commands.md": command_page()}


def command_page() -> str:
    """The command line, as its help says."""
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from monai_segloss.cli import app

    command: Any = get_command(app)
    text = get_docs_for_click(obj=command, ctx=Context(command, info_name="segloss"), name="segloss")
    return re.sub(r"^# `segloss`", "# Commands", text, count=1)
