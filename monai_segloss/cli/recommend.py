"""``segloss recommend``: which losses to compare on a data set."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from monai_segloss.experiment.fingerprint import Fingerprint
    from monai_segloss.experiment.recommend import Suggestion


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(recommend)


def recommend(
    dataset: Annotated[Path, typer.Argument(help="nnU-Net raw data set or Decathlon datalist; it is not changed.")],
    results: Annotated[
        Path | None, typer.Option(help="Folder of a comparison; its results for these losses are shown too.")
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Number of labels to read, evenly spread over the cases.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List losses to compare with dice_ce on a data set, each with its reason, its source and the command that tests it.

    Example: segloss recommend nnUNet_raw/Dataset004_Hippocampus
    """
    from rich.console import Console
    from rich.progress import Progress

    try:
        from monai_segloss.experiment import recommend as module
        from monai_segloss.experiment.fingerprint import fingerprint
    except ImportError as error:
        typer.echo(f"Error: {error}: pip install 'monai-segloss[compare]'.", err=True)
        raise typer.Exit(2) from None
    try:
        evidence = module.measured(results) if results else None
        bars = Console(stderr=True)
        with Progress(console=bars, transient=True, disable=not bars.is_terminal) as bar:
            task = bar.add_task("reading labels", total=None)
            found = fingerprint(dataset, cases, lambda done, count: bar.update(task, completed=done, total=count))
        suggested = module.recommend(found, evidence)
    except (ValueError, OSError) as error:
        typer.echo(f"Error: {str(error)[:1].upper()}{str(error)[1:]}", err=True)
        raise typer.Exit(2) from None
    notes, keys = module.notes(found), [each.key for each in suggested]
    if as_json:
        losses = [{**asdict(each), "command": module.command(dataset, [each.key])} for each in suggested]
        content = {
            "fingerprint": asdict(found),
            "losses": losses,
            "notes": notes,
            "command": module.command(dataset, keys),
        }
        typer.echo(json.dumps(content, indent=2))
        return
    _print(Console(highlight=False), found, suggested, evidence is not None)
    for each in suggested:
        typer.echo(f"  {module.command(dataset, [each.key])}")
    typer.echo(f"All in one:\n  {module.command(dataset, keys)}\n")
    for note in notes:
        typer.echo(f"note: {note}")


def _print(out: Console, found: Fingerprint, suggested: list[Suggestion], measured: bool) -> None:
    """What was seen, and the losses."""
    from rich.table import Table
    from rich.text import Text

    edges = " by ".join(f"{edge:.3g}" for edge in found.spacing)
    table = Table(title=f"{found.cases} cases, {found.dimensions}-D, {edges} mm", title_justify="left")
    unit = "mm³" if found.dimensions == 3 else "mm²"
    for column in ("class", "voxels", "in cases", "components", f"size [{unit}]", "length / width"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for each in found.classes:
        sizes = (f"{each.components:.0f}", f"{each.size:.3g}", f"{each.elongation:.1f}")
        shown = [size.replace("nan", "-") for size in sizes]
        table.add_row(Text(each.name), f"{each.share:.3%}", f"{each.present:.0%}", *shown)
    out.print(table)
    for suggestion in suggested:
        lines = {"reason": suggestion.reason, "known": suggestion.when, "source": suggestion.source}
        if measured:
            lines["measured"] = suggestion.evidence or "not in these results"
        out.print(f"\n[bold]{suggestion.key}[/]")
        for name, text in lines.items():
            out.print(Text(f"  {name}: {text}"), soft_wrap=True)
    out.print("\nCompare them with dice_ce:")
