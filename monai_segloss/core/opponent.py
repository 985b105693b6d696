"""Opponents: networks that are trained against the segmentation network, by an optimizer of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monai_segloss.core.sync import average_over_processes, is_distributed

CLIP = 12.0
"""Largest norm of the gradient of an opponent, as nnU-Net clips that of the network."""


class OpponentError(RuntimeError):
    """An opponent that can no longer be trained."""


class Opponent:
    """A discriminator or critic with its optimizer.

    It is no part of the modules of a loss, so that the optimizer of the network never sees its parameters; the loss keeps
    its state.  It is computed in float32 under autocast too, so that it needs no gradient scaler.

    Args:
        network: trained by `step` alone.
        lr, betas: of Adam.
        clip: largest norm of its gradient.
    """

    def __init__(
        self, network: nn.Module, lr: float = 2e-4, betas: tuple[float, float] = (0.5, 0.999), clip: float = CLIP
    ) -> None:
        self.network, self.clip = network.float(), clip
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=lr, betas=betas)
        self.steps = 0

    @contextmanager
    def fixed(self) -> Iterator[nn.Module]:
        """The network for the step of the segmentation network: gradients pass it and stay out of its parameters."""
        self.network.requires_grad_(False)
        try:
            yield self.network
        finally:
            self.network.requires_grad_(True)

    def step(self, loss: Callable[[nn.Module], Tensor]) -> Tensor:
        """One step of its optimizer on a loss of its own, whose detached value is returned; alike in all processes.

        Raises:
            OpponentError: the loss or the gradient is no longer finite; the weights stay as they are.
        """
        with torch.enable_grad(), torch.autocast(self.device.type, enabled=False):
            self.optimizer.zero_grad(set_to_none=True)
            value = loss(self.network)
            value.backward()  # type: ignore[no-untyped-call]
        if is_distributed():
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad = average_over_processes(parameter.grad)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        if not bool(torch.isfinite(value) & torch.isfinite(norm)):
            raise OpponentError(
                f"the {type(self.network).__name__} that is trained against the network has diverged after {self.steps} "
                f"steps: its loss is {float(value):g} and the norm of its gradient {float(norm):g}. A lower learning rate "
                "of it, or a lower weight of its term, may help; checkpoints before this epoch are whole."
            )
        self.optimizer.step()
        self.steps += 1
        return value.detach()

    @property
    def device(self) -> torch.device:
        """Of its parameters."""
        return next(self.network.parameters()).device

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move it as ``nn.Module._apply`` would, but never to half precision."""
        moved = fn(torch.empty(0, device=self.device))
        self.network.to(moved.device, torch.float64 if moved.dtype == torch.float64 else torch.float32)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # its state follows the parameters

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and the number of steps."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = int(state["steps"])
