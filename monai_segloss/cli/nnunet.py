"""``segloss nnunet``: make the trainers known to nnU-Net, put losses into plans, export models."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from monai_segloss.cli.options import loss_option
from monai_segloss.files import read_json

app = typer.Typer(help="Use the losses in nnU-Net v2.", no_args_is_help=True)
RAW, PREPROCESSED = "nnUNet_raw", "nnUNet_preprocessed"
MISSING = "nnU-Net is not installed in this environment: pip install 'monai-segloss[nnunet]'"


def register(parent: typer.Typer) -> None:
    """Add the ``nnunet`` commands."""
    parent.add_typer(app, name="nnunet")


@app.command()
def enable() -> None:
    """Let every nnU-Net of this Python environment find the trainers.

    Writes one line into a .pth file of the environment; `segloss nnunet disable` removes it.

    Example: segloss nnunet enable && nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerFocalTversky
    """
    from nnunet_trainers import startup

    refuse_old()
    try:
        file = startup.enable()
    except OSError as error:
        fail(f"Cannot enable the trainers: {error}. Set the variable in your shell instead:\n\n{startup.export_line()}")
    typer.echo(f"nnU-Net now finds the trainers ({file} was written; undo with: segloss nnunet disable).")
    if not installed("nnunetv2"):
        typer.echo(f"Note: {MISSING}", err=True)


@app.command()
def disable() -> None:
    """Undo `segloss nnunet enable`."""
    from nnunet_trainers import startup

    try:
        removed = startup.disable()
    except OSError as error:
        fail(f"The trainers stay enabled: {error}. Remove it with the rights of whoever wrote it.")
    typer.echo("\n".join(f"Removed {file}." for file in removed) or "The trainers were not enabled; nothing removed.")


@app.command()
def env(
    path: Annotated[bool, typer.Option("--path", help="Print the folder only, e.g. for ENV in a Dockerfile.")] = False,
) -> None:
    """Print the shell line that makes the trainers known, for containers and clusters.

    Example: eval "$(segloss nnunet env)"
    """
    from nnunet_trainers import discovery_dir, startup

    typer.echo(discovery_dir() if path else startup.export_line())
    if old := too_old():
        typer.echo(f"Note: {old}", err=True)


@app.command()
def plan(
    dataset: Annotated[str, typer.Argument(help="Id or name of the data set.")],
    parent: Annotated[str, typer.Argument(help="Configuration to inherit from, e.g. 3d_fullres.")],
    name: Annotated[str, typer.Argument(help="Suffix of the new configuration <parent>_<name>.")],
    loss: Annotated[
        str | None, typer.Option(help="Key of a loss or recipe (segloss list, segloss list recipes).")
    ] = None,
    argument: Annotated[
        list[str] | None, typer.Option("--set", help="Argument of the loss as name=value; repeat for more.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="JSON or YAML file with a loss configuration instead.")] = None,
    plans: Annotated[str, typer.Option(help="Plans identifier.")] = "nnUNetPlans",
    replace: Annotated[bool, typer.Option(help="Replace a configuration of that name.")] = False,
    patch_size: Annotated[
        str | None, typer.Option(help="Another patch size in voxels, e.g. 48,64,48, for whole cases.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Another batch size.")] = None,
    soft_labels: Annotated[
        bool, typer.Option("--soft-labels", help="Train on soft labels (segloss nnunet soft-labels).")
    ] = False,
) -> None:
    """Add a plans configuration with a loss, to be trained with nnUNetTrainerSegLoss.

    Use it for sums of losses and for settings that are not numbers. Numbers can be part of the name of a trainer. Both
    stages of a cascade are added together. The configurations of nnU-Net's planning do not change.

    Example: segloss nnunet plan 4 3d_fullres weighted --loss cross_entropy --set weight=[1,2,5]
    """
    from nnunet_trainers.building import plain
    from nnunet_trainers.plans import SOFT_LABELS, PlansError, add_configuration

    content = plain(loss_option(loss, argument or [], config).model_dump(exclude_defaults=True))
    if patch_size is not None and not re.fullmatch(r"\d+(,\d+)*", patch_size):
        raise typer.BadParameter(f"{patch_size!r} is not whole numbers such as 48,64,48.", param_hint="--patch-size")
    patch = None if patch_size is None else [int(n) for n in patch_size.split(",")]
    content |= {SOFT_LABELS: True} if soft_labels else {}
    file = plans_file(dataset, plans)
    try:
        added = add_configuration(file, parent, name, content, replace, patch, batch_size)
    except (PlansError, OSError) as error:
        fail(str(error))
    typer.echo(f"Added to {file}: {', '.join(added)}.")
    for each in added:
        typer.echo(
            f"nnUNetv2_train {dataset} {each} 0 -tr nnUNetTrainerSegLoss{'' if plans == 'nnUNetPlans' else f' -p {plans}'}"
        )


@app.command()
def soft_labels(
    dataset: Annotated[str, typer.Argument(help="Id or name of the data set.")],
    configuration: Annotated[
        list[str] | None, typer.Argument(help="Configurations of the plans; default: all that are preprocessed.")
    ] = None,
    plans: Annotated[str, typer.Option(help="Plans identifier.")] = "nnUNetPlans",
    processes: Annotated[int, typer.Option("-np", min=1, help="Number of processes.")] = 4,
) -> None:
    """Preprocess the soft labels of a data set, after nnUNetv2_plan_and_preprocess.

    Put labelsTr_raters/RATER/CASE.nii.gz (label maps, whose mean is the soft label) or labelsTr_soft/CASE_0001.nii.gz
    (fractions of label 1) next to labelsTr. The command writes only files that are missing or changed. You can run it again
    after an interruption.

    Example: segloss nnunet soft-labels 4 && nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerDiceCE_softlabels
    """
    if not installed("nnunetv2"):
        fail(MISSING)
    refuse_old()
    from nnunet_trainers import soft_preprocessing
    from nnunet_trainers.soft_labels import SoftLabelError

    file, folder = plans_file(dataset, plans), os.environ.get(RAW)
    if not folder:
        fail(f"The variable {RAW} is not set: it names the folder with the raw data sets.")
    try:
        for each in configuration or soft_preprocessing.preprocessed(file):
            work = soft_preprocessing.preprocessor(file, each, Path(folder, file.parent.name))
            written = list(soft_preprocessing.run(work, processes))
            typer.echo(f"{each}: {work.found.words}; {sum(written)} of {len(written)} written to {work.target}.")
    except (SoftLabelError, OSError) as error:
        fail(f"{error}.")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model folder TRAINER__PLANS__CONFIGURATION.")],
    output: Annotated[Path | None, typer.Option(help="New folder; default: a folder in MODEL/exported.")] = None,
) -> None:
    """Copy a trained model so that stock nnU-Net can predict with it, without this package.

    Example: segloss nnunet export $nnUNet_results/Dataset004_X/nnUNetTrainerFocalTversky__nnUNetPlans__3d_fullres
    """
    if not installed("nnunetv2"):
        fail(MISSING)
    refuse_old()
    from nnunet_trainers.export import CHECKPOINTS, ExportError, to_predict
    from nnunet_trainers.export import export as export_model

    try:
        target = export_model(model, output)
    except (ExportError, OSError) as error:
        fail(str(error))
    # nnU-Net takes five folds and their final checkpoints if it is not told which.
    checkpoint, folds = to_predict(target)
    chosen = f"-m {shlex.quote(str(target))} -f {' '.join(folds)}"
    chosen += "" if checkpoint == CHECKPOINTS[0] else f" -chk {checkpoint}"
    typer.echo(f"Wrote {target}. Predict with: nnUNetv2_predict_from_modelfolder {chosen} -i IMAGES -o OUTPUT")
    left = sorted(each.name for each in target.glob("fold_*") if not (each / checkpoint).is_file())
    if left:
        typer.echo(f"Note: {', '.join(left)} without {checkpoint} cannot take part.", err=True)


def fail(message: str) -> NoReturn:
    """End with exit code 1 and a message."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def installed(package: str) -> bool:
    """Whether a package can be imported here."""
    return importlib.util.find_spec(package) is not None


