"""Options that several commands have in common: a loss from a key, from terms, or from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from monai_segloss import LossConfig


def loss_option(
    key: str | None, settings: list[str], file: Path | None, terms: list[str] | None = None, hint: str = "--loss"
) -> LossConfig:
    """The loss that the options describe, checked, or a usage error that names the option.

    Args:
        key: of one loss, or of a recipe.
        settings: arguments of the loss, each as name=value.
        file: JSON or YAML file with a loss configuration instead.
        terms: terms of a weighted sum instead, each as name=weight or name={"weight": ..., argument: ...}; None where the
            command has no such option.
        hint: name of the option or argument that gives ``key``.
    """
    from pydantic import ValidationError

    from monai_segloss.checking import CannotCheck, read_file
    from monai_segloss.config import LossConfig, sentence
    from monai_segloss.recipes import RECIPES

    if sum((key is not None, file is not None, bool(terms))) != 1:
        others = "or --config" if terms is None else "--term or --config"
        raise typer.BadParameter(
            f"give either {hint} (with --set){' ' if terms is None else ', '}{others}.", param_hint=hint
        )
    if settings and key is None:
        raise typer.BadParameter(
            f"--set goes with {hint}; a term has its arguments alongside its weight.", param_hint="--set"
        )
    if settings and key in RECIPES:
        raise typer.BadParameter(
            f"--set changes a loss, and {key!r} is a recipe: change what `segloss show {key} --json` prints as config, and "
            "give the file with --config.",
            param_hint="--set",
        )
    here = hint if key is not None else "--config" if file is not None else "--term"
    try:
        if key in RECIPES:
            content: Any = dict(RECIPES[key].content)
        elif key is not None:
            content = {"loss": key, "arguments": pairs(settings, "--set")}
        else:
            content = read_file(file) if file else {"terms": pairs(terms or [], "--term")}
        config = LossConfig.model_validate(content)
        config.build()
    except (CannotCheck, OSError, ValidationError, TypeError, ValueError) as error:
        raise typer.BadParameter(sentence(error), param_hint=here) from None
    return config


def pairs(texts: list[str], hint: str) -> dict[str, Any]:
    """Names and values of an option that came several times, each name once."""
    found: dict[str, Any] = {}
    for text in texts:
        name, value = setting(text, hint)
        if name in found:
            other = ' For two terms of one loss use any names: a={"loss": "dice", ...}.' if hint == "--term" else ""
            raise typer.BadParameter(f"{name!r} came twice.{other}", param_hint=hint)
        found[name] = value
    return found


def setting(text: str, hint: str) -> tuple[str, Any]:
    """Name and value of an option such as ``alpha=0.3``; the value is JSON."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise typer.BadParameter(f"{text!r} is not name=value.", param_hint=hint)
    try:
        return name, json.loads(value)
    except ValueError:
        raise typer.BadParameter(
            f'{value!r} in {text!r} is no JSON value: numbers, true, false, null, [lists] or "text".', param_hint=hint
        ) from None
