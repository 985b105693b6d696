"""``segloss compare``: which loss, by a comparison that a reviewer accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from monai_segloss.cli import compare_run

app = typer.Typer(
    no_args_is_help=True,
    help="Compare losses on your data. The tests are paired by patient and corrected for the number of losses.",
)


def register(parent: typer.Typer) -> None:
    """Add the group to the command."""
    compare_run.register(app)
    parent.add_typer(app, name="compare")


@app.command()
def existing(
    folders: Annotated[
        list[str],
        typer.Argument(
            help="Model folders of nnU-Net or folders of predictions; ARM=FOLDER or ARM@SEED=FOLDER names the arm."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for tables and report.")] = Path("comparison"),
    labels: Annotated[
        Path | None, typer.Option(help="Folder with the reference labels; default: nnU-Net's own.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with the images, for figures; default: imagesTr next to the labels.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The arm to compare with; default: that with the most runs.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Tolerance of the surface Dice, in mm.")] = 1.0,
    sizes: Annotated[str, typer.Option(help="Edges of the size classes of components, in mm³: 100,1000.")] = "",
    tubes: Annotated[bool, typer.Option(help="Also measure centerline Dice and Betti numbers.")] = False,
    patients: Annotated[Path | None, typer.Option(help="JSON file: name of a case -> name of its patient.")] = None,
    margin: Annotated[
        float, typer.Option(help="Smallest difference that matters, for the verdict equivalent; 0: no such verdict.")
    ] = 0.0,
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, help="Cases to measure at a time.")] = 1,
) -> None:
    """Compare finished trainings, also those that another program made.

    Example: segloss compare existing nnUNet_results/Dataset004_Hippocampus -o comparison
    """
    from rich.console import Console
    from rich.progress import Progress

    from monai_segloss.experiment import measuring, sources
    from monai_segloss.experiment.analysis import analyze
    from monai_segloss.experiment.measures import Options
    from monai_segloss.experiment.report import publish
    from monai_segloss.experiment.statistics import Settings

    out = Console(highlight=False)
    try:
        edges = _numbers("--sizes", sizes)
        options, settings = Options(tolerance, edges, tubes), Settings(margin=margin)
        known = None if patients is None else json.loads(patients.read_text(encoding="utf-8"))
        runs = sources.find(folders, labels, images)
        with Progress(console=out, transient=True) as bar:
            task = bar.add_task("measuring", total=len(runs))
            tables = measuring.measure_runs(runs, output, options, known, processes, lambda source: bar.advance(task))
        analysis = analyze(tables, baseline, settings)
        page = publish(output, tables, analysis, settings)
    except (ValueError, OSError) as error:
        raise _stop(error) from None
    print_analysis(out, analysis)
    out.print(f"report: {page}", soft_wrap=True, markup=False)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison; it contains the folder tables.")],
    baseline: Annotated[
        str | None, typer.Option(help="The arm to compare with; default: that with the most runs.")
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Smallest difference that matters, for the verdict equivalent; 0: no such verdict.")
    ] = 0.0,
) -> None:
    """Write the report again from the tables: report.html, report.md and the figures.

    Example: segloss compare report comparison --baseline dice_ce --margin 0.01
    """
    from monai_segloss.experiment.report import write
    from monai_segloss.experiment.statistics import Settings

    try:
        page = write(folder, baseline, Settings(margin=margin))
    except (ValueError, OSError) as error:
        raise _stop(error) from None
    typer.echo(f"report: {page}")


def _stop(error: Exception) -> typer.Exit:
    """The end of the command, with the error in one sentence."""
    typer.echo(f"Error: {str(error)[:1].upper()}{str(error)[1:]}", err=True)
    return typer.Exit(2)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(",") if each.strip())
    except ValueError:
        raise ValueError(f"{option} must be numbers with commas between them, got {text!r}.") from None


def print_analysis(out: object, analysis: object) -> None:
    """The differences of the mean over classes, and what cannot be said."""
    from rich.console import Console
    from rich.table import Table

    from monai_segloss.experiment.analysis import Analysis
    from monai_segloss.experiment.measures import MEASURES
    from monai_segloss.experiment.tables import HALF, MEAN

    assert isinstance(out, Console)
    assert isinstance(analysis, Analysis)
    found = analysis.comparisons
    if len(found):
        found = found[(found["label"] == MEAN) & (found["point"] == HALF) & (found["stratum"] == "all")]
    for measure, part in found.groupby("measure", sort=False) if len(found) else ():
        facts = MEASURES[str(measure)]
        unit = f" [{facts.unit}]" if facts.unit else ""
        table = Table(title=f"{facts.words}{unit}, against {analysis.baseline}", title_justify="left")
        for column in ("arm", "mean", "difference", "95 % interval", "p (Holm)", "noise", "verdict"):
            table.add_column(column)
        for row in part.to_dict("records"):
            interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
            numbers = (
                f"{row['mean']:.3f}",
                f"{row['difference']:+.3f}",
                interval,
                f"{row['p_holm']:.3f}",
                f"{row['noise']:.3f}",
            )
            table.add_row(row["arm"], *numbers, row["verdict"])
        out.print(table)
    for warning in analysis.warnings:
        out.print(f"[yellow]note[/] {warning}", soft_wrap=True)
