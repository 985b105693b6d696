"""One of our losses in a bundle that somebody else wrote: where its loss and its trainer are, and an overlay for both."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from monai_segloss import LossConfig, LossInfo
from monai_segloss.bundle.keys import resolved
from monai_segloss.bundle.overlays import component, infos
from monai_segloss.bundle.pipeline import Pipeline, activation, run_id
from monai_segloss.bundle.place import Place, find_loss, training_file
from monai_segloss.bundle.stock import Stock
from monai_segloss.bundle.task import ignored, network_of, refusal
from monai_segloss.checking import read_file
from monai_segloss.losses.compound.weighted_sum import term_arguments
from monai_segloss.schedules import Constant, Rest, Schedule

TRAINER = "monai_segloss.engine.SegLossTrainer"
READINGS = {"labels": {"softmax": True, "to_onehot_y": True}, "regions": {"sigmoid": True}}


@dataclass
class Overlay:
    """A configuration to be named after the bundle's own, and what its user should know."""

    content: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    run_id: str | None = "run"
    """The key that ``python -m monai.bundle run`` is told, where it is not ``run``."""


def generic_overlay(
    config: LossConfig,
    bundle: Path | None = None,
    target: str | None = None,
    spacing: Sequence[float] | str | None = None,
) -> Overlay:
    """The overlay that makes a bundle train with a loss: its loss, and its trainer in our subclass.

    The loss reads and scores as the bundle's own loss does, the defaults of that loss included.  Handlers of the bundle
    stay; what maps, schedules and terms need is in the trainer, so that a shortened list of handlers on other ranks takes
    nothing away.

    Args:
        config: one loss, or a weighted sum.
        bundle: its folder or its training configuration; None: the ids ``loss`` and ``train#trainer`` of the model zoo.
        target: ``"labels"`` (softmax) or ``"regions"`` (sigmoid per channel) instead of what the bundle's loss says.
        spacing: of the voxels, in mm, in array axis order, for a loss that measures distances; ``"affine"``: that of each
            label.  None: ``pixdim`` of the bundle's ``Spacingd``, else the affine.

    Raises:
        ValueError: the bundle's trainer or loss is not found, the bundle does no segmentation, the loss cannot do what the
            bundle asks for, or ``spacing`` has not one number per axis.
    """
    _refuse_companions(config)
    if bundle is None:
        reading = None if target is None else READINGS[target]
        found = Overlay({})
        known = _lengths(config, spacing, None, None, found.notes)
        found.content = {"loss": _measured(component(config, reading), known), "train#trainer#_target_": TRAINER}
        return found
    file = training_file(bundle)
    content = read_file(file)
    place = find_loss(content, file.name)
    stock = Stock.of(content, place.inner)
    for reason in (ignored(place, file), refusal(content, place, stock, file) if target is None else None):
        if reason is not None:
            raise ValueError(reason)
    found = Overlay({}, run_id=run_id(content, place.trainer))
    reading = dict(READINGS[target]) if target is not None else _reading(content, place, stock, found.notes)
    scoring = _scoring(config, stock, found.notes)
    known = _lengths(config, spacing, content, place, found.notes)
    found.content[place.loss] = _measured(_wrapped(component(config, reading, scoring), place), known)
    if place.loss != "loss":
        found.notes.append(
            f"the loss of {file.name} is the key {place.loss!r}, not 'loss'; the overlay replaces it there."
        )
    kind = place.trainer_target.rpartition(".")[2]
    if kind == "SupervisedTrainer":
        found.content[f"{place.trainer}#_target_"] = TRAINER
    elif kind != "SegLossTrainer":
        _keep_trainer(config, place, found.notes)
    found.notes += Pipeline.of(content, place.trainer).interpolated(content)
    return found


def _refuse_companions(config: LossConfig) -> None:
    """Refuse losses whose heads an optimizer must train that the overlay does not know."""
    found = [info.key for info in infos(config).values() if info.brings]
    if found:
        raise ValueError(
            f"{', '.join(found)}: an overlay cannot prepare a loss that takes features of the network. Write "
            "monai_segloss.engine.prepared(...) around the loss in the configuration, and give the optimizer the parameters "
            "of both (docs/how-to/networks.md)."
        )


def measures_distances(config: LossConfig) -> bool:
    """Whether the value of one of the losses changes with the voxel spacing."""
    return any(_in_mm(info) for info in infos(config).values())


