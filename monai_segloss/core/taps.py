"""Taps: features that a loss takes from a network while it runs, found once and read by hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

TAPS = {
    "image": "what the network is given",
    "decoder": "what its last layer turns into logits",
    "middle": "the decoder's features halfway between the bottleneck and the full resolution",
    "bottleneck": "the coarsest features, as the decoder receives them",
    "skips": "the encoder's features at each resolution above the bottleneck: skip_0 (finest), skip_1, ...",
}
"""What a loss may take from a network."""


class TapError(ValueError):
    """A network in which a tap is not found."""


@dataclass(frozen=True)
class Tap:
    """Where features are found.

    Args:
        module: name of a module of the network, as ``named_modules`` has it; "" is the network itself.
        channels: of the features.
        size: their grid.
        output: whether they are what the module gives, not what it is given.
        part: which of the tensors that it is given or gives.
    """

    module: str
    channels: int
    size: tuple[int, ...]
    output: bool = False
    part: int = 0


@dataclass(frozen=True)
class NetworkShape:
    """What a loss must know of a network to build what it brings along.

    Args:
        classes: channels of the logits.
        size: grid of logits and image: the patch.
        image_channels: channels of the image.
        spacing: of a voxel, in array axis order, or None.
        taps: the features that are taken, by name.
    """

    classes: int
    size: tuple[int, ...]
    image_channels: int = 1
    spacing: tuple[float, ...] | None = None
    taps: Mapping[str, Tap] = field(default_factory=dict)

    @property
    def axes(self) -> int:
        """2 or 3."""
        return len(self.size)

    def without(self, name: str) -> NetworkShape:
        """The same less a tap that is not read by hooks."""
        return replace(self, taps={key: tap for key, tap in self.taps.items() if key != name})


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside of what torch.compile and DistributedDataParallel put around it."""
    inner = getattr(network, "_orig_mod", None) or getattr(network, "module", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else network


class Taps:
    """Hooks that read the taps of each forward pass; `take` hands them over once.

    Args:
        network: the network that `shape` describes.
        shape: with the taps.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from monai_segloss import Taps, network_shape
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> shape = network_shape(network, torch.zeros(1, 1, 8, 8), ["decoder"])
        >>> taps = Taps(network, shape)
        >>> logits = network(torch.zeros(3, 1, 8, 8))
        >>> {name: tuple(features.shape) for name, features in taps.take().items()}
        {'decoder': (3, 4, 8, 8)}
    """

    def __init__(self, network: nn.Module, shape: NetworkShape) -> None:
        self.features: dict[str, Tensor] = {}
        modules = dict(unwrapped(network).named_modules())
        self._hooks = [self._hook(name, tap, modules[tap.module]) for name, tap in shape.taps.items()]

    def _hook(self, name: str, tap: Tap, module: nn.Module) -> Any:
        def before(_: nn.Module, given: tuple[Any, ...]) -> None:
            self.features[name] = tensors(given)[tap.part]

        def after(_: nn.Module, __: Any, result: Any) -> None:
            self.features[name] = tensors(result)[tap.part]

        return module.register_forward_hook(after) if tap.output else module.register_forward_pre_hook(before)

    def take(self) -> dict[str, Tensor]:
        """The features of the last forward pass, once."""
        found, self.features = self.features, {}
        return found

    def remove(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()


def is_tap(name: str, wanted: Sequence[str]) -> bool:
    """Whether a keyword is one of the wanted taps."""
    return name in wanted or (name.startswith("skip_") and "skips" in wanted)


def missing(wanted: Sequence[str], maps: Mapping[str, Any]) -> list[str]:
    """The wanted taps that were not handed over."""
    return [each for each in wanted if not any(is_tap(name, [each]) for name in maps)]


def tensors(value: Any) -> list[Tensor]:
    """The tensors that a module is given or gives."""
    return [x for x in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(x, Tensor)]
