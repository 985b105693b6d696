"""What a bundle does with its labels before the loss sees them, read off its training configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_segloss.bundle.keys import REFERENCE, follow, is_expression, resolved

LABEL = "label"
"""Key of the label in a batch, which MONAI's trainers hand to the loss."""

INTERPOLATING = ("bilinear", "linear", "bicubic", "trilinear", "area")
MODES = ("mode", "upsample_mode", "grid_mode")
RESIZING = ("Resized", "Zoomd", "SpatialResampled", "ResampleToMatchd", "Affined")
PERMUTING = ("Orientationd", "Transposed")
FORGETFUL = ("PersistentDataset", "CacheNTransDataset", "LMDBDataset", "GDSDataset")
"""Datasets that keep no affine unless ``track_meta`` is true."""


@dataclass(frozen=True)
class Step:
    """One transform of the training data."""

    id: str
    kind: str
    """Name of its class, without the module."""
    node: Mapping[str, Any]
    keys: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.kind} at {self.id!r}"

    def of_label(self, value: Any) -> Any:
        """What one value, or one per key, is for the label."""
        if isinstance(value, list | tuple):
            return value[self.keys.index(LABEL)] if len(value) == len(self.keys) else value[0] if value else None
        return value


@dataclass(frozen=True)
class Pipeline:
    """The data set that a trainer trains on, and its transforms in their order."""

    dataset: Mapping[str, Any]
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, config: Any, trainer: str) -> Pipeline:
        """That of the trainer at an id; empty where it is known at run time only."""
        id, dataset = f"{trainer}#train_data_loader", None
        for key in ("dataset", "data", "data"):
            id, dataset = follow(config, id)
            if not isinstance(dataset, Mapping) or "transform" in dataset:
                break
            id = f"{id}#{key}"
        else:
            id, dataset = follow(config, id)
        if not isinstance(dataset, Mapping):
            return cls({}, ())
        return cls(dataset, tuple(_steps(config, f"{id}#transform")))

    @property
    def of_label(self) -> Iterator[Step]:
        """The transforms of the label."""
        return (step for step in self.steps if LABEL in step.keys)

    @property
    def label_is_no_image(self) -> bool:
        """Whether images are loaded and the label is not: it is then a number, or made up elsewhere."""
        loaders = [step for step in self.steps if step.kind.startswith("LoadImage")]
        return bool(loaders) and not any(LABEL in step.keys for step in loaders)

    def interpolated(self, config: Any) -> list[str]:
        """A sentence for each transform that interpolates the label, with the option that mends it."""
        found = []
        for step in self.of_label:
            for name, default in _modes(step):
                mode = resolved(config, step.node.get(name, default))
                own = step.of_label(mode)
                if own in INTERPOLATING or (isinstance(own, int) and own > 0):
                    said = "" if name in step.node else "its default "
                    found.append(
                        f"{step.name} moves {LABEL!r} with {said}{name} {own!r}, which makes fractions of labels: "
                        f'set --{step.id}#{name} "{_with_nearest(step, mode)}".'
                    )
        return found

    def spacing(self, config: Any, axes: int | None) -> tuple[tuple[float, ...] | None, list[str]]:
        """The voxel spacing of the labels, and what is to be known of it.

        Args:
            config: the training configuration.
            axes: number of spatial axes, if known.
        """
        found: tuple[float, ...] | None = None
        why, notes = "no Spacingd resamples the label", list[str]()
        for step in self.of_label:
            if step.kind == "Spacingd":
                pixdim, notes = resolved(config, step.node.get("pixdim")), []
                found = _lengths(pixdim, axes)
                why = f"pixdim of {step.name} is {pixdim!r}"
            elif found is None:
                continue
            elif step.kind in RESIZING or (_swaps_unequal(step, found, config)):
                found, why = None, f"{step.name} changes the voxels after Spacingd"
            elif step.kind == "RandZoomd" or step.node.get("scale_range"):
                notes.append(f"{step.name} scales labels at random; distances are measured in the spacing without it.")
        if found is not None:
            return found, notes
        kind = str(self.dataset.get("_target_")).rpartition(".")[2]
        if kind in FORGETFUL and self.dataset.get("track_meta") is not True:
            return None, [f"{why}, and {kind} keeps no affine, so that distances count voxels: say --spacing."]
        return None, [f"{why}: distances are measured with the affine of each label; --spacing says otherwise."]


