"""One of our losses in a bundle that somebody else wrote: where its loss and its trainer are, and an overlay for both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_segloss import LossConfig
from monai_segloss.bundle.overlays import component, written_out
from monai_segloss.checking import read_file
from monai_segloss.schedules import Constant

TRAINER = "monai_segloss.engine.SegLossTrainer"
SUFFIXES = (".json", ".yaml", ".yml")
READINGS = {"labels": {"softmax": True, "to_onehot_y": True}, "regions": {"sigmoid": True}}
FLAGS = ("softmax", "use_softmax", "sigmoid", "to_onehot_y", "include_background")
REFERENCE = re.compile(r"@\w+(?:(?:#|::)\w+)*")
MISSING = object()


@dataclass
class Overlay:
    """A configuration to be named behind the bundle's own, and what its user should know."""

    content: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a training configuration keeps its trainer and its loss."""

    trainer: str
    trainer_target: str
    loss: str
    node: Any
    """What stands there: a component, or an expression of which the value is known at run time only."""
    inner: Any
    """The same, or the loss inside where ``node`` is MONAI's wrapper for deep supervision."""


def generic_overlay(config: LossConfig, bundle: Path | None = None, target: str | None = None) -> Overlay:
    """The overlay that makes a bundle train with a loss: its loss, and its trainer in our subclass.

    The loss reads network and labels as the bundle's own loss does.  Handlers of the bundle stay; what maps, schedules
    and terms need is in the trainer, so that a shortened list of handlers on other ranks takes nothing away.

    Args:
        config: one loss, or a weighted sum.
        bundle: its folder or its training configuration; None: the ids ``loss`` and ``train#trainer`` of the model zoo.
        target: ``"labels"`` (softmax) or ``"regions"`` (sigmoid per channel) instead of what the bundle's loss says.

    Raises:
        ValueError: the bundle's trainer or loss is not found, or the loss cannot do what the bundle asks for.
    """
    if bundle is None:
        reading = None if target is None else READINGS[target]
        return Overlay({"loss": component(config, reading), "train#trainer#_target_": TRAINER})
    file = training_file(bundle)
    content = read_file(file)
    place = find_loss(content, file.name)
    found = Overlay({})
    reading = reading_of(place, found.notes) if target is None else dict(READINGS[target])
    found.content[place.loss] = _wrapped(component(config, reading), place)
    if place.loss != "loss":
        found.notes.append(
            f"the loss of {file.name} is the key {place.loss!r}, not 'loss'; the overlay replaces it there."
        )
    kind = place.trainer_target.rpartition(".")[2]
    if kind == "SupervisedTrainer":
        found.content[f"{place.trainer}#_target_"] = TRAINER
    elif kind != "SegLossTrainer":
        _keep_trainer(config, place, found.notes)
    return found


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
        raise ValueError(
            f"{name} has no trainer: no component has the key 'loss_function'; expected it at 'train#trainer'."
        )
    if len(trainers) > 1 and "train#trainer" not in trainers:
        raise ValueError(
            f"{name} has several trainers, {', '.join(trainers)}; expected one, or one at 'train#trainer'."
        )
    id = "train#trainer" if "train#trainer" in trainers else next(iter(trainers))
    place, node = _follow(config, f"{id}#loss_function", name)
    node = inner = written_out(node, config)
    if _is_wrapper(node):
        _, inner = _follow(config, f"{place}#loss", name)
    return Place(id, str(trainers[id]["_target_"]), place, node, inner)


def reading_of(place: Place, notes: list[str]) -> dict[str, Any]:
    """How the loss of a bundle reads network and labels, in MONAI's words; an assumption is noted."""
    loss = place.inner if isinstance(place.inner, Mapping) else {}
    said = {name: loss[name] for name in FLAGS if isinstance(loss.get(name), bool)}
    reading = {name: True for name in ("softmax", "sigmoid", "to_onehot_y") if said.get(name)}
    if said.get("use_softmax"):  # as MONAI's FocalLoss calls it
        reading["softmax"] = True
    if not {"softmax", "sigmoid"} & set(reading):
        assumed = "regions" if said.get("to_onehot_y") is False else "labels"
        means = "sigmoid per channel" if assumed == "regions" else "softmax over one label per voxel"
        notes.append(
            f"the loss at {place.loss!r} does not say softmax or sigmoid; {means} is assumed: say --labels or --regions."
        )
        reading = dict(READINGS[assumed])
    return reading | {n: said[n] for n in ("include_background",) if n in said}


def components(config: Any, id: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All components of a configuration, by id."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield id, config
        for key, value in config.items():
            yield from components(value, f"{id}#{key}" if id else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from components(value, f"{id}#{index}")


def value_at(config: Any, id: str) -> Any:
    """What stands at an id such as ``train#handlers#0``; `MISSING` where nothing does."""
    for part in re.split("#|::", id):
        if isinstance(config, Mapping):
            config = config.get(part, MISSING)
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return MISSING
    return config


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


def _is_wrapper(node: Any) -> bool:
    return isinstance(node, Mapping) and str(node.get("_target_")).endswith("DeepSupervisionLoss") and "loss" in node


def _wrapped(loss: dict[str, Any], place: Place) -> dict[str, Any]:
    """The loss inside our wrapper for deep supervision, where the bundle's is in MONAI's."""
    if not _is_wrapper(place.node):
        return loss
    mode, weights = place.node.get("weight_mode", "exp"), place.node.get("weights")
    if weights is None and mode != "exp":
        raise ValueError(
            f"{place.loss}#weight_mode is {mode!r}; expected 'exp', or one number per output as 'weights'."
        )
    given = {} if weights is None else {"weights": weights}
    return {"_target_": "monai_segloss.engine.DeepSupervision", "loss": loss, **given}


def _keep_trainer(config: LossConfig, place: Place, notes: list[str]) -> None:
    """A trainer of another class stays; refuse what only ours can do."""
    id = f"{place.trainer}#_target_"
    schedules = getattr(config.build(), "schedules", {})
    if not all(isinstance(schedule, Constant) for schedule in schedules.values()):
        raise ValueError(
            f"{id} is {place.trainer_target!r}; expected SupervisedTrainer: scheduled weights need a trainer that tells "
            "the loss the epoch."
        )
    notes.append(
        f"{id} is {place.trainer_target!r}, not SupervisedTrainer, and stays: the loss makes its maps itself, and its "
        "terms are not logged."
    )
