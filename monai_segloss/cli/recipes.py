"""``segloss list recipes`` and ``segloss show RECIPE``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from monai_segloss.recipes import Recipe

_BACKGROUND = "include_background"


def list_recipes(as_json: bool) -> None:
    """Print all recipes."""
    from rich.console import Console
    from rich.table import Table

    from monai_segloss.recipes import RECIPES

    if as_json:
        typer.echo(json.dumps([_facts(each) for each in RECIPES.values()], indent=2))
        return
    table = Table(title=f"{len(RECIPES)} recipes", show_lines=True)
    for column in ("key", "combination", "paper", "source of the figures"):
        table.add_column(column, overflow="fold", no_wrap=column == "key")
    for each in RECIPES.values():
        table.add_row(each.key, each.summary, each.paper, each.source)
    Console().print(table)


def show_recipe(key: str, as_json: bool) -> None:
    """Print one recipe: what it is, where it comes from, how to use it on each surface."""
    from rich.console import Console

    from monai_segloss.recipes import RECIPES

    found = RECIPES[key]
    if as_json:
        typer.echo(json.dumps(_facts(found), indent=2))
        return
    out = Console(highlight=False)
    out.print(f"[bold]{found.key}[/]  ", end="")
    out.print(f"{found.summary}\n\n{json.dumps(dict(found.content), indent=2)}\n", markup=False, soft_wrap=True)
    out.print(f"[bold]Source[/] {found.paper}. {found.doi}\n{found.source}\n", soft_wrap=True)
    out.print("[bold]Use it[/]")
    for surface, line in surfaces(found).items():
        out.print(f"  {surface:<14}", end="")
        out.print(line, markup=False, soft_wrap=True)


def surfaces(found: Recipe) -> dict[str, str]:
    """How a recipe is written on each surface."""
    from monai_segloss.bundle.overlays import component

    config = component(found.config)
    scored = {part[_BACKGROUND] for part in (config, *config.get("terms", {}).values()) if _BACKGROUND in part}
    reading = "softmax=True, to_onehot_y=True" + (f", {_BACKGROUND}=False" if scored == {False} else "")
    return {
        "Python": f'monai_segloss.recipe("{found.key}").build({reading})',
        "MONAI config": json.dumps(config),
        "nnU-Net": f"segloss nnunet plan DATASET 3d_fullres {found.key} --loss {found.key}",
        "": f"nnUNetv2_train DATASET 3d_fullres_{found.key} 0 -tr nnUNetTrainerSegLoss",
    }


def _facts(found: Recipe) -> dict[str, Any]:
    return {
        "key": found.key,
        "summary": found.summary,
        "paper": found.paper,
        "doi": found.doi,
        "source": found.source,
        "config": dict(found.content),
        "use": surfaces(found),
    }
