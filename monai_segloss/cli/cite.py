"""``segloss cite``."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(cite)


def cite(
    key: Annotated[
        str | None,
        typer.Argument(help="Key or alias of a loss, or key of a recipe. Default: only this package is cited."),
    ] = None,
) -> None:
    """Print BibTeX entries of the papers behind a loss or recipe, and of this package.

    Example: segloss cite focal_tversky >> references.bib
    """
    from monai_segloss.cli.losses import find_or_exit
    from monai_segloss.core.citation import bibtex, package_bibtex
    from monai_segloss.recipes import RECIPES

    entries = []
    if key in RECIPES:
        entries = bibtex(RECIPES[key].paper, RECIPES[key].doi)
    elif key is not None:
        entries = bibtex(find_or_exit(key, RECIPES).paper)
    typer.echo("\n\n".join([*entries, package_bibtex()]))
