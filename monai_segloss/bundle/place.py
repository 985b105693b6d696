"""Where a training configuration keeps its trainer and its loss."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_segloss.bundle.keys import MISSING, components, value_at
from monai_segloss.bundle.overlays import written_out

SUFFIXES = (".json", ".yaml", ".yml")
DEEP = ("DeepSupervisionLoss", "DeepSupervision")
WRAPPERS = (*DEEP, "KnownSpacing")
REFERENCE = re.compile(r"@\w+(?:(?:#|::)\w+)*")


@dataclass(frozen=True)
class Place:
    """Where a training configuration keeps its trainer and its loss."""

    trainer: str
    trainer_target: str
    loss: str
    node: Any
    """What stands there: a component, or an expression of which the value is known at run time only."""
    inner: Any
    """The same, or the loss inside of wrappers."""
    deep: Mapping[str, Any] | None = None
    """The wrapper for deep supervision, MONAI's or ours, if there is one."""


def training_file(bundle: Path) -> Path:
    """The training configuration of a bundle folder, or the file itself.

    Raises:
        ValueError: there is none.
    """
    if bundle.is_file():
        return bundle
    for suffix in SUFFIXES:
        file = bundle / "configs" / f"train{suffix}"
        if file.is_file():
            return file
    raise ValueError(f"{bundle} has no configs/train.json, .yaml or .yml; name the training configuration itself.")


def find_loss(config: Any, name: str) -> Place:
    """Trainer and loss of a training configuration, whatever their ids are.

    Args:
        config: content of the file.
        name: of the file, for messages.

    Raises:
        ValueError: no trainer, several without ``train#trainer``, or a loss that is not there.
    """
    trainers = {id: node for id, node in components(config) if "loss_function" in node}
    if not trainers:
        loss = next((id for id, _ in components(config) if "loss" in id.rpartition("#")[2].lower()), None)
        what = "has no trainer" if loss is None else f"never uses @{loss}"
        raise ValueError(f"{name} {what}: no component has the key 'loss_function'; expected it at 'train#trainer'.")
    if len(trainers) > 1 and "train#trainer" not in trainers:
        raise ValueError(
            f"{name} has several trainers, {', '.join(trainers)}; expected one, or one at 'train#trainer'."
        )
    id = "train#trainer" if "train#trainer" in trainers else next(iter(trainers))
    place, node = _follow(config, f"{id}#loss_function", name)
    node = written_out(node, config)
    inner_id, inner, deep = place, node, None
    while is_wrapper(inner):
        deep = inner if str(inner["_target_"]).endswith(DEEP) else deep
        inner_id, inner = _follow(config, f"{inner_id}#loss", name)
        inner = written_out(inner, config)
    return Place(id, str(trainers[id]["_target_"]), place, node, inner, deep)


def _follow(config: Any, id: str, name: str) -> tuple[str, Any]:
    """Id and value at the end of a chain of references; an expression ends it, unless it is made of one loss."""
    seen = {id}
    value = value_at(config, id)
    while isinstance(value, str) and (next_id := _reference(config, value)) is not None:
        before, id = id, next_id
        value = value_at(config, id)
        if value is MISSING or id in seen:
            what = "which is missing" if value is MISSING else "in a circle"
            raise ValueError(f"{name}: {before!r} refers to the key {id!r}, {what}; expected a loss there.")
        seen.add(id)
    return id, value


def _reference(config: Any, value: str) -> str | None:
    """The id that a value refers to: ``@loss``, or the one loss in an expression such as ``$@loss.to(@device)``."""
    if REFERENCE.fullmatch(value):
        return value[1:].replace("::", "#")
    if not value.startswith("$"):
        return None
    ids = {found[1:].replace("::", "#") for found in REFERENCE.findall(value)}
    losses = [id for id in ids if "loss" in id.rpartition("#")[2].lower() and isinstance(value_at(config, id), Mapping)]
    return losses[0] if len(losses) == 1 else None


def is_wrapper(node: Any) -> bool:
    """Whether a component holds the loss: for deep supervision, or for a known spacing."""
    return isinstance(node, Mapping) and str(node.get("_target_")).endswith(WRAPPERS) and "loss" in node
