"""A loss as a component of a bundle's configuration: by its key, or written out in an overlay file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_segloss import LossConfig, LossInfo, SegLoss, WeightedSum, find, list_losses
from monai_segloss.bundle.keys import is_expression, is_used, references
from monai_segloss.core.packages import described
from monai_segloss.files import write_json
from monai_segloss.losses.compound.weighted_sum import RESERVED

FACTORY = "monai_segloss.bundle.create_loss"
KEYS = {"loss_key": "dice_ce", "loss_arguments": {}}
"""Keys by which a bundle names its loss, with their defaults."""


def create_loss(key: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> SegLoss:
    """The loss of a bundle by its key: for labels, with what its card recommends; what is given stands.

    Args:
        key: registry key, alias or class name.
        arguments: constructor arguments.
        more: the same, one by one, as ``--loss#alpha 0.3`` gives them.

    Raises:
        UnknownLoss: no such key.
        TypeError, ValueError: the loss does not take an argument.

    Example:
        >>> from monai_segloss.bundle import create_loss
        >>> create_loss("tversky", {"alpha": 0.2})
        TverskyLoss(softmax=True, to_onehot_y=True, include_background=False, alpha=0.2, beta=0.7)
    """
    if not isinstance(key, str):
        raise TypeError(f"loss_key must be the key of a loss (segloss list), got {key!r}.")
    if arguments is not None and not isinstance(arguments, Mapping):
        raise TypeError(f"loss_arguments must be a mapping such as {{'alpha': 0.3}}, got {arguments!r}.")
    info = find(key)
    return info.cls(**_by_key(info, {**(arguments or {}), **more}))


def _by_key(info: LossInfo, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {**info.reading, **info.recommend(arguments)}


def written_out(node: Any, config: Mapping[str, Any]) -> Any:
    """The component that stands for what `create_loss` makes of a node of a configuration; other nodes as they are."""
    if not isinstance(node, Mapping) or node.get("_target_") != FACTORY:
        return node
    refers = {f"@{name}": config.get(name) for name in KEYS}
    given = [node.get(name) for name in ("key", "arguments")]
    key, arguments = (refers.get(value, value) if isinstance(value, str) else value for value in given)
    if not isinstance(key, str) or key[:1] in ("@", "$", "%") or not isinstance(arguments, Mapping | None):
        return node
    more = {name: value for name, value in node.items() if name not in ("_target_", "key", "arguments")}
    arguments = {**(arguments or {}), **more}
    try:
        info = find(key)
    except KeyError:
        return {"_target_": f"monai_segloss.{key}", **arguments}
    return {"_target_": f"monai_segloss.{info.cls.__name__}", **_by_key(info, arguments)}


def refuse_idle_keys(config: Mapping[str, Any]) -> None:
    """Refuse ``loss_key`` and ``loss_arguments`` where the key ``loss`` is given whole and does not read them.

    Raises:
        ValueError: the first such key.
    """
    referred = references(config)
    for name, default in KEYS.items():
        if config.get(name, default) != default and not is_used(name, referred):
            raise ValueError(
                f"{name} is {config[name]!r}, and the key 'loss' does not read it, as it names a loss itself; leave out "
                f"{name}, or the overlay that replaces 'loss'."
            )


def infos(config: LossConfig) -> dict[str, LossInfo]:
    """The losses of a configuration, by the names of its terms; one loss has its own key as its name."""
    if config.loss is not None:
        info = find(config.loss)
        return {info.key: info}
    return {name: find(term.get("loss", name)) for name, term in config.terms.items()}


@described()
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
    given = config.terms or dict.fromkeys(named, config.arguments)
    added = {
        name: {**info.recommend(given[name], regions=regions), **(scoring or {}).get(name, {})}
        for name, info in named.items()
    }
    if config.loss is not None:
        ((name, info),) = named.items()
        target, arguments = info.cls.__name__, {**shared, **added[name], **config.arguments}
        info.cls(**_known(arguments))
    else:
        terms = {name: _term(term, added[name]) for name, term in config.terms.items()}
        balance = {} if config.balance is None else {"balance": config.balance}
        target, arguments = "WeightedSum", {"terms": terms, **balance, **shared}
        WeightedSum({name: _known(term) for name, term in terms.items()}, **balance, **_known(shared))
    return {"_target_": f"monai_segloss.{target}", **arguments}


def overlay(info: LossInfo) -> dict[str, Any]:
    """The configuration that puts a loss into a bundle with one label per voxel: the one key ``loss``.

    ``include_background`` is written out where the loss takes it, and whatever else its card recommends.
    """
    return {"loss": component(LossConfig(loss=info.key))}


def write_overlays(folder: Path) -> list[Path]:
    """Write ``<key>.json`` for every registered loss into a folder and remove files of losses that are gone."""
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


def _known(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Without the expressions, whose values are known at run time only."""
    return {name: value for name, value in arguments.items() if not is_expression(value)}


def _term(term: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    reserved = {name: term[name] for name in RESERVED if name in term}
    return {**reserved, **added, **{name: value for name, value in term.items() if name not in RESERVED}}
