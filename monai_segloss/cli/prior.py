"""``segloss prior``: what losses take along of the labels of a fold: networks that were trained on them, and bounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from monai_segloss.cli.nnunet import MISSING, PREPROCESSED, fail, installed, plans_file, refuse_old
from monai_segloss.files import read_json, write_json

KINDS = ("autoencoder", "label-unet", "inverse-form")
"""Those of `monai_segloss.core.prior`, which imports torch; a test compares them."""
RAW = "nnUNet_raw"

app = typer.Typer(help="Train, measure and show the priors of losses.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add the ``prior`` commands."""
    parent.add_typer(app, name="prior")


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="Id or name of a data set that nnU-Net has preprocessed.")],
    kind: Annotated[str, typer.Option(help=f"Kind of the prior: {', '.join(KINDS)}.")],
    fold: Annotated[str, typer.Option(help="Fold whose training cases the prior is trained on, or: all.")] = "0",
    plans: Annotated[str, typer.Option(help="Plans identifier.")] = "nnUNetPlans",
    configuration: Annotated[
        str, typer.Option(help="Configuration that gives the patch and the spacing.")
    ] = "3d_fullres",
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; default: depends on the kind.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Output file; default: next to the plans of the data set.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device to train on, e.g. cpu or cuda.")] = "cpu",
) -> None:
    """Train a prior on the labels of the training cases of one fold. Run it again to continue a killed training.

    If a loss has no prior file, its nnU-Net trainer does the same before the first epoch.

    Example: segloss prior train 4 --kind autoencoder --fold 0
    """
    if kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}.", param_hint="--kind")
    file = planned(dataset, fold, plans, configuration)
    output = output or file.with_name(f"prior_{kind}_{plans}_{configuration}_fold_{fold}.safetensors")
    from monai_segloss.core.prior import PriorError
    from monai_segloss.core.taps import TapError
    from nnunet_trainers.prior import train_for_plans

    try:
        train_for_plans(file, configuration, fold, kind, output, steps, device)
    except (PriorError, TapError, OSError) as error:
        fail(str(error))
    typer.echo(f"Use it with: segloss nnunet plan {dataset} {configuration} NAME --loss KEY --set 'prior=\"{output}\"'")


@app.command()
def bounds(
    dataset: Annotated[
        str, typer.Argument(help="nnU-Net raw data set: its folder, id or name; or a Decathlon datalist.")
    ],
    fold: Annotated[str, typer.Option(help="Fold whose training cases are measured, or: all.")] = "0",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Output file; default: print to the terminal.")
    ] = None,
    lower: Annotated[float, typer.Option(min=0, max=1, help="Quantile that is the lower bound.")] = 0.0,
    upper: Annotated[float, typer.Option(min=0, max=1, help="Quantile that is the upper bound.")] = 1.0,
    axes: Annotated[str, typer.Option(help="Order of the axes: zyx, as nnU-Net has it, or xyz, as MONAI.")] = "zyx",
    splits: Annotated[
        Path | None,
        typer.Option(help="File of splits; default: the one of the preprocessed data set, or nnU-Net's own."),
    ] = None,
) -> None:
    """Measure sizes, moments and Betti numbers of the labels of the training cases of one fold, as JSON.

    Labels of validation cases are not opened. The losses size_penalty, log_barrier and moment_constraint take the file as
    the argument bounds, betti_prior as the argument betti.

    Example: segloss prior bounds 4 --fold 0 --output bounds.json
    """
    import json

    from rich.console import Console
    from rich.progress import Progress

    from monai_segloss.checking.bounds import bounds_of_fold

    if fold != "all" and not fold.isdecimal():
        raise typer.BadParameter(f"must be a number or 'all', got {fold!r}.", param_hint="--fold")
    folder = raw_folder(dataset)
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("reading labels", total=None)
            found = bounds_of_fold(
                folder,
                fold if fold == "all" else int(fold),
                splits or splits_file(folder),
                axes,
                (lower, upper),
                lambda done, count: bar.update(task, completed=done, total=count),
            )
    except (ValueError, OSError) as error:
        fail(str(error))
    if output is None:
        typer.echo(json.dumps(found, indent=2))
        return
    write_json(output, found)
    count = len(found["cases"])
    typer.echo(
        f"Wrote {output}: {count} training cases of fold {fold}. Use it with --set 'bounds=\"{output}\"', "
        f"with betti_prior --set 'betti=\"{output}\"'"
    )