def _in_mm(info: LossInfo) -> bool:
    loss = info.cls(**{**info.reading, **info.example})
    if any(spec.in_mm for spec in loss.needs):
        return True
    edge = max(8, info.size)
    label = torch.zeros(1, 1, edge, edge, edge)
    label[..., 1:3, 1:6, 2:5] = label[..., 5:7, 2:4, 1:5] = 1
    logits = torch.randn(1, 2, edge, edge, edge, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = {"full_resolution": not loss.brings}
        values = [loss(logits, label, spacing=steps, **alone) for steps in ((1.0, 1.0, 1.0), (0.2, 1.0, 3.0))]
    return bool(values[0] != values[1])


def _measured(loss: dict[str, Any], spacing: Sequence[float] | None) -> dict[str, Any]:
    """The loss with a spacing that is known."""
    if spacing is None:
        return loss
    return {"_target_": "monai_segloss.engine.KnownSpacing", "loss": loss, "spacing": list(spacing)}


def _reading(config: Any, place: Place, stock: Stock | None, notes: list[str]) -> dict[str, Any]:
    """How the loss of a bundle reads network and labels; what is assumed, or found elsewhere, is noted."""
    reading = None if stock is None else stock.reading
    if reading is not None:
        return reading
    applied = activation(config, place.trainer)
    if stock is None or not stock.known:
        reading = dict(READINGS["regions" if applied == "sigmoid" else "labels"])
        means = "sigmoid per channel" if applied == "sigmoid" else "softmax over one label per voxel"
        notes.append(
            f"the loss at {place.loss!r} is none of MONAI's or PyTorch's and does not say how it reads; {means} is assumed: "
            "say --labels or --regions."
        )
        return reading
    reading = stock.without_activation()
    if applied is None:
        notes.append(
            f"{stock.name} at {place.loss!r} says neither softmax nor sigmoid: the network's output is read as "
            "probabilities, as it was; say --labels or --regions if these are logits."
        )
        return reading
    notes.append(
        f"{stock.name} at {place.loss!r} says neither softmax nor sigmoid; {applied} is taken from "
        f"'{place.trainer}#postprocessing'."
    )
    return {applied: True, **reading}


def _scoring(config: LossConfig, stock: Stock | None, notes: list[str]) -> dict[str, dict[str, Any]]:
    """What each of our losses takes over from the bundle's; what cannot be is noted."""
    if stock is None:
        return {}
    found = {}
    for name, info in infos(config).items():
        chosen = config.arguments if config.loss is not None else term_arguments(info, config.terms[name])
        found[name], lost = stock.carried(info, chosen, term=config.loss is None)
        notes += lost
    return found


def _lengths(
    config: LossConfig, given: Sequence[float] | str | None, content: Any, place: Place | None, notes: list[str]
) -> Sequence[float] | None:
    """The spacing of a loss that measures distances: as given, or what the bundle resamples to."""
    if not measures_distances(config):
        if given is not None:
            notes.append(f"{' + '.join(infos(config))} measures no distances: the spacing is not used.")
        return None
    if isinstance(given, str) or place is None:
        return None if isinstance(given, str) else given
    said = resolved(content, network_of(content, place).get("spatial_dims"))
    axes = said if isinstance(said, int) else None
    if given is not None:
        if axes not in (None, len(given)):
            raise ValueError(
                f"spacing has {len(given)} numbers, the network {axes} spatial axes; expected one number each."
            )
        return given
    found, why = Pipeline.of(content, place.trainer).spacing(content, axes)
    notes += why
    return found


def _wrapped(loss: dict[str, Any], place: Place) -> dict[str, Any]:
    """The loss inside our wrapper for deep supervision, where the bundle's is in one."""
    if place.deep is None:
        return loss
    mode, weights = place.deep.get("weight_mode", "exp"), place.deep.get("weights")
    if weights is None and mode != "exp":
        raise ValueError(
            f"{place.loss}#weight_mode is {mode!r}; expected 'exp', or one number per output as 'weights'."
        )
    given = {} if weights is None else {"weights": weights}
    return {"_target_": "monai_segloss.engine.DeepSupervision", "loss": loss, **given}


def _keep_trainer(config: LossConfig, place: Place, notes: list[str]) -> None:
    """A trainer of another class stays; refuse what only ours can do."""
    id, loss = f"{place.trainer}#_target_", config.build()
    if "image" in loss.taps:
        raise ValueError(
            f"{id} is {place.trainer_target!r}; expected SupervisedTrainer: the loss takes the image, which a trainer of "
            "another class does not hand over."
        )
    schedules = getattr(loss, "schedules", {})
    scheduled = [name for name, schedule in schedules.items() if not _is_constant(schedule)]
    if scheduled:
        raise ValueError(
            f"{id} is {place.trainer_target!r}; expected SupervisedTrainer: scheduled weights need a trainer that tells "
            f"the loss the epoch; with this one give numbers, as {_numbers(config, scheduled)}."
        )
    notes.append(
        f"{id} is {place.trainer_target!r}, not SupervisedTrainer, and stays: the loss makes its maps itself, and its "
        "terms are not logged."
    )


def _is_constant(schedule: Schedule) -> bool:
    return isinstance(schedule, Constant) or (isinstance(schedule, Rest) and _is_constant(schedule.of))


def _numbers(config: LossConfig, scheduled: Sequence[str]) -> str:
    """The options that give a weight which follows the epochs as a number."""
    if config.loss is None:
        return " ".join(f"--term {name}=0.01" for name in scheduled)
    ((_, info),) = infos(config).items()
    known = {f"lambda_{name}": info.parameters.get(f"lambda_{name}") for name in scheduled}
    names = [name for name, p in known.items() if name in config.arguments or (p is not None and p.default is not None)]
    return " ".join(f"--set {name}=0.01" for name in names)
