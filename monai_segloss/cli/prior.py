"""``segloss prior``: networks that losses take along, trained beforehand on labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_segloss.cli.nnunet import MISSING, fail, installed, plans_file, refuse_old
from monai_segloss.files import read_json

KINDS = ("autoencoder", "label-unet", "inverse-form")
"""Those of `monai_segloss.core.prior`, which imports torch; a test compares them."""

app = typer.Typer(help="Train and show the priors of losses.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add the ``prior`` commands."""
    parent.add_typer(app, name="prior")


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="Id or name of a data set that nnU-Net has preprocessed.")],
    kind: Annotated[str, typer.Option(help=f"Kind of the prior: {', '.join(KINDS)}.")],
    fold: Annotated[str, typer.Option(help="Fold whose training cases it sees, or: all.")] = "0",
    plans: Annotated[str, typer.Option(help="Plans identifier.")] = "nnUNetPlans",
    configuration: Annotated[str, typer.Option(help="Configuration whose patch and spacing it has.")] = "3d_fullres",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps; default: as many as usual for the kind.")] = None,
    output: Annotated[Path | None, typer.Option(help="File; default: alongside the plans of the data set.")] = None,
    device: Annotated[str, typer.Option(help="Device to train on, e.g. cpu or cuda.")] = "cpu",
) -> None:
    """Train a prior on the labels of the training cases of one fold; a killed training goes on.

    The nnU-Net trainer of a loss with a prior does the same before its first epoch, where the loss is given no file.

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
def adjacency(
    dataset: Annotated[str, typer.Argument(help="Id or name of a data set that nnU-Net has preprocessed.")],
    fold: Annotated[str, typer.Option(help="Fold whose training cases are looked at, or: all.")] = "0",
    radius: Annotated[int, typer.Option(min=1, help="Voxels to each side within which classes touch.")] = 1,
    plans: Annotated[str, typer.Option(help="Plans identifier.")] = "nnUNetPlans",
    configuration: Annotated[str, typer.Option(help="Configuration whose spacing the labels have.")] = "3d_fullres",
    output: Annotated[Path | None, typer.Option(help="File; default: alongside the plans of the data set.")] = None,
) -> None:
    """Count which classes touch in the training labels of one fold, in whole volumes: what non_adjacency may forbid.

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
        raise typer.BadParameter(f"{fold!r} is no number and not all.", param_hint="--fold")
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