def raw_folder(dataset: str) -> Path:
    """The folder of a raw data set, or exit code 1 with what is missing."""
    if Path(dataset, "dataset.json").is_file():
        return Path(dataset)
    root = os.environ.get(RAW)
    if not root or not Path(root).is_dir():
        fail(
            f"{dataset} is not a folder with a dataset.json, and the variable nnUNet_raw names no folder of data sets."
        )
    names = sorted(each.parent.name for each in Path(root).glob("*/dataset.json"))
    wanted = f"Dataset{int(dataset):03d}_" if dataset.isdecimal() else f"{dataset}/"
    chosen = [name for name in names if f"{name}/".startswith(wanted)]
    if len(chosen) != 1:
        fail(f"{root} has {len(chosen)} data sets {dataset!r}; expected one of {', '.join(chosen or names) or 'some'}.")
    return Path(root, chosen[0])


def splits_file(folder: Path) -> Path | None:
    """The file of splits that nnU-Net uses for a data set, if there is one."""
    root = os.environ.get(PREPROCESSED)
    file = Path(root or ".", folder.resolve().name, "splits_final.json")
    return file if root and file.is_file() else None


@app.command()
def adjacency(
    dataset: Annotated[str, typer.Argument(help="Id or name of a data set that nnU-Net has preprocessed.")],
    fold: Annotated[str, typer.Option(help="Fold whose training cases are read, or: all.")] = "0",
    radius: Annotated[int, typer.Option(min=1, help="Largest distance in voxels at which two classes touch.")] = 1,
    plans: Annotated[str, typer.Option(help="Plans identifier.")] = "nnUNetPlans",
    configuration: Annotated[str, typer.Option(help="Configuration that gives the spacing.")] = "3d_fullres",
    output: Annotated[
        Path | None, typer.Option(help="Output file; default: next to the plans of the data set.")
    ] = None,
) -> None:
    """Count which classes touch in the training labels of one fold, in whole volumes, for the loss non_adjacency.

    Example: segloss prior adjacency 4 --fold 0
    """
    file = planned(dataset, fold, plans, configuration)
    output = output or file.with_name(f"adjacency_{plans}_{configuration}_fold_{fold}_radius_{radius}.json")
    from monai_segloss.prior.adjacency import PriorError, write_adjacency
    from nnunet_trainers.adjacency import adjacency_for_plans

    try:
        found = adjacency_for_plans(file, configuration, fold, radius, lambda text: typer.echo(text, err=True))
        write_adjacency(found, output)
    except (PriorError, OSError) as error:
        fail(str(error))
    for line in found.lines():
        typer.echo(line)
    if found.apart:
        terms = f'{{"dice_ce": 1, "non_adjacency": {{"weight": 100, "radius": {radius}, "forbidden": "{output}"}}}}'
        typer.echo(f'Written to {output}. Use it with --config of `segloss nnunet plan`: {{"terms": {terms}}}')
    else:
        typer.echo(f"Written to {output}.")


def planned(dataset: str, fold: str, plans: str, configuration: str) -> Path:
    """The plans file of a data set, once fold and configuration are known to be right."""
    if fold != "all" and not fold.isdecimal():
        raise typer.BadParameter(f"must be a number or 'all', got {fold!r}.", param_hint="--fold")
    if not installed("nnunetv2"):
        fail(MISSING)
    refuse_old()
    file = plans_file(dataset, plans)
    known = read_json(file)["configurations"]
    if configuration not in known:
        fail(f"{file} has no configuration {configuration!r}; it has {', '.join(known)}.")
    return file


@app.command()
def show(file: Annotated[Path, typer.Argument(help="File of a prior.")]) -> None:
    """Print what a prior was trained on, and how good it is, as JSON.

    Example: segloss prior show prior_autoencoder.safetensors
    """
    import json
    from dataclasses import asdict

    from monai_segloss.core.prior import PriorError, read_prior

    try:
        header = read_prior(file).header
    except PriorError as error:
        fail(str(error))
    typer.echo(json.dumps(asdict(header), indent=2))
