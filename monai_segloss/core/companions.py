"""What a loss may bring along alongside its formula: heads, opponents and a prior, built for a network.

Heads are trained with the network, opponents against it by an optimizer of their own, a prior was trained beforehand and
stays as it is.  None of them is in the network, so that a network is saved and predicts as if they did not exist; the state
of all of them is in the ``state_dict`` of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from monai_segloss.core.prior import Prior, PriorError, read_prior
from monai_segloss.core.sync import average_over_processes, broadcast
from monai_segloss.core.taps import NetworkShape, missing


class Companions:
    """In front of ``nn.Module``: a loss that brings nothing along.  A loss that does overrides what it needs.

    The life of a loss that does: made with its settings; `prepare` builds heads and opponents, before the optimizer of the
    network takes `learnable`; `load_prior` where `prior_kind` names one; each call is handed the `taps` as keywords; each
    training step ends with `update`.
    """

    shape: NetworkShape | None = None
    """Of the network that the loss is prepared for."""

    @property
    def taps(self) -> tuple[str, ...]:
        """What the loss takes from the network, names of `monai_segloss.core.taps.TAPS`."""
        return ()

    @property
    def brings(self) -> bool:
        """Whether the loss must be prepared for a network; not for the image, which comes with the batch."""
        return any(name != "image" for name in self.taps)

    @property
    def tells_scales_apart(self) -> bool:
        """Whether the loss computes something else at the coarser scales of deep supervision."""
        return self.brings

    @property
    def prior_kind(self) -> str | None:
        """The kind of prior that the loss wants and has not got."""
        return None

    def prepare(self, shape: NetworkShape) -> None:
        """Build heads and opponents for a network; once, before the optimizer is made."""
        self.shape = shape

    def take_prior(self, prior: Prior) -> None:
        """Take a prior of the kind that is wanted, after `prepare`.

        Raises:
            PriorError: it was trained for other classes, another patch or spacing.
        """

    @final
    def load_prior(self, file: Path) -> None:
        """Take a prior from its file; see `take_prior`, and `monai_segloss.core.prior.read_prior`."""
        prior = read_prior(file)
        if prior.header.kind != self.prior_kind:
            raise PriorError(
                f"prior: {str(file)!r} is of the kind {prior.header.kind!r}, expected {self.prior_kind!r}."
            )
        self.take_prior(prior)

    def update(self) -> dict[str, Tensor]:
        """The step of the opponents, after that of the network: the detached value of each one's own loss, by its name."""
        return {}

    def refuse_missing(self, maps: Mapping[str, Any]) -> None:
        """Raise ValueError where the caller did not hand over what the loss takes from the network."""
        absent = missing(self.taps, maps)
        if absent:
            raise ValueError(
                f"{type(self).__name__} takes {', '.join(self.taps)} from the network, and {', '.join(absent)} "
                f"did not come: hand the features over as keywords, see monai_segloss.Taps."
            )


def learnable(loss: nn.Module) -> list[nn.Parameter]:
    """The parameters of a loss that the optimizer of the network trains."""
    return [p for p in loss.parameters() if p.requires_grad]


def parameter_groups(loss: nn.Module, weight_decay: float | None = None) -> list[dict[str, Any]]:
    """The same as groups of an optimizer: heads with this weight decay, other weights, which a decay would pull, without.

    Args:
        loss: prepared for its network.
        weight_decay: of the heads; None: that of the optimizer.
    """
    heads = {id(p) for module in loss.modules() for p in getattr(module, "heads", nn.Module()).parameters()}
    decayed = [p for p in learnable(loss) if id(p) in heads]
    rest = [p for p in learnable(loss) if id(p) not in heads]
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    found = [{"params": decayed, **decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in found if group["params"]]


def share_between_processes(loss: nn.Module) -> None:
    """Under DistributedDataParallel: the weights of the first process everywhere, and gradients averaged as they come.

    Opponents average theirs by themselves.  Nothing is done for a loss that trains nothing.

    Every process must use every parameter in every step, and the loss must be on the device of its process.
    """
    opponents = [each for module in loss.modules() for each in getattr(module, "opponents", {}).values()]
    trained = learnable(loss)
    for each in (*loss.parameters(), *loss.buffers()) if trained or opponents else ():
        broadcast(each.data)
    for opponent in opponents:
        opponent.share()
    for parameter in trained:
        parameter.register_hook(average_over_processes)  # type: ignore[no-untyped-call]


def float_features(features: Tensor, module: nn.Module) -> Tensor:
    """Features in the precision of the module that reads them: a network under autocast gives half precision."""
    first = next((x for x in (*module.parameters(), *module.buffers()) if x.is_floating_point()), None)
    return features.float() if first is None else features.to(first.dtype)


class Frozen(nn.Module):
    """A module that is not trained and stays in evaluation mode, whatever is done to what holds it; gradients pass it.

    Its weights become buffers, so that no optimizer, no ``requires_grad_`` and no average of gradients finds them.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for part in module.modules():
            for name, weight in list(part.named_parameters(recurse=False)):
                delattr(part, name)
                part.register_buffer(name, weight.detach().clone())
        self.module = module.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        """Move as the module would, but never to half precision."""

        def keep_float64(x: Tensor) -> Tensor:
            moved = fn(x.new_empty(0))
            return fn(x) if moved.dtype not in (torch.float16, torch.bfloat16) else x.to(moved.device)

        return super()._apply(keep_float64, recurse)  # type: ignore[no-untyped-call]

    def forward(self, *inputs: Tensor) -> Any:
        """What the module gives."""
        return self.module(*inputs)
