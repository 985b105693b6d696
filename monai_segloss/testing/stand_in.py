"""A stand-in for the network of a loss that takes features of one: they are made from the logits of the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_segloss.core.module import SegLoss
from monai_segloss.core.taps import NetworkShape, Tap
from monai_segloss.prior.networks import untrained

SEED = 0


def half(x: Tensor) -> Tensor:
    """Means over two voxels along each axis; the last one of an odd length by itself."""
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        whole = x.narrow(axis, 0, n - n % 2).unflatten(axis, (n // 2, 2)).mean(axis + 1)  # type: ignore[no-untyped-call]
        x = torch.cat((whole, x.narrow(axis, n - 1, n % 2)), axis)
    return x


def bright_middle(logits: Tensor) -> Tensor:
    """An image (B, 1, *S): products of half a sine along each axis, for all samples, whatever is predicted."""
    space = logits.shape[2:]
    image = torch.ones(
        (len(logits), 1, *space), dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device
    )
    for axis, n in enumerate(space):
        steps = (torch.arange(n, dtype=image.dtype, device=image.device) + 0.5) / n
        image = image * torch.sin(torch.pi * steps).reshape(-1, *[1] * (len(space) - axis - 1))
    return image


def features(logits: Tensor, taps: tuple[str, ...]) -> dict[str, Tensor]:
    """What a network would hand over: the logits as decoder features and finest skip, means of them at coarser grids, and
    an image that does not depend on them."""
    once = half(logits if logits.dtype == torch.float64 else logits.float())
    every = {
        "image": bright_middle(logits),
        "decoder": logits,
        "middle": once,
        "bottleneck": half(once),
        "skip_0": logits,
        "skip_1": once,
    }
    return {name: x for name, x in every.items() if name in taps or (name.startswith("skip") and "skips" in taps)}


@dataclass(frozen=True)
class StandIn:
    """Forward hook that hands the features over, where the caller does not."""

    taps: tuple[str, ...]

    def __call__(self, loss: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        logits = args[0] if args else kwargs["input"]
        usable = (
            isinstance(logits, Tensor)
            and logits.is_floating_point()
            and logits.layout == torch.strided
            and logits.ndim > 1
        )
        sent = args[1] if len(args) > 1 and isinstance(args[1], Mapping) else {}
        found = features(logits, self.taps) if usable else {}
        return args, {**{name: x for name, x in found.items() if name not in sent}, **kwargs}


def prepared(loss: SegLoss, logits: Tensor) -> SegLoss:
    """A loss that brings networks along, with these for a stand-in whose weights are the same every time."""
    if not loss.taps and not loss.brings:
        return loss
    found = features(logits, loss.taps)
    taps = {name: Tap("", x.shape[1], tuple(x.shape[2:])) for name, x in found.items()}
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(SEED)
        shape = NetworkShape(logits.shape[1], tuple(logits.shape[2:]), taps=taps)
        loss.prepare(shape)
        while loss.prior_kind is not None:
            loss.take_prior(untrained(loss.prior_kind, shape, loss.reader.sigmoid))
        loss = loss.double() if logits.dtype == torch.float64 else loss
    loss.requires_grad_(False)  # the contract is about what is given to the call
    loss.register_forward_pre_hook(StandIn(loss.taps), with_kwargs=True)
    return loss
