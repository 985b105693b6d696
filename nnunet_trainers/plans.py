"""Losses in nnU-Net's plans: settings that are no numbers, or several terms, get a configuration of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from monai_segloss.config import LossConfig, sentence
from monai_segloss.core.errors import nearest
from monai_segloss.files import read_json, write_json
from nnunet_trainers.recording import KEY

SOFT_LABELS = "soft_labels"
"""The entry, next to those of the loss, that asks for soft labels."""


class PlansError(ValueError):
    """A configuration that cannot be added to the plans."""


def planned(configuration: Mapping[str, Any], name: str) -> tuple[LossConfig | None, bool]:
    """The loss in a configuration of the plans, if there is one, and whether it asks for soft labels.

    Raises:
        ValueError: what stands there is no loss configuration.
    """
    content, place = configuration.get(KEY), f"{KEY!r} in configuration {name!r}"
    if content is None:
        return None, False
    rest = {key: x for key, x in content.items() if key != SOFT_LABELS} if isinstance(content, Mapping) else content
    soft = content.get(SOFT_LABELS, False) if isinstance(content, Mapping) else False
    if not isinstance(soft, bool):
        raise ValueError(f"{place}: {SOFT_LABELS} must be true or false, got {soft!r}")
    try:
        return LossConfig.model_validate(rest), soft
    except ValidationError as error:
        raise ValueError(f"{place}: {sentence(error)}") from None


def add_configuration(
    file: Path,
    parent: str,
    name: str,
    loss: Mapping[str, Any],
    replace: bool = False,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Add ``<parent>_<name>``, which is ``parent`` with another loss, and return what was added.

    The stages of a cascade come together: each stage is added under the same name and points to the others added. The
    configurations that planning writes are never changed, since planning would write them again.

    Args:
        file: the plans (``nnUNetPlans.json`` in the preprocessed data set).
        parent: the configuration to inherit from.
        name: letters and digits, groups of them joined by single underscores.
        loss: a validated loss configuration, as plain JSON.
        replace: whether a configuration of that name with another loss gives way.
        patch_size: in voxels, another one than that of the parent; not in a cascade.
        batch_size: another one than that of the parent; not in a cascade.

    Raises:
        PlansError: the file holds no plans, the parent is unknown, the name is not fit for a folder name or is taken, or the
            network does not take the patch.
    """
    try:
        plans = read_json(file)
        known = plans["configurations"]
    except (ValueError, TypeError, KeyError) as error:
        raise PlansError(f"{file} holds no plans of nnU-Net: {error}.") from None
    if parent not in known:
        raise PlansError(
            f"{file.name} has no configuration {parent!r}{nearest(parent, known)} It has {', '.join(known)}."
        )
    if not re.fullmatch(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*", name):
        raise PlansError(f"name is {name!r}; expected letters and digits, joined by single underscores")
    added = {f"{each}_{name}": _child(known, each, name, loss) for each in _stages(known, parent)}
    sizes = {"patch_size": patch_size and list(patch_size), "batch_size": batch_size}
    sizes = {key: value for key, value in sizes.items() if value is not None}
    if sizes and len(added) > 1:
        raise PlansError(f"{parent!r} is a stage of a cascade, whose stages have sizes of their own; give none")
    if patch_size is not None:
        _refuse_patch(known, parent, patch_size)
    added = {each: {**content, **sizes} for each, content in added.items()}
    for each, content in added.items():
        if each in known and known[each] != content and not replace:
            raise PlansError(f"configuration {each!r} exists with other content; choose another name, or replace it")
    known.update(added)
    write_json(file, plans, indent=4)  # as nnU-Net writes it
    return added


def downsampling(strides: Sequence[int | Sequence[int]], axes: int) -> list[int]:
    """By how much the stages with these strides divide the edges of a patch, along each axis."""
    steps = [1] * axes
    for stride in strides:
        each = [stride] * axes if isinstance(stride, int) else stride
        steps = [step * n for step, n in zip(steps, each, strict=True)]
    return steps


def _refuse_patch(known: Mapping[str, Any], parent: str, patch_size: Sequence[int]) -> None:
    """Refuse a patch of another number of axes, or one that the strides of the network do not divide."""
    patch, architecture = _inherited(known, parent, "patch_size"), _inherited(known, parent, "architecture") or {}
    steps = downsampling(architecture.get("arch_kwargs", {}).get("strides", ()), len(patch or patch_size))
    fits = len(patch_size) == len(steps) and all(
        n > 0 and n % step == 0 for n, step in zip(patch_size, steps, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, steps))
        raise PlansError(f"patch_size is {list(patch_size)}; the network of {parent!r} takes multiples of {wanted}")


def _child(known: Mapping[str, Any], parent: str, name: str, loss: Mapping[str, Any]) -> dict[str, Any]:
    child = {"inherits_from": parent, KEY: dict(loss)}
    previous, following = _inherited(known, parent, "previous_stage"), _following(known, parent)
    if previous is not None:
        child["previous_stage"] = f"{previous}_{name}"
    if following:
        names = [f"{each}_{name}" for each in following]
        child["next_stage"] = names[0] if len(names) == 1 else names
    return child


def _stages(known: Mapping[str, Any], name: str) -> Iterator[str]:
    """The configuration and all stages of its cascade, first stage first."""
    first = name
    while (previous := _inherited(known, first, "previous_stage")) is not None:
        first = previous
    waiting = [first]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += _following(known, each)


def _following(known: Mapping[str, Any], name: str) -> list[str]:
    following = _inherited(known, name, "next_stage")
    return [following] if isinstance(following, str) else list(following or [])


def _inherited(known: Mapping[str, Any], name: str | None, key: str) -> Any:
    while name is not None:
        if name not in known:
            raise PlansError(f"the plans have no configuration {name!r}, which another one refers to")
        if key in known[name]:
            return known[name][key]
        name = known[name].get("inherits_from")
    return None