def activation(config: Any, trainer: str) -> str | None:
    """What the postprocessing of a trainer makes of the network's output: ``"softmax"``, ``"sigmoid"`` or None."""
    for step in _steps(config, f"{trainer}#postprocessing"):
        if step.kind == "Activationsd" and "pred" in step.keys:
            for name in ("softmax", "sigmoid"):
                value = step.node.get(name)
                if value is True or (isinstance(value, list) and value and value[step.keys.index("pred")] is True):
                    return name
    return None


def run_id(config: Mapping[str, Any], trainer: str) -> str | None:
    """The key that MONAI is told to run: ``run``, ``training`` ..., whose expression calls ``run`` of the trainer."""
    call = re.compile(rf"@{'(?:#|::)'.join(trainer.split('#'))}\.run\(")
    found = [
        str(key)
        for key, value in config.items()
        if any(isinstance(each, str) and call.search(each) for each in (value if isinstance(value, list) else [value]))
    ]
    return "run" if "run" in found else found[0] if found else None


def _steps(config: Any, id: str, seen: frozenset[str] = frozenset()) -> Iterator[Step]:
    """The transforms at an id, in a list, a ``Compose``, or an expression that puts lists together."""
    id, value = follow(config, id)
    if id in seen:
        return
    seen |= {id}
    if isinstance(value, Mapping) and "transforms" in value:
        yield from _steps(config, f"{id}#transforms", seen)
    elif isinstance(value, Mapping) and "_target_" in value and value.get("_disabled_") is not True:
        keys = resolved(config, value.get("keys"))
        names = tuple(str(key) for key in (keys if isinstance(keys, list) else [keys] if keys else []))
        yield Step(id, str(value["_target_"]).rpartition(".")[2], value, names)
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from _steps(config, f"{id}#{index}", seen)
    elif is_expression(value):
        for other in REFERENCE.findall(value):
            yield from _steps(config, other.replace("::", "#"), seen)


def _modes(step: Step) -> Iterator[tuple[str, Any]]:
    """The arguments of a transform that say how it interpolates, with their defaults."""
    import monai.transforms

    cls = getattr(monai.transforms, step.kind, None)
    known = inspect.signature(cls).parameters if inspect.isclass(cls) else {}
    for name in MODES:
        if name in known:
            default = known[name].default
            yield name, str(getattr(default, "value", default))
        elif name in step.node:
            yield name, None


def _with_nearest(step: Step, mode: Any) -> list[str]:
    """The modes of all keys, with that of the label mended."""
    modes = mode if isinstance(mode, list) and len(mode) == len(step.keys) else [step.of_label(mode)] * len(step.keys)
    return ["nearest" if key == LABEL else each for key, each in zip(step.keys, modes, strict=True)]


def _lengths(pixdim: Any, axes: int | None) -> tuple[float, ...] | None:
    """One positive number per axis, or None."""
    numbers = pixdim if isinstance(pixdim, Sequence) and not isinstance(pixdim, str) else ()
    axes = len(numbers) if axes is None else axes
    if not numbers or len(numbers) < axes or not all(isinstance(x, int | float) and x > 0 for x in numbers[:axes]):
        return None
    return tuple(float(x) for x in numbers[:axes])


def _swaps_unequal(step: Step, spacing: tuple[float, ...], config: Any) -> bool:
    """Whether a transform exchanges axes of different spacing."""
    axes: Any = range(len(spacing))
    if step.kind in ("RandRotate90d", "Rotate90d"):
        axes = resolved(config, step.node.get("spatial_axes", [0, 1]))
    elif step.kind not in PERMUTING:
        return False
    return len({spacing[axis] for axis in axes if isinstance(axis, int) and axis < len(spacing)}) > 1
