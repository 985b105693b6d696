"""The probe: one forward pass of a network, in which the taps of a loss are found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_segloss.core.taps import TAPS, NetworkShape, Tap, TapError, tensors, unwrapped

SAMPLES = 1024


@dataclass(frozen=True, eq=False)
class _Seen:
    """A tensor that went into a module or came out of it during the probe, in the order of events."""

    name: str
    output: bool
    part: int
    shape: torch.Size
    sample: Tensor

    @property
    def voxels(self) -> int:
        return math.prod(self.shape[2:])

    def tap(self) -> Tap:
        return Tap(self.name, self.shape[1], tuple(self.shape[2:]), self.output, self.part)


def network_shape(
    network: nn.Module,
    image: Tensor,
    wanted: Sequence[str],
    modules: Mapping[str, str] | None = None,
    spacing: Sequence[float] | None = None,
) -> NetworkShape:
    """The shape of a network with the wanted taps, found by one forward pass.

    Args:
        network: in whatever mode, which stays; the pass is in evaluation mode and without gradients.
        image: (1, channels, *S) of the size of a training patch; its values do not matter.
        wanted: names of `TAPS`.
        modules: tap -> name of a module of the network whose output it is, where the search finds another one.
        spacing: of a voxel, in array axis order.

    Raises:
        TapError: a tap is not found; the message lists the modules that could be named.
    """
    network = unwrapped(network)
    logits, seen = _probe(network, image)
    found: dict[str, Tap] = {}
    for name in wanted:
        if name not in TAPS:
            raise TapError(f"no tap is called {name!r}; there are {', '.join(TAPS)}.")
        if modules and name in modules:
            found[name] = _named(name, modules[name], seen)
        elif name == "skips":
            found |= _skips(seen)
        else:
            found[name] = _find(name, logits, seen)
    lengths = None if spacing is None else tuple(map(float, spacing))
    return NetworkShape(logits.shape[1], tuple(logits.shape[2:]), image.shape[1], lengths, found)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _probe(network: nn.Module, image: Tensor) -> tuple[Tensor, list[_Seen]]:
    """Logits at full resolution, and every tensor with the axes of the image, in the order of events."""
    seen: list[_Seen] = []

    def note(name: str, output: bool, value: Any) -> None:
        for part, x in enumerate(tensors(value)):
            if x.ndim == image.ndim:
                seen.append(_Seen(name, output, part, x.shape, _sample(x)))

    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda _, given, name=name: note(name, False, given)))
        hooks.append(module.register_forward_hook(lambda _, __, result, name=name: note(name, True, result)))
    try:
        with _evaluating(network):
            output = network(image)
    finally:
        for hook in hooks:
            hook.remove()
    logits = tensors(output)[:1]
    if logits and logits[0].ndim == image.ndim + 1:  # MONAI's DynUNet stacks the scales in axis 1
        logits = [logits[0][:, 0]]
    if not logits or logits[0].ndim != image.ndim:
        raise TapError(f"the network gives {type(output).__name__}, expected logits (B, C, *S) or a list of them.")
    return logits[0], seen


def _sample(x: Tensor) -> Tensor:
    """A thousand values by which a tensor is known again, so that the probe keeps no features."""
    flat = x.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLES)].clone()


def _find(name: str, logits: Tensor, seen: list[_Seen]) -> Tap:
    if name == "image":
        return next(each for each in seen if each.name == "" and not each.output).tap()
    found = _given_to_last(logits, seen) if name == "decoder" else _given_to_decoder(name, seen)
    if found is None:
        raise _not_found(name, seen)
    return found.tap()


def _given_to_last(logits: Tensor, seen: list[_Seen]) -> _Seen | None:
    """What the innermost module that gives the logits is given."""
    known = _sample(logits)
    gives = (x for x in seen if x.name and x.output and x.shape == logits.shape and torch.equal(x.sample, known))
    last = next(gives, None)
    return next((x for x in seen if last and x.name == last.name and not x.output), None)


def _given_to_decoder(name: str, seen: list[_Seen]) -> _Seen | None:
    """The bottleneck, or the decoder's features in the middle of its resolutions."""
    bottleneck = _enlarged(seen, min(x.voxels for x in seen))
    if name == "bottleneck" or bottleneck is None:
        return bottleneck
    finer = sorted({x.voxels for x in seen if x.voxels >= bottleneck.voxels})
    return _enlarged(seen, finer[len(finer) // 2]) if len(finer) > 2 else None


def _enlarged(seen: list[_Seen], voxels: int) -> _Seen | None:
    """What the last, innermost module is given that makes a larger grid of so many voxels."""
    for i in reversed(range(len(seen))):
        x = seen[i]
        if x.name and not x.output and x.voxels == voxels:
            result = next((y for y in seen[i + 1 :] if y.output and y.name == x.name), None)
            if result is not None and result.voxels > voxels:
                return x
    return None


def _skips(seen: list[_Seen]) -> dict[str, Tap]:
    """The encoder's last features on each grid that the decoder has too, finest first."""
    bottleneck = _enlarged(seen, min(x.voxels for x in seen))
    if bottleneck is None:
        raise _not_found("skips", seen)
    reached = next(i for i, x in enumerate(seen) if x.voxels == bottleneck.voxels)
    finer = {x.shape[2:] for x in seen[seen.index(bottleneck) :] if x.output and x.voxels > bottleneck.voxels}
    last = {x.shape[2:]: x for x in seen[:reached] if x.output and x.name and x.shape[2:] in finer}
    if not last:
        raise _not_found("skips", seen)
    ordered = sorted(last.values(), key=lambda x: x.voxels, reverse=True)
    return {f"skip_{i}": x.tap() for i, x in enumerate(ordered)}


def _named(tap: str, module: str, seen: list[_Seen]) -> Tap:
    found = [each for each in seen if each.name == module and each.output]
    if not found:
        raise TapError(f"{tap}: the network has no module {module!r} that gives features; {_candidates(seen)}")
    return found[-1].tap()


def _not_found(name: str, seen: list[_Seen]) -> TapError:
    return TapError(f"the tap {name!r} ({TAPS[name]}) was not found in the network: name a module; {_candidates(seen)}")


def _candidates(seen: list[_Seen]) -> str:
    """Modules that give features, at most a dozen, with channels and grid."""
    given = {each.name: each.shape for each in seen if each.output and each.name.count(".") <= 1 and each.name}
    shown = [f"{name} {tuple(shape[1:])}" for name, shape in list(given.items())[:12]]
    return f"there are {', '.join(shown)}{' ...' if len(given) > 12 else ''}."
