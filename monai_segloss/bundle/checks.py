"""What `segloss bundle check` looks for in a bundle and in the configurations named after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties
from monai.utils import BundleProperty, BundlePropertyConfig
from pydantic import ValidationError

from monai_segloss.bundle.keys import MISSING, STATEMENTS, dangling, is_statement, is_used, references, value_at
from monai_segloss.bundle.metadata import BundleMetadata
from monai_segloss.bundle.pipeline import Pipeline, run_id
from monai_segloss.bundle.place import SUFFIXES, Place, find_loss, is_wrapper, training_file
from monai_segloss.bundle.stock import Stock
from monai_segloss.bundle.task import ignored, refusal
from monai_segloss.checking import Finding, check_component, read_file
from monai_segloss.core.errors import nearest


def check_bundle(bundle: Path, overlays: list[Path]) -> list[Finding]:
    """Findings about a bundle, its training and the configurations named after ``train.json``.

    That is metadata, the ids that MONAI asks for, references that lead nowhere, the loss with its arguments, what the
    training does with its labels, and keys of an overlay that nothing uses.

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
        place = find_loss(train, file.name)
    except ValueError as error:
        yield Finding("error", str(error))
        return
    loss, contents = place.loss, [read_file(path) for path in overlays]
    yield from _training(_merged(file, overlays) or train, place, Stock.of(train, place.inner), file)
    yield from _loss(place.node, f"{file.name}: {loss}")
    yield from _folder(bundle / "configs" / "losses", train, file.name, loss)
    for path, content in zip(overlays, contents, strict=True):
        yield from _overlay(content, path.name, train, file.name, loss)


def _metadata(file: Path) -> Iterator[Finding]:
    if not file.is_file():
        yield Finding("error", f"{file.name} is missing from {file.parent}.")
        return
    content = read_file(file)
    if isinstance(content, Mapping) and "optional_packages_version" in content:
        yield Finding(
            "warning",
            f"{file.name}: optional_packages_version is the old name of required_packages_version, which MONAI reads too.",
        )
        content = {"required_packages_version": content["optional_packages_version"], **content}
        del content["optional_packages_version"]
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
    """The ids by which other programs reach into a bundle; `python -m monai.bundle run` needs none of them."""
    missing = 0
    for name, about in properties.items():
        id = about[BundlePropertyConfig.ID].replace("::", "#")
        if about[BundleProperty.REQUIRED] and value_at(config, id) is MISSING:
            missing += 1
            yield Finding(
                "warning",
                f"{file.name} has no key {id!r}, which MONAI requires of a workflow (property {name}): programs such as "
                "MonaiAlgo cannot use the bundle.",
            )
    if not missing:
        yield Finding("ok", f"{file.name}: all ids that MONAI requires")


def _merged(file: Path, overlays: list[Path]) -> Any:
    """The configuration that MONAI makes of several files; None where it cannot, which their own check tells."""
    try:
        return ConfigParser.load_config_files([str(path) for path in (file, *overlays)])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _training(config: Any, stock_place: Place, stock: Stock | None, file: Path) -> Iterator[Finding]:
    """What the training would stumble over, overlays included."""
    run = run_id(config, stock_place.trainer)
    for id, where in dangling(config, [key for key in (*STATEMENTS, run) if key and key in config]).items():
        yield Finding("error", f"{file.name}: {where!r} refers to the key {id!r}, which is missing.")
    if run is None:
        yield Finding("warning", f"no key of {file.name} runs {stock_place.trainer!r}.")
    elif run != "run":
        yield Finding("ok", f"{file.name}: its run id is {run!r}: python -m monai.bundle run {run} --config_file ...")
    try:
        place = find_loss(config, file.name)
    except ValueError as error:
        yield Finding("error", str(error))
        return
    pipeline = Pipeline.of(config, place.trainer)
    yield from (Finding("warning", text) for text in pipeline.interpolated(config))
    ours = isinstance(place.inner, Mapping) and str(place.inner.get("_target_")).startswith("monai_segloss.")
    unused = ignored(place, file) if ours else None
    other_task = refusal(config, stock_place, stock, file) if ours else None
    yield from (Finding("error", text) for text in (unused,) if text)
    yield from (Finding("warning", text) for text in (other_task,) if text)


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
    while is_wrapper(node):
        name, node = f"{name}#loss", node["loss"]
    if isinstance(node, Mapping):
        yield from check_component(name, node)
    else:
        yield Finding("warning", f"{name} is {node!r}, known at run time only; nothing more is checked.")
