"""What `segloss check` looks for: data sets, bundles and configuration files that do not fit a loss."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from monai_segloss import LossConfig, LossInfo, SegLoss, find

WRAPPERS = ("DeepSupervision", "DeepSupervisionLoss", "KnownSpacing")


class CannotCheck(Exception):
    """The path is none of the things that can be checked, or cannot be read."""


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``level`` is ``"ok"``, ``"warning"`` or ``"error"``."""

    level: str
    text: str


def check(path: Path, info: LossInfo | None = None) -> list[Finding]:
    """Findings about an nnU-Net raw data set, a bundle folder or a configuration file.

    Raises:
        CannotCheck: the path does not exist, is none of the three, or is no data set and comes with a loss.
    """
    if not path.exists():
        raise CannotCheck(f"{path} does not exist.")
    if (path / "dataset.json").is_file():
        return list(_dataset(path, info))
    if info is not None:
        raise CannotCheck(f"{path} is no data set and names its loss itself: leave --loss out.")
    if path.is_file():
        return list(_configuration(path))
    if (path / "configs" / "metadata.json").is_file():
        return list(_bundle(path))
    raise CannotCheck(
        f"{path} holds neither a dataset.json (nnU-Net raw data set) nor a configs/metadata.json (bundle)."
    )


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
    except (TypeError, ValueError, KeyError) as error:
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


def _bundle(path: Path) -> Iterator[Finding]:
    from monai_segloss.bundle.overlays import written_out

    files = sorted([*path.glob("configs/train.*"), *path.glob("configs/losses/*")])
    if not files:
        yield Finding("error", f"{path} has no configs/train.json, .yaml or .yml, and so no loss.")
    for file in files:
        data = read_file(file)
        if not isinstance(data, Mapping) or not isinstance(data.get("loss"), Mapping):
            yield Finding("error", f"{file.relative_to(path)} has no key 'loss'.")
            continue
        yield from check_component(f"{file.relative_to(path)}: loss", written_out(data["loss"], data))


def _dataset(path: Path, info: LossInfo | None) -> Iterator[Finding]:
    description = read_file(path / "dataset.json")
    missing = [k for k in ("channel_names", "labels", "file_ending") if k not in description]
    if missing:
        yield Finding("error", f"dataset.json lacks {', '.join(missing)}.")
        return
    labels: Mapping[str, Any] = description["labels"]
    regions = any(isinstance(value, list | tuple) for value in labels.values())
    ignore = labels.get("ignore")
    yield from _fits(info, regions, ignore is not None)
    known = {v for value in labels.values() for v in (value if isinstance(value, list | tuple) else [value])}
    files = sorted((path / "labelsTr").glob(f"*{description['file_ending']}"))
    if not files:
        yield Finding("error", f"labelsTr holds no file that ends with {description['file_ending']}.")
        return
    yield from _cases(path, description, files, known)


def _fits(info: LossInfo | None, regions: bool, ignore: bool) -> Iterator[Finding]:
    if info is None:
        return
    for present, word in ((regions, "regions"), (ignore, "ignore"), (not regions, "labels")):
        if present and word not in info.support:
            yield Finding("error", f"{info.key} does not support {word}, which this data set has.")
    if info.needs:
        yield Finding("ok", f"{info.key} computes what it needs itself: {', '.join(spec.key for spec in info.needs)}")


def _cases(path: Path, description: Mapping[str, Any], files: list[Path], known: set[int]) -> Iterator[Finding]:
    import numpy as np
    from rich.progress import track

    ending, channels = description["file_ending"], len(description["channel_names"])
    holds: Counter[int] = Counter()
    voxels: Counter[int] = Counter()
    shapes, spacings = [], []
    for file in track(files, description="Reading labels", transient=True):
        case = file.name.removesuffix(ending)
        array, spacing = read_image(file)
        for channel in range(channels):
            image = path / "imagesTr" / f"{case}_{channel:04d}{ending}"
            if not image.is_file():
                yield Finding("error", f"{case}: image {image.name} is missing from imagesTr.")
        values, counts = np.unique(array, return_counts=True)
        wrong = sorted(set(values.tolist()) - known)
        if wrong:
            found = counts[values == wrong[0]][0]
            yield Finding("error", f"{case}: label {wrong[0]} ({found} voxels) is not in dataset.json.")
        holds.update(int(v) for v in values)
        voxels.update({int(v): int(n) for v, n in zip(values, counts, strict=True)})
        shapes.append(array.shape)
        spacings.append(spacing)
    total = sum(voxels.values())
    for name, value in description["labels"].items():
        parts = value if isinstance(value, list | tuple) else [value]
        if not any(holds[v] for v in parts):
            yield Finding("warning", f"class {name!r} is empty in all {len(files)} cases.")
            continue
        share = 100 * sum(voxels[v] for v in parts) / total
        cases = max(holds[v] for v in parts)
        yield Finding("ok", f"class {name!r}: in {cases} of {len(files)} cases, {share:.3g} % of the voxels")
    low, high = (tuple(round(float(x), 4) for x in f(np.asarray(spacings), axis=0)) for f in (np.min, np.max))
    yield Finding("ok", f"voxel spacing {low} to {high} mm, in array axis order")
    yield Finding(
        "ok", f"sizes {tuple(np.min(shapes, axis=0).tolist())} to {tuple(np.max(shapes, axis=0).tolist())} voxels"
    )
    if max(high) > 2 * min(high):
        yield Finding("warning", "the voxels are anisotropic: losses that measure distances need the spacing.")


def read_image(file: Path) -> tuple[Any, tuple[float, ...]]:
    """Array and spacing in array axis order of an image file that SimpleITK reads."""
    try:
        import SimpleITK as sitk  # noqa: N813
    except ImportError:
        raise CannotCheck("reading images needs SimpleITK: pip install 'monai-segloss[nnunet]'") from None
    try:
        image = sitk.ReadImage(str(file))
    except RuntimeError:
        raise CannotCheck(f"{file} cannot be read as an image.") from None
    return sitk.GetArrayFromImage(image), tuple(reversed(image.GetSpacing()))
