"""``segloss compare plan`` and ``run``: train the losses that shall be compared, all alike, and compare them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from monai_segloss.experiment.comparison import Comparison
    from monai_segloss.experiment.costs import Estimate
    from monai_segloss.experiment.matrix import Matrix
    from monai_segloss.experiment.protocol import Protocol

DEMO: Mapping[str, Any] = {
    "arms": ["dice_ce", "cross_entropy", "focal_tversky"],
    "epochs": 5,
    "iterations": 20,
    "tolerance": 1.2,
}
"""What `--demo` compares unless other options say otherwise, beside what its backend sets."""
PLAN = """Plan a comparison, train every arm for two iterations, and print the runs, their time and their disk space.

Example: segloss compare plan --data nnUNet_raw/Dataset004_Hippocampus --loss dice_ce --loss focal_tversky
"""
RUN = """Train every loss with every seed in nnU-Net or the MONAI bundle, under the same conditions; measure and compare.

If it was stopped or killed, start the same command to continue. Finished work is kept.

Example: segloss compare run --demo --jobs 2

Example: segloss compare run --config losses.yaml --output losses --jobs 2
"""


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    app.command("plan", help=PLAN)(_command(_plan))
    app.command("run", help=RUN)(_command(_run))
    app.command("schema")(schema)


def schema() -> None:
    """Print the JSON schema of the file that describes a comparison.

    Example: segloss compare schema > comparison.schema.json
    """
    from monai_segloss.experiment.matrix import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _command(action: Callable[[Console, Comparison], None]) -> Callable[..., None]:
    """A command with the options of a comparison."""

    def command(
        config: Annotated[
            Path | None, typer.Option(help="YAML or JSON file (segloss compare schema); options replace its values.")
        ] = None,
        data: Annotated[Path | None, typer.Option(help="nnU-Net raw data set; it is only read.")] = None,
        demo: Annotated[
            bool, typer.Option("--demo", help="Compare three losses on generated volumes; takes 15 minutes.")
        ] = False,
        protocol: Annotated[
            str | None,
            typer.Option(
                help="Published comparison to follow: jadon2020 or loss-odyssey; on generated volumes by default."
            ),
        ] = None,
        loss: Annotated[
            list[str] | None,
            typer.Option(help="Loss, recipe or trainer; NAME=JSON for a configuration. Repeat for more."),
        ] = None,
        backend: Annotated[
            str | None, typer.Option(help="nnunet, or bundle for the MONAI bundle of this package; default: nnunet.")
        ] = None,
        output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all results.")] = Path("comparison"),
        baseline: Annotated[str | None, typer.Option(help="The arm to compare with; default: the first.")] = None,
        seeds: Annotated[int | None, typer.Option(help="Trainings of each arm and fold; default: 2.")] = None,
        baseline_seeds: Annotated[
            int | None, typer.Option(help="Trainings of the baseline per fold; default: two more than --seeds.")
        ] = None,
        fold: Annotated[list[int] | None, typer.Option(help="Held-out fold; repeat for more; default: 0.")] = None,
        splits: Annotated[int | None, typer.Option(help="Folds of the cross-validation; default: 5.")] = None,
        patients: Annotated[
            Path | None, typer.Option(help="JSON file: case -> patient; the cases of a patient are held out together.")
        ] = None,
        configuration: Annotated[str | None, typer.Option(help="2d, 3d_fullres or 3d_lowres.")] = None,
        epochs: Annotated[int | None, typer.Option(help="Epochs of a training; default: 100.")] = None,
        iterations: Annotated[int | None, typer.Option(help="Training steps per epoch; default: 250.")] = None,
        lr: Annotated[float | None, typer.Option(help="Initial learning rate; default: the backend's own.")] = None,
        optimizer: Annotated[str | None, typer.Option(help="adam; default: the backend's own.")] = None,
        batch_size: Annotated[int | None, typer.Option(help="Batch size; default: as planned for a GPU.")] = None,
        patch_size: Annotated[
            str | None,
            typer.Option(help="Patch size, such as 32,40,32, in the plans' order of axes; default: as planned."),
        ] = None,
        features: Annotated[
            int | None, typer.Option(help="Channels of the network's first stage; default: as planned, 32.")
        ] = None,
        device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
        tolerance: Annotated[
            float | None, typer.Option(help="Tolerance of the surface Dice, in mm; default: 1.")
        ] = None,
        sizes: Annotated[str | None, typer.Option(help="Edges of the size classes of components, in mm³.")] = None,
        tubes: Annotated[bool, typer.Option("--tubes", help="Also measure centerline Dice and Betti numbers.")] = False,
        margin: Annotated[
            float | None, typer.Option(help="Smallest difference that matters, for the verdict equivalent.")
        ] = None,
        jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time, one thread each.")] = 1,
        cluster: Annotated[str | None, typer.Option(help="Ray cluster: auto or its address.")] = None,
        cores: Annotated[int, typer.Option(min=1, help="CPU cores of a run on a cluster.")] = 1,
        gpus: Annotated[float, typer.Option(min=0, help="GPUs of a run on a cluster; 0.5 is half a GPU.")] = 0.0,
    ) -> None:
        from rich.console import Console

        from monai_segloss.checking import CannotCheck
        from monai_segloss.demo.problem import DemoError
        from monai_segloss.demo.process import refuse_missing_packages, sigterm_as_keyboard_interrupt
        from monai_segloss.demo.progress import Display
        from monai_segloss.experiment.comparison import Comparison
        from monai_segloss.experiment.protocol import FILE, read_protocol
        from monai_segloss.experiment.queue import Cluster
        from monai_segloss.files import write_json

        given = {
            "data": data, "demo": demo or None, "arms": [_arm(each) for each in loss] if loss else None,
            "backend": backend, "baseline": baseline, "seeds": seeds, "baseline_seeds": baseline_seeds,
            "folds": fold or None, "splits": splits, "patients": patients,
            "configuration": configuration, "epochs": epochs, "iterations": iterations, "lr": lr,
            "optimizer": optimizer,
            "batch_size": batch_size, "patch_size": patch_size and patch_size.split(","), "features": features,
            "device": device,
            "tolerance": tolerance, "sizes": sizes and sizes.split(","), "tubes": tubes or None, "margin": margin,
        }  # fmt: skip
        console = Console(highlight=False)
        try:
            refuse_missing_packages()
            followed = None if protocol is None else read_protocol(protocol)
            matrix = _matrix(config, given, followed)
            if cluster is None and (cores != 1 or gpus):
                raise DemoError("--cores and --gpus are of a cluster: give --cluster too")
            where = None if cluster is None else Cluster(cluster, cores, gpus)
            comparison = Comparison(output, matrix, Display(console), jobs, where)
            with sigterm_as_keyboard_interrupt(), comparison.open():
                if followed is not None:
                    write_json(output / FILE, followed.model_dump(mode="json", exclude_defaults=True), indent=2)
                action(console, comparison)
        except (DemoError, CannotCheck, ValueError) as error:
            _fail(f"{str(error)[:1].upper()}{str(error)[1:].rstrip('.')}.", 2 if isinstance(error, ValueError) else 1)
        except KeyboardInterrupt:
            _fail("Stopped. The same command continues.", 130)
        except OSError as error:
            _fail(f"Cannot go on: {error}. The same command continues.")

    return command


def _matrix(file: Path | None, given: Mapping[str, Any], protocol: Protocol | None = None) -> Matrix:
    """The comparison of a file, with what options say instead, and what a protocol says where neither does."""
    from monai_segloss.checking import read_file
    from monai_segloss.experiment.matrix import MatrixError, matrix

    content = {} if file is None else read_file(file)
    if not isinstance(content, Mapping):
        raise MatrixError(f"{file} holds no mapping, got {content!r}.")
    options = {key: value for key, value in given.items() if value is not None}
    if protocol is not None:
        return matrix(protocol.fill({**content, **options}))
    defaults = _demo(options.get("backend", content.get("backend"))) if options.get("demo", content.get("demo")) else {}
    if file is None and not defaults and "arms" not in options:
        raise MatrixError("give the losses to compare with --loss, in a file with --config, by --protocol, or --demo.")
    return matrix({**defaults, **content, **options})


def _demo(name: object) -> Mapping[str, Any]:
    """What a backend's demo sets; what is wrong with its name the matrix says."""
    from monai_segloss.experiment.backends import backend

    return {**DEMO, **backend("bundle" if name == "bundle" else "nnunet").DEMO}


