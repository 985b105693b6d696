"""A loss as a component of a bundle's configuration, and the overlay file of every loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_segloss import LossConfig, LossInfo, WeightedSum, find, list_losses
from monai_segloss.bundle.keys import is_expression
from monai_segloss.bundle.paths import bundle_path
from monai_segloss.files import write_json
from monai_segloss.losses.compound.weighted_sum import RESERVED


def infos(config: LossConfig) -> dict[str, LossInfo]:
    """The losses of a configuration, by the names of its terms; one loss has its own key as its name."""
    if config.loss is not None:
        info = find(config.loss)
        return {info.key: info}
    return {name: find(term.get("loss", name)) for name, term in config.terms.items()}


def component(
    config: LossConfig,
    reading: Mapping[str, Any] | None = None,
    scoring: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The loss with its ``_target_`` and arguments: the reading, what the card recommends, what ``config`` says.

    Args:
        config: one loss, or the terms of a weighted sum.
        reading: how the bundle's network and labels are read: ``softmax`` or ``sigmoid``, ``to_onehot_y`` ...; None: one
            label per voxel.  Without ``to_onehot_y`` the channels are regions, and all of them are scored.
        scoring: other arguments that take the place of what the card recommends, by the name of the loss or term.

    Raises:
        ValueError, TypeError: a loss cannot read that, or does not take an argument.
    """
    named = infos(config)
    shared = dict(_labels(named) if reading is None else reading)
    _refuse_unsupported(named, shared)
    regions = not shared.get("to_onehot_y", False)
    policies = {name: {**_policy(info, regions), **(scoring or {}).get(name, {})} for name, info in named.items()}
    if config.loss is not None:
        ((name, info),) = named.items()
        target, arguments = info.cls.__name__, {**shared, **policies[name], **config.arguments}
        info.cls(**_known(arguments))
    else:
        terms = {name: _term(term, policies[name]) for name, term in config.terms.items()}
        target, arguments = "WeightedSum", {"terms": terms, **shared}
        WeightedSum({name: _known(term) for name, term in terms.items()}, **_known(shared))
    return {"_target_": f"monai_segloss.{target}", **arguments}


def overlay(info: LossInfo) -> dict[str, Any]:
    """The configuration that puts a loss into a bundle with one label per voxel: the one key ``loss``.

    ``include_background`` is written out where the loss takes it, and whatever else its card recommends to a trainer.
    """
    return {"loss": component(LossConfig(loss=info.key))}


def write_overlays(folder: Path | None = None) -> list[Path]:
    """Write ``<key>.json`` for every registered loss and remove files of losses that are gone.

    Args:
        folder: None means ``configs/losses`` of the default bundle.
    """
    folder = bundle_path() / "configs" / "losses" if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{info.key}.json": overlay(info) for info in list_losses()}
    for path, content in files.items():
        write_json(path, content)
    for path in set(folder.glob("*.json")) - set(files):
        path.unlink()
    return sorted(files)


def _labels(named: Mapping[str, LossInfo]) -> dict[str, Any]:
    """How these losses read a map of labels together."""
    readings = {name: info.reading for name, info in named.items()}
    first = next(iter(readings.values()))
    if any(reading != first for reading in readings.values()):
        asked = ", ".join(f"{name} {next(iter(reading))}" for name, reading in readings.items())
        raise ValueError(f"the terms cannot share one reading of a label map: {asked}.")
    return first


def _refuse_unsupported(named: Mapping[str, LossInfo], reading: Mapping[str, Any]) -> None:
    asked = {"softmax": ("labels", "softmax over one label per voxel"), "sigmoid": ("regions", "sigmoid per channel")}
    for activation, (what, words) in asked.items():
        for info in named.values():
            if reading.get(activation) and what not in info.support:
                raise ValueError(f"{info.key} does not support {what}, and the bundle reads its network by {words}.")


def _policy(info: LossInfo, regions: bool) -> dict[str, Any]:
    policy = info.nnunet
    arguments: dict[str, Any] = {}
    if policy.include_background is not None:
        arguments["include_background"] = regions or policy.include_background
    if isinstance(policy.batch, bool):
        arguments["batch"] = policy.batch
    return {**arguments, **policy.arguments}


def _known(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Without the expressions, whose values are known at run time only."""
    return {name: value for name, value in arguments.items() if not is_expression(value)}


def _term(term: Mapping[str, Any], policy: Mapping[str, Any]) -> dict[str, Any]:
    reserved = {name: term[name] for name in RESERVED if name in term}
    return {**reserved, **policy, **{name: value for name, value in term.items() if name not in RESERVED}}
