"""Priors: networks trained beforehand on labels and then frozen, and their files.

A file is safetensors: weights, and a header of JSON in its metadata.  Nothing in it is executed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from monai_segloss.files import atomic

if TYPE_CHECKING:
    from monai_segloss.core.taps import NetworkShape

KINDS = ("autoencoder", "label-unet", "inverse-form")
KEY = "segloss_prior"
MISSING = "a prior is kept in a safetensors file, which needs the package safetensors: pip install safetensors"


class PriorError(ValueError):
    """A file that holds no prior, or a prior that does not fit."""


@dataclass(frozen=True)
class Header:
    """What a prior is, and what it was trained on.

    Args:
        kind: one of `KINDS`.
        classes: channels of the label patches.
        regions: whether these are overlapping regions; otherwise one class per voxel.
        patch: size of the patches.
        spacing: of a voxel, in array axis order, or None.
        cases: names of the training cases that it has seen.
        held_back: names of the training cases by which its quality was measured.
        bottleneck: channels and grid of the network's bottleneck that a label U-Net has.
        network: arguments of the network.
        training: steps, batch, augmentation.
        quality: figures by name.
        versions: of the packages.
    """

    kind: str
    classes: int
    regions: bool
    patch: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    cases: tuple[str, ...] = ()
    held_back: tuple[str, ...] = ()
    bottleneck: tuple[int, tuple[int, ...]] | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def refuse_other(self, shape: NetworkShape, regions: bool) -> None:
        """Refuse a prior that was trained for another network.

        Raises:
            PriorError: classes, patch, spacing, or the kind of target differ; the message has both.
        """
        same_spacing = self.spacing is None or shape.spacing is None or _close(self.spacing, shape.spacing)
        target = {True: "regions", False: "labels"}
        both: dict[str, tuple[Any, Any, bool]] = {
            "classes": (self.classes, shape.classes, self.classes == shape.classes),
            "targets": (target[self.regions], target[regions], self.regions == regions),
            "patch": (self.patch, shape.size, self.patch == tuple(shape.size)),
            "spacing": (self.spacing, shape.spacing, same_spacing),
        }
        if self.bottleneck is not None and "bottleneck" in shape.taps:
            tap = shape.taps["bottleneck"]
            here = (tap.channels, tuple(tap.size))
            one, other = (f"{channels} channels at {size}" for channels, size in (self.bottleneck, here))
            both["bottleneck"] = (one, other, self.bottleneck == here)
        wrong = [f"{name} {there}, here {here}" for name, (there, here, same) in both.items() if not same]
        if wrong:
            raise PriorError(f"prior: it was trained for {'; '.join(wrong)}. Train one with these settings.")


@dataclass(frozen=True)
class Prior:
    """A header with the weights of its network by name."""

    header: Header
    weights: Mapping[str, Tensor]


def save_prior(prior: Prior, file: Path) -> None:
    """Write a prior atomically.

    Raises:
        PriorError: safetensors is not installed.
    """
    tensors = {name: x.detach().cpu().contiguous() for name, x in prior.weights.items()}
    save_file = _safetensors().save_file
    with atomic(file) as part:
        save_file(tensors, part, metadata={KEY: json.dumps(asdict(prior.header))})


def read_prior(file: Path) -> Prior:
    """Read a prior.

    Raises:
        PriorError: there is no such file, or it holds no prior, or safetensors is not installed.
    """
    package = _safetensors()
    if not file.is_file():
        raise PriorError(f"prior: there is no file {str(file)!r}.")
    try:
        with package.safe_open(file, framework="pt") as content:
            header = json.loads((content.metadata() or {})[KEY])
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        for name in ("patch", "spacing", "cases", "held_back"):
            header[name] = None if header.get(name) is None else tuple(header[name])
        if header.get("bottleneck"):
            channels, size = header["bottleneck"]
            header["bottleneck"] = (channels, tuple(size))
        found = Prior(Header(**header), weights)
    except Exception as error:
        raise PriorError(f"prior: {str(file)!r} is no file of `segloss prior train`: {error!r}.") from None
    return found


def refuse_missing_safetensors() -> None:
    """Raise PriorError where the package of the file format is missing."""
    _safetensors()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise PriorError(f"prior: {MISSING}.") from None
    return safetensors.torch


def _close(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return len(one) == len(other) and all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(one, other, strict=True))
