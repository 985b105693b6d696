"""``segloss bundle``: the MONAI bundles of this package, a bundle of your own, and our losses in another's bundle."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monai_segloss.cli.losses import find_or_exit
from monai_segloss.cli.options import loss_option

if TYPE_CHECKING:
    from monai_segloss import LossConfig

app = typer.Typer(help="Use the losses in MONAI bundles.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="New folder.")]
Name = Annotated[str, typer.Option(help="Name of the bundle to start from (segloss bundle list).")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", help="Argument of the loss as name=value; repeat for more.")
]
Term = Annotated[
    list[str] | None,
    typer.Option("--term", help="Term of a weighted sum as key=weight; repeat for more."),
]
Config = Annotated[Path | None, typer.Option(help="JSON or YAML file with a loss configuration instead.")]


def register(parent: typer.Typer) -> None:
    """Add the ``bundle`` commands."""
    parent.add_typer(app, name="bundle")


@app.command("list")
def list_() -> None:
    """List the bundles of this package. Each can train with any loss.

    Example: segloss bundle list
    """
    from monai_segloss.bundle import bundles

    for path in bundles():
        typer.echo(f"{path.name}  {path}")


@app.command()
def show(key: Annotated[str, typer.Argument(help="Key of a loss (segloss list).")]) -> None:
    """Show the overlay that puts a loss into a bundle, and the command that trains the bundle of this package with it.

    Example: segloss bundle show focal_tversky
    """
    from monai_segloss.bundle import bundle_path, overlay

    info = find_or_exit(key)
    typer.echo(f"{json.dumps(overlay(info), indent=2)}\n")
    train = _run(bundle_path() / "configs" / "train.json")
    typer.echo(f"{train} --loss_key {info.key} --bundle_root RUN_DIR --dataset_dir DATA_DIR")


@app.command()
def copy(folder: Folder, name: Name = "segloss_segmentation") -> None:
    """Copy a bundle with all its losses into your own folder. The training writes its models there.

    Example: segloss bundle copy my_bundle
    """
    _copy(folder, name, None)
    typer.echo(f"Copied {name} to {folder}. Train with:")
    typer.echo(f"cd {folder} && {_run('configs/train.json')} --dataset_dir DATA_DIR")


@app.command()
def make(
    folder: Folder,
    loss: Annotated[
        str | None, typer.Option(help="Key of a loss or recipe (segloss list, segloss list recipes).")
    ] = None,
    argument: Setting = None,
    term: Term = None,
    config: Config = None,
    name: Name = "segloss_segmentation",
) -> None:
    """Make a stand-alone bundle that trains with one loss, or with one weighted sum.

    Example: segloss bundle make my_bundle --loss focal_tversky --set gamma=2

    Example: segloss bundle make my_bundle --term dice=1 --term boundary=0.01
    """
    _copy(folder, name, loss_option(loss, argument or [], config, term or []))
    typer.echo(f"Made {folder}. Train with:")
    typer.echo(f"cd {folder} && {_run('configs/train.json')} --dataset_dir DATA_DIR")


@app.command()
def overlay(
    key: Annotated[
        str | None, typer.Argument(help="Key of a loss or recipe (segloss list, segloss list recipes).")
    ] = None,
    argument: Setting = None,
    term: Term = None,
    config: Config = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Folder of the bundle or its training configuration; the overlay is adapted to it."),
    ] = None,
    regions: Annotated[
        bool | None,
        typer.Option("--regions/--labels", help="Sigmoid per channel, or softmax over one label per voxel."),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            help="Voxel spacing for distances, in mm, in array axis order, as 1.5,1.5,2; 'affine': that of each label. "
            "Otherwise pixdim of the bundle's Spacingd, where it has one."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the file.")] = False,
) -> None:
    """Print or write an overlay: a configuration that makes another author's bundle train with a loss.

    Example: segloss bundle overlay boundary --bundle spleen_ct_segmentation -o boundary.json
    """
    from monai_segloss.bundle import generic_overlay
    from monai_segloss.checking import CannotCheck
    from monai_segloss.files import write_json

    chosen = loss_option(key, argument or [], config, term or [], hint="KEY")
    if output is not None and output.exists() and not replace:
        raise typer.BadParameter(f"{output} exists; name another file, or add --replace.", param_hint="--output")
    if output is not None and not output.parent.is_dir():
        raise typer.BadParameter(f"{output.parent} is no folder.", param_hint="--output")
    try:
        target = None if regions is None else "regions" if regions else "labels"
        found = generic_overlay(chosen, bundle, target, _lengths(spacing))
    except (CannotCheck, OSError, TypeError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--bundle" if bundle else "KEY") from None
    for note in found.notes:
        typer.echo(f"Note: {note}", err=True)
    if output is None:
        typer.echo(json.dumps(found.content, indent=2))
        return
    try:
        write_json(output, found.content)
    except OSError as error:
        raise typer.BadParameter(f"cannot write: {error}.", param_hint="--output") from None
    train = Path("configs/train.json")
    if bundle is not None:
        from monai_segloss.bundle.foreign import training_file

        train = training_file(bundle)
    command = _run(train, output, run_id=found.run_id)
    typer.echo(f"Wrote {output}. Train with, and your settings of the bundle after it:\n{command}")


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    configs: Annotated[list[Path] | None, typer.Argument(help="Configurations that you name after train.json.")] = None,
) -> None:
    """Check metadata, ids, loss and overlays of a bundle before the training, without running it.

    Example: segloss bundle check my_bundle boundary.json
    """
    from monai_segloss.bundle.checks import check_bundle
    from monai_segloss.checking import CannotCheck
    from monai_segloss.cli.losses import print_findings

    try:
        findings = check_bundle(folder, configs or [])
    except (CannotCheck, OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None
    print_findings(findings)


def _copy(folder: Path, name: str, config: LossConfig | None) -> None:
    from monai_segloss.bundle import bundle_path, copy_bundle

    try:
        source = bundle_path(name)
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0]), param_hint="--name") from None
    try:
        copy_bundle(folder, source, config)
    except FileExistsError as error:
        raise typer.BadParameter(str(error), param_hint="FOLDER") from None
    except (OSError, shutil.Error) as error:
        raise typer.BadParameter(f"cannot write {folder}: {error}.", param_hint="FOLDER") from None
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--term") from None


def _lengths(text: str | None) -> tuple[float, ...] | str | None:
    """``--spacing`` as numbers, or the word."""
    if text is None or text == "affine":
        return text
    try:
        found = tuple(float(part) for part in text.strip("[]()").split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < length < math.inf for length in found):
        raise typer.BadParameter(
            f"{text!r} is no spacing; expected positive numbers such as 1.5,1.5,2, or 'affine'.", param_hint="--spacing"
        )
    return found


def _run(*files: Path | str, run_id: str | None = "run") -> str:
    names = ",".join(f"'{file}'" for file in files)
    other = "" if run_id in (None, "run") else f" {run_id}"
    return f'python -m monai.bundle run{other} --config_file "[{names}]"'
