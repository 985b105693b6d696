"""``segloss demo``: one loss from raw volumes to a report, through the real programs of nnU-Net."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from monai_segloss.demo.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command ``demo``."""
    app.command()(demo)


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Work folder; default: segloss-demo, or segloss-demo-NAME with --data.")
    ] = None,
    loss: Annotated[str, typer.Option(help="Key of a loss (segloss list).")] = "focal_tversky",
    data: Annotated[
        Path | None, typer.Option(help="nnU-Net raw data set to use instead of generated volumes; it is not changed.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also train nnU-Net's own loss (dice_ce) on the same split.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of the training.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Training steps per epoch.")] = None,
    lr: Annotated[
        float | None, typer.Option(min=1e-9, help="Initial learning rate; default: 0.05, nnU-Net's own with --data.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of volumes, weights and order of training.")
    ] = 0,
    fold: Annotated[int, typer.Option(min=0, max=4, help="Fold of the five-fold cross-validation.")] = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Tolerance of the surface Dice, in mm; default: the shortest voxel edge."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Test the installation: tiny volumes, 2 epochs of 2 steps.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="First remove the results of earlier runs from the work folder.")
    ] = False,
) -> None:
    """Train a loss in nnU-Net and see what it does: generate or read volumes, plan, train, predict, measure, report.

    Takes a few minutes without a GPU and writes one HTML page. If it was stopped, start the same command to continue.

    Example: segloss demo --loss dice_topk --baseline

    Example: segloss demo --data nnUNet_raw/Dataset004_Hippocampus --device cuda --epochs 50
    """
    from monai_segloss.demo.problem import DemoError
    from monai_segloss.demo.process import sigterm_as_keyboard_interrupt
    from monai_segloss.demo.settings import DATA_ITERATIONS, EPOCHS, ITERATIONS, LR, QUICK_LENGTH, Settings

    length = QUICK_LENGTH if quick else (EPOCHS, ITERATIONS if data is None else DATA_ITERATIONS)
    wanted = Settings(
        loss=loss,
        data=None if data is None else str(data.resolve()),
        device=device,
        epochs=epochs or length[0],
        iterations=iterations or length[1],
        lr=LR if lr is None and data is None else lr,
        seed=seed,
        fold=fold,
        tolerance=tolerance,
        quick=quick,
    )
    try:
        with sigterm_as_keyboard_interrupt():
            page = _run(wanted, out, baseline, fresh)
        typer.echo(f"\nReport: {page}")
    except DemoError as error:
        _fail(f"{error}.")
    except KeyboardInterrupt:
        _fail("Stopped. The same command continues.", 130)
    except OSError as error:
        _fail(f"Cannot go on: {error}. The same command continues.")


def _run(wanted: Settings, out: Path | None, baseline: bool, fresh: bool) -> Path:
    """Check everything that can be checked, then run."""
    from rich.console import Console

    from monai_segloss.demo import settings as choose
    from monai_segloss.demo.dataset import read_dataset
    from monai_segloss.demo.problem import DemoError
    from monai_segloss.demo.process import refuse_missing_packages
    from monai_segloss.demo.progress import Display

    refuse_missing_packages()
    if wanted.quick and wanted.data:
        raise DemoError("--quick is about the generated volumes, it cannot go with --data")
    source = read_dataset(Path(wanted.data)) if wanted.data else None
    wanted = dataclasses.replace(wanted, loss=choose.resolve_loss(wanted.loss))
    choose.check_device(wanted.device)
    if source is not None:
        choose.refuse_unsupported(wanted.loss, source)

    from monai_segloss.demo.pipeline import Demo, check_space, needed_space

    arms = choose.arms(wanted, baseline)
    work = out or choose.default_out(source)
    check_space(work, needed_space(len(arms), source))
    command = shlex.join(["segloss", *sys.argv[1:]])
    return Demo(work, wanted, arms, command, source, Display(Console()), fresh).run()


def _fail(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)