def refuse_old() -> None:
    """End where nnU-Net is too old for the trainers."""
    found = too_old()
    if found:
        fail(found)


def too_old() -> str:
    """A sentence where the nnU-Net of this environment is too old for the trainers."""
    from nnunet_trainers import startup

    found, least = startup.too_old(), ".".join(map(str, startup.LEAST))
    if found is None:
        return ""
    return f"nnU-Net is version {found} here, with which the trainers do not work: pip install -U 'nnunetv2>={least}'"


def plans_file(dataset: str, plans: str) -> Path:
    """The plans of a data set, or exit code 1 with what is missing."""
    folder = os.environ.get(PREPROCESSED)
    if not folder:
        fail(f"The variable {PREPROCESSED} is not set: it names the folder with the preprocessed data sets.")
    if not Path(folder).is_dir():
        fail(f"The variable {PREPROCESSED} names {folder}, which is no folder.")
    names = sorted(each.name for each in Path(folder).iterdir() if re.match(r"Dataset\d{3,}_", each.name))
    number = dataset.isdecimal()
    wanted = f"Dataset{int(dataset):03d}_" if number else dataset
    chosen = [name for name in names if name == wanted or (number and name.startswith(wanted))]
    if len(chosen) != 1:
        expected = ", ".join(chosen or names) or "some"
        fail(f"{folder} has {len(chosen)} data sets {dataset!r}; expected one of {expected}.")
    file = Path(folder, chosen[0], f"{plans}.json")
    if not file.is_file():
        known = sorted(each.stem for each in file.parent.glob("*.json") if holds_plans(each))
        has = f"it has {', '.join(known)}; choose one with --plans, or " if known else ""
        fail(f"{file} does not exist: {has}run nnUNetv2_plan_and_preprocess -d {dataset} first.")
    return file


def holds_plans(file: Path) -> bool:
    """Whether a JSON file holds plans of nnU-Net."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("configurations"), dict)
