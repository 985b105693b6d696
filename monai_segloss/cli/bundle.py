"""``segloss bundle``: where the MONAI bundles are, what a loss looks like in one, a copy to work in."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Use the losses in MONAI bundles.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add the ``bundle`` commands."""
    parent.add_typer(app, name="bundle")


@app.command("list")
def list_() -> None:
    """List the bundles of this installation and the losses they have an overlay for.

    Example: segloss bundle list
    """
    from monai_segloss.bundle import bundles

    for path in bundles():
        typer.echo(f"{path.name}  {path}")
        typer.echo(f"  losses: {', '.join(file.stem for file in sorted(path.glob('configs/losses/*.json')))}")


@app.command()
def show(key: Annotated[str, typer.Argument(help="Key of a loss (segloss list).")]) -> None:
    """Show the overlay file that puts a loss into a bundle, and the command that trains with it.

    Example: segloss bundle show focal_tversky
    """
    from monai_segloss import find
    from monai_segloss.bundle import bundle_path, overlay
    from monai_segloss.core.errors import UnknownLoss

    try:
        info = find(key)
    except UnknownLoss as error:
        raise typer.BadParameter(str(error), param_hint="KEY") from None
    configs = bundle_path() / "configs"
    file = configs / "losses" / f"{info.key}.json"
    typer.echo(f"{file}\n{json.dumps(overlay(info), indent=2)}\n")
    typer.echo(
        f"python -m monai.bundle run --config_file \"['{configs / 'train.json'}','{file}']\" "
        f"--bundle_root RUN_DIR --dataset_dir DATA_DIR"
    )


@app.command()
def copy(
    folder: Annotated[Path, typer.Argument(help="New folder.")],
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "segloss_segmentation",
) -> None:
    """Copy a bundle into a folder of your own, where training writes its models.

    Example: segloss bundle copy my_bundle
    """
    from monai_segloss.bundle import bundle_path

    try:
        source = bundle_path(name)
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0]), param_hint="--name") from None
    if folder.exists():
        raise typer.BadParameter(f"{folder} exists; name a new folder.", param_hint="FOLDER")
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("*.pt", "eval", "__pycache__"))
    os.replace(partial, folder)
    typer.echo(f"Copied {name} to {folder}. Train with:")
    typer.echo(f"cd {folder} && python -m monai.bundle run --config_file configs/train.json --dataset_dir DATA_DIR")