def _arm(text: str) -> Any:
    name, equals, value = text.partition("=")
    if not equals:
        return text
    try:
        content = json.loads(value)
    except ValueError:
        raise typer.BadParameter(
            f'{value!r} in {text!r} is no JSON: NAME={{"loss": "tversky", "arguments": {{"alpha": 0.3}}}}.',
            param_hint="--loss",
        ) from None
    return {"name": name, **(content if isinstance(content, dict) else {"loss": content})}


def _plan(console: Console, comparison: Comparison) -> None:
    _print_plan(console, comparison, comparison.prepare())


def _print_plan(console: Console, comparison: Comparison, expected: Estimate) -> None:
    from rich.table import Table

    from monai_segloss.demo.report import duration
    from monai_segloss.experiment.statistics import least_patients

    table = Table(title=f"runs in {comparison.work}", title_justify="left")
    for column in ("run", "trainer", "configuration", "time"):
        table.add_column(column, overflow="fold")
    for task in comparison.tasks():
        seconds = expected.seconds.get(task.run.name)
        time = task.state() if seconds is None else duration(seconds)
        table.add_row(task.run.name, task.run.trainer, task.run.configuration, time)
    console.print(table)
    total = sum(expected.seconds.values())
    jobs = comparison.jobs
    console.print(
        f"{len(expected.seconds)} runs to do: {duration(total / jobs)} with {jobs} at a time, by two iterations of each "
        f"arm, which are slow ones; {expected.bytes / 1e9:.1f} GB of disk",
        soft_wrap=True,
    )
    if comparison.fewer_folds is not None:
        console.print(f"[yellow]note[/] {comparison.fewer_folds}, so that there are as many folds.", soft_wrap=True)
    count, unit = len(comparison.held_out_patients()), comparison.unit
    others = len(comparison.matrix.arms) - 1
    if count < (least := least_patients(others)):
        of = f", with {others} losses against the baseline," if others > 1 else ""
        console.print(
            f"[yellow]note[/] {count} {unit}{' is' if count == 1 else 's are'} held out: with fewer than {least} no "
            f"difference can be claimed{of}; more folds hold out more.",
            soft_wrap=True,
        )


def _run(console: Console, comparison: Comparison) -> None:
    from monai_segloss.cli.compare import print_analysis
    from monai_segloss.experiment.analysis import analyze
    from monai_segloss.experiment.live import watching
    from monai_segloss.experiment.report import publish
    from monai_segloss.experiment.statistics import Settings

    matrix = comparison.matrix
    expected = comparison.prepare()
    _print_plan(console, comparison, expected)
    with watching(console, comparison.tasks(), matrix.epochs, comparison.work / "runs.html") as show:
        comparison.run(expected, show)
    tables = comparison.measure()
    settings = Settings(margin=matrix.margin)
    analysis = analyze(tables, matrix.reference.name, settings)
    print_analysis(console, analysis)
    console.print(f"tables in {comparison.work / 'tables'}", soft_wrap=True)
    console.print(f"report: {publish(comparison.work, tables, analysis, settings)}", soft_wrap=True)


def _fail(sentence: str, code: int = 1) -> NoReturn:
    typer.echo(f"Error: {sentence}" if code != 130 else sentence, err=True)
    raise typer.Exit(code)
