"""What `segloss check` looks for: data sets, bundles and configuration files that do not fit a loss."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_segloss import LossInfo

WRAPPERS = ("DeepSupervision", "DeepSupervisionLoss", "KnownSpacing")


class CannotCheck(Exception):
    """The path is none of the things that can be checked, or cannot be read."""


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``level`` is ``"ok"``, ``"warning"`` or ``"error"``."""

    level: str
    text: str


def check(path: Path, info: LossInfo | None = None, jobs: int | None = None) -> list[Finding]:
    """Findings about an nnU-Net raw data set, a bundle folder or a configuration file.

    Args:
        path: of one of the three.
        info: a loss that is to be trained on a data set.
        jobs: processes that open the files of a data set.

    Raises:
        CannotCheck: the path does not exist, is none of the three, or is no data set and comes with more.
    """
    if not path.exists():
        raise CannotCheck(f"{path} does not exist.")
    if (path / "dataset.json").is_file():
        from monai_segloss.checking.dataset import check_dataset

        return check_dataset(path, info, jobs)
    if path.is_dir() and not (path / "configs").is_dir():
        raise CannotCheck(f"{path} holds neither a dataset.json (nnU-Net raw data set) nor a folder configs (bundle).")
    for given, option, why in ((info, "--loss", "names its loss itself"), (jobs, "--jobs", "has no images to open")):
        if given is not None:
            raise CannotCheck(f"{path} is no data set and {why}: leave {option} out.")
    return list(_configuration(path)) if path.is_file() else _bundle(path)


def _bundle(path: Path) -> list[Finding]:
    """What ``segloss bundle check`` finds."""
    try:
        from monai_segloss.bundle.checks import check_bundle
    except ImportError as error:
        raise CannotCheck(f"checking a bundle needs MONAI ({error}): pip install 'monai-segloss[bundle]'.") from None
    try:
        return check_bundle(path, [])
    except (OSError, ValueError) as error:
        raise CannotCheck(str(error)) from None


def read_file(path: Path) -> Any:
    """A JSON or YAML file as plain data."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            import yaml

            return yaml.safe_load(text)
        return json.loads(text)
    except Exception as error:
        raise CannotCheck(f"{path} cannot be read: {error}.") from None


def _configuration(path: Path) -> Iterator[Finding]:
    from pydantic import ValidationError

    from monai_segloss import LossConfig

    data = read_file(path)
    if isinstance(data, Mapping) and isinstance(data.get("loss"), Mapping):
        yield from check_component("loss", data["loss"])
        return
    try:
        config = LossConfig.model_validate(data)
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"]) or path.name
            yield Finding("error", f"{place}: {problem['msg'].removeprefix('Value error, ')}")
        return
    what = config.loss or "sum of " + ", ".join(config.terms)
    yield Finding("ok", f"{path.name} is a valid configuration: {what}")


def check_component(name: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether a component of a bundle is one of our losses and takes its arguments; ``name`` is its id."""
    target = str(node.get("_target_", ""))
    if target.rpartition(".")[2] in WRAPPERS and isinstance(node.get("loss"), Mapping):
        yield from check_component(f"{name}#loss", node["loss"])
        return
    if not target.startswith("monai_segloss."):
        yield Finding(
            "warning", f"{name}._target_ is {target!r}, not a loss of monai_segloss; nothing more is checked."
        )
        return
    arguments = {key: value for key, value in node.items() if not key.startswith("_")}
    if _refers(arguments):
        yield Finding("warning", f"{name} refers to other parts of the bundle; its arguments were not checked.")
        return
    import monai_segloss
    from monai_segloss import SegLoss, find

    wanted = target.removeprefix("monai_segloss.")
    cls = getattr(monai_segloss, wanted, None)
    if not isinstance(cls, type) or not issubclass(cls, SegLoss):
        try:
            text = f"{wanted} is no class; expected {find(wanted).cls.__name__}."
        except KeyError as error:
            text = str(error)
        yield Finding("error", f"{name}._target_: {text}")
        return
    try:
        cls(**arguments)
    except (TypeError, ValueError, KeyError, ImportError) as error:
        yield Finding("error", f"{name}: {error}")
    else:
        yield Finding("ok", f"{name}: {target} takes these arguments")


def _refers(value: Any) -> bool:
    """Whether a value holds a reference, an expression or another component."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(_refers(each) for each in value.values())
    if isinstance(value, list):
        return any(_refers(each) for each in value)
    return isinstance(value, str) and value.startswith(("@", "$", "%"))
