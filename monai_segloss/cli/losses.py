"""``segloss list``, ``show``, ``check`` and ``schema``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from monai_segloss import LossInfo
    from monai_segloss.checking import Finding


def register(app: typer.Typer) -> None:
    """Add the commands about losses."""
    app.command("list")(list_)
    app.command()(show)
    app.command()(check)
    app.command()(schema)


def find_or_exit(key: str, recipes: Iterable[str] = (), hint: str = "KEY") -> LossInfo:
    """The registry entry, or a usage error that names the nearest keys, of recipes too."""
    import monai_segloss
    from monai_segloss.core.errors import nearest

    try:
        return monai_segloss.find(key)
    except KeyError as error:
        near = nearest(key, recipes)
        text = f"{error} Or a recipe{near}" if near else str(error)
        raise typer.BadParameter(text, param_hint=hint) from None


def list_(
    tag: Annotated[
        str | None, typer.Argument(help="Only losses of this family or tag, e.g. region, recall; or: recipes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List the losses with family, needs, paper and use; or the recipes, which are combinations that papers trained.

    Example: segloss list imbalance
    """
    from rich.console import Console
    from rich.table import Table

    import monai_segloss
    from monai_segloss.cli.recipes import list_recipes

    if tag == "recipes":
        list_recipes(as_json)
        return
    chosen = monai_segloss.list_losses(tag)
    if not chosen:
        known = sorted({t for info in monai_segloss.list_losses() for t in (info.family, *info.tags)})
        raise typer.BadParameter(f"no loss has the tag {tag!r}; tags are {', '.join(known)}.", param_hint="TAG")
    if as_json:
        typer.echo(json.dumps([_facts(info) for info in chosen], indent=2))
        return
    table = Table(title=f"{len(chosen)} losses", show_lines=True)
    for column in ("key", "family", "needs", "paper", "when to use"):
        table.add_column(column, overflow="fold", no_wrap=column == "key")
    for info in chosen:
        needs = ", ".join([*(spec.key for spec in info.needs), *info.taps]) or "-"
        table.add_row(info.key, info.family, needs, info.paper, info.when)
    Console().print(table)


def show(
    key: Annotated[str, typer.Argument(help="Key or alias of a loss (segloss list), or key of a recipe.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Explain a loss or a recipe: formula, parameters, support, source, and how to use it on each surface.

    Example: segloss show focal_tversky
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from monai_segloss.cli.recipes import show_recipe
    from monai_segloss.core.docstring import description
    from monai_segloss.recipes import RECIPES

    if key in RECIPES:
        show_recipe(key, as_json)
        return
    info = find_or_exit(key, RECIPES)
    if as_json:
        typer.echo(json.dumps(_facts(info), indent=2))
        return
    out = Console(highlight=False)
    out.print(f"[bold]{info.key}[/]  {info.summary}\n\n{info.when}\n")
    out.print("[bold]Definition[/]")
    text = f"  LaTeX: {info.formula}\n\n{description(info.cls)}"
    out.print(text, markup=False, soft_wrap=True)
    table = Table("parameter", "default", "what it is", title="Parameters", title_justify="left")
    for name, parameter in info.parameters.items():
        default = "required" if parameter.default is parameter.empty else repr(parameter.default)
        table.add_row(*map(Text, (name, default, info.arguments[name])))
    out.print("", table)
    out.print(f"[bold]Supports[/] {', '.join(info.support)}")
    if info.needs:
        out.print(f"[bold]Needs of the label[/] {', '.join(spec.key for spec in info.needs)}")
    if info.brings:
        taken = ", ".join(info.taps) or "nothing"
        out.print(f"[bold]Takes from the network[/] {taken}; trainers and bundles prepare it (docs/how-to/networks.md)")
    if info.cost:
        out.print(f"[bold]Cost of a step[/] {info.cost}")
    for name, reason in info.exempt.items():
        out.print(f"  without the property {name!r}: {reason}", markup=False)
    out.print(f"[bold]Source[/] {info.paper}.\n\n[bold]Use it[/]")
    for surface, line in info.surfaces().items():
        out.print(f"  {surface:<14}", end="")
        out.print(line, markup=False, soft_wrap=True)


def _facts(info: LossInfo) -> dict[str, Any]:
    empty = inspect.Parameter.empty
    parameters = {n: None if p.default is empty else p.default for n, p in info.parameters.items()}
    return {
        "key": info.key,
        "class": f"monai_segloss.{info.cls.__name__}",
        "family": info.family,
        "summary": info.summary,
        "when": info.when,
        "formula": info.formula,
        "paper": info.paper,
        "doi": info.doi,
        "aliases": info.aliases,
        "tags": info.tags,
        "needs": [spec.key for spec in info.needs],
        "taps": info.taps,
        "support": info.support,
        "cost": info.cost,
        "parameters": parameters,
        "exempt": {name: str(reason) for name, reason in info.exempt.items()},
        "use": info.surfaces(),
    }


def check(
    path: Annotated[
        Path, typer.Argument(help="An nnU-Net raw data set, a bundle folder, or a loss configuration file.")
    ],
    loss: Annotated[str | None, typer.Option(help="Also check whether this loss can train on the data set.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that open the files of a data set; default: depends on the size of the files."
        ),
    ] = None,
) -> None:
    """Check a data set, a bundle or a loss configuration before hours of training.

    Every image and label of a data set is opened. If nnU-Net is installed, its own check runs too.

    Example: segloss check nnUNet_raw/Dataset004_Hippocampus --loss focal_tversky
    """
    from monai_segloss import checking

    info = None if loss is None else find_or_exit(loss, hint="--loss")
    try:
        findings = checking.check(path, info, jobs)
    except checking.CannotCheck as error:
        raise typer.BadParameter(str(error), param_hint="PATH") from None
    print_findings(findings)


def print_findings(findings: list[Finding]) -> None:
    """One line each; exit code 1 where one is an error."""
    from rich.console import Console

    out = Console(highlight=False)
    style = {"error": "bold red", "warning": "yellow", "ok": "green"}
    for finding in findings:
        out.print(f"[{style[finding.level]}]{finding.level:>7}[/]  ", end="")
        out.print(finding.text, markup=False, soft_wrap=True)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def schema() -> None:
    """Print the JSON schema of a loss configuration.

    Example: segloss schema > loss.schema.json
    """
    from monai_segloss.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
