"""What `segloss bundle check` looks for in a bundle and in the configurations named behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties
from monai.utils import BundleProperty, BundlePropertyConfig
from pydantic import ValidationError

from monai_segloss.bundle.foreign import MISSING, SUFFIXES, find_loss, training_file, value_at
from monai_segloss.bundle.keys import is_statement, is_used, references
from monai_segloss.bundle.metadata import BundleMetadata
from monai_segloss.checking import Finding, check_component, read_file
from monai_segloss.core.errors import nearest


def check_bundle(bundle: Path, overlays: list[Path]) -> list[Finding]:
    """Findings about metadata, the ids that MONAI requires, the loss, and configurations named behind ``train.json``.

    Nothing of the bundle is run.

    Raises:
        CannotCheck, ValueError: there is no such folder, or a file cannot be read.
    """
    return list(_findings(bundle, overlays))


def _findings(bundle: Path, overlays: list[Path]) -> Iterator[Finding]:
    yield from _metadata(bundle / "configs" / "metadata.json")
    try:
        file = training_file(bundle)
    except ValueError as error:
        if not bundle.is_dir():
            raise
        yield Finding("error", str(error))
        return
    train = read_file(file)
    yield from _properties(train, file, TrainProperties)
    for suffix in SUFFIXES:
        inference = bundle / "configs" / f"inference{suffix}"
        if inference.is_file():
            yield from _properties(read_file(inference), inference, InferProperties)
    try:
        loss = find_loss(train, file.name).loss
    except ValueError as error:
        yield Finding("error", str(error))
        return
    yield from _loss(value_at(train, loss), f"{file.name}: {loss}")
    yield from _folder(bundle / "configs" / "losses", train, file.name, loss)
    for path in overlays:
        yield from _overlay(read_file(path), path.name, train, file.name, loss)


def _metadata(file: Path) -> Iterator[Finding]:
    if not file.is_file():
        yield Finding("error", f"{file.name} is missing from {file.parent}.")
        return
    content = read_file(file)
    try:
        BundleMetadata.model_validate(content)
    except ValidationError as error:
        for problem in error.errors():
            id = "#".join(str(part) for part in problem["loc"])
            yield Finding(
                "error", f"{file.name}: {id + ': ' if id else ''}{problem['msg'].removeprefix('Value error, ')}"
            )
        return
    missing = [name for name in MetaProperties if MetaProperties[name][BundleProperty.REQUIRED] and name not in content]
    yield from (Finding("error", f"{file.name}: {name} is missing.") for name in missing)
    yield Finding("ok", f"{file.name}: all that MONAI's schema requires")


def _properties(config: Any, file: Path, properties: Mapping[str, Any]) -> Iterator[Finding]:
    """The ids by which other programs reach into a bundle."""
    missing = 0
    for name, about in properties.items():
        id = about[BundlePropertyConfig.ID].replace("::", "#")
        if about[BundleProperty.REQUIRED] and value_at(config, id) is MISSING:
            missing += 1
            yield Finding("error", f"{file.name} has no key {id!r}, which MONAI requires (property {name}).")
    if not missing:
        yield Finding("ok", f"{file.name}: all ids that MONAI requires")


def _folder(folder: Path, train: Any, train_name: str, loss: str) -> Iterator[Finding]:
    """The overlays of a folder; one line where all are right."""
    files = sorted(folder.glob("*.json"))
    found = [finding for path in files for finding in _overlay(read_file(path), path.name, train, train_name, loss)]
    yield from (finding for finding in found if finding.level != "ok")
    if files and all(finding.level == "ok" for finding in found):
        yield Finding("ok", f"{folder.name}: {len(files)} overlays, each a loss with arguments that it takes")


def _overlay(content: Any, name: str, train: Any, train_name: str, loss: str) -> Iterator[Finding]:
    """Whether the keys of an overlay reach something: MONAI adds a misspelled key without a word."""
    if not isinstance(content, Mapping):
        yield Finding("error", f"{name} holds no keys; expected a configuration such as {{{loss!r}: ...}}.")
        return
    referred = references([train, content])
    for key, value in content.items():
        id = key.removeprefix("+").replace("::", "#")
        parent, _, leaf = id.rpartition("#")
        around = value_at(train, parent) if parent else train
        if id == loss:
            yield from _loss(value, f"{name}: {loss}")
        elif around is MISSING:
            yield Finding("error", f"{name}: the key {key!r} is nowhere in {train_name}, which has no {parent!r}.")
        elif value_at(train, id) is MISSING and not is_used(id, referred) and not is_statement(id, value):
            hint = nearest(leaf, around if isinstance(around, Mapping) else ())
            if not parent:
                yield Finding(
                    "error", f"{name}: nothing uses the key {key!r}{hint or f'; the loss of {train_name} is {loss!r}.'}"
                )
            elif hint:
                yield Finding("warning", f"{name}: the key {key!r} is new in {train_name}{hint}")
    if loss not in (key.replace("::", "#") for key in content):
        yield Finding("ok", f"{name}: read; it leaves the loss of {train_name} as it is")


def _loss(node: Any, name: str) -> Iterator[Finding]:
    if isinstance(node, Mapping) and str(node.get("_target_")).endswith("DeepSupervision"):
        name, node = f"{name}#loss", node.get("loss")
    if isinstance(node, Mapping):
        yield from check_component(name, node)
    else:
        yield Finding("warning", f"{name} is {node!r}, known at run time only; nothing more is checked.")
