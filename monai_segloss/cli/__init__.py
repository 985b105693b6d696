"""``segloss``: list, explain, check and demonstrate the losses, and connect them to nnU-Net and MONAI bundles.

Exit codes: 0 done, 1 failure, 2 wrong usage.
"""

from __future__ import annotations

from typing import Annotated

import typer

import monai_segloss
from monai_segloss.cli import bundle, cite, compare, demo, doctor, losses, nnunet, prior, recommend

app = typer.Typer(
    name="segloss",
    help="Segmentation losses for 3-D CT and MR: one definition for MONAI, nnU-Net v2 and MONAI bundles.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (losses, cite, demo, nnunet, prior, bundle, compare, recommend, doctor):
    group.register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"monai-segloss {monai_segloss.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the command."""
    app()
