"""Opponents: networks that are trained against the segmentation network, by an optimizer of their own."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_segloss.core.errors import NotFiniteError
from monai_segloss.core.sync import average_over_processes, broadcast

CLIP = 12.0
"""Largest norm of the gradient of an opponent, as nnU-Net clips that of the network."""
FORGOTTEN = 100
"""Calls in training after which an opponent that was never trained is taken for a forgotten one."""


class OpponentError(NotFiniteError):
    """An opponent that can no longer be trained."""


class Opponent:
    """A discriminator or critic with its optimizer.

    It is no part of the modules of a loss, so that the optimizer of the network never sees its parameters; the loss keeps
    its state.  It is computed in float32 under autocast too, so that it needs no gradient scaler.

    In each training step `judge` gives what it says of the batch and `remember` keeps the batch, detached, until `step`,
    after the step of the network.  Of several calls before one step the last counts.  Copies and files never hold a batch.

    Args:
        network: trained by `step` alone; in training mode only there.
        lr, betas: of Adam.
        clip: largest norm of its gradient.
        bound: largest absolute value of its parameters, or None.  At first they are scaled into it: cut off they would be
            alike.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        clip: float = CLIP,
        bound: float | None = None,
    ) -> None:
        self.network, self.clip, self.bound = network.float().eval(), clip, bound
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=lr, betas=betas)
        self.steps = 0
        self._batch: tuple[Any, ...] | None = None
        self._calls = 0
        if bound is not None:
            for parameter in self.network.parameters():
                parameter.data *= bound / float(parameter.data.abs().max().clamp_min(bound))

    def judge(self, *inputs: Tensor) -> Any:
        """What the network gives, for the step of the segmentation network: gradients reach the inputs alone."""
        fixed = {name: x.detach() for name, x in self.tensors}
        return torch.func.functional_call(self.network, fixed, tuple(map(self._like_weights, inputs)))

    def remember(self, *batch: Any) -> None:
        """Keep what `step` is to be trained on; nothing in validation, which has no gradients."""
        if not (torch.is_grad_enabled() and any(x.requires_grad for x in batch if isinstance(x, Tensor))):
            return
        self._batch = tuple(x.detach() if isinstance(x, Tensor) else x for x in batch)
        self._calls += 1
        if self._calls == FORGOTTEN:
            warnings.warn(
                f"the loss was called {FORGOTTEN} times in training and its {type(self.network).__name__} was not trained "
                "once: call loss.update() after each step of the optimizer.",
                stacklevel=2,
            )

    def step(self, loss: Callable[..., Tensor]) -> Tensor | None:
        """One step of its optimizer, alike in all processes, on what was remembered.

        Args:
            loss: called with the network and what `remember` was given.

        Returns:
            the detached value of the loss, the mean over all processes; None where nothing was remembered, and NaN,
            without a step, where that was not finite.

        Raises:
            OpponentError: the loss or the gradient is no longer finite; the weights stay as they are.
        """
        batch, self._batch, self._calls = self._batch, None, 0
        if batch is None:
            return None
        self.network.train()
        try:
            with torch.enable_grad(), torch.autocast(self.device.type, enabled=False):
                self.optimizer.zero_grad(set_to_none=True)
                value = loss(self.network, *(self._like_weights(x) for x in batch))
                value.backward()  # type: ignore[no-untyped-call]
        finally:
            self.network.eval()
        value = average_over_processes(value.detach())
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                parameter.grad = average_over_processes(parameter.grad)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        if bool(torch.isfinite(value) & torch.isfinite(norm)):
            self.optimizer.step()
            if self.bound is not None:
                for parameter in self.network.parameters():
                    parameter.data.clamp_(-self.bound, self.bound)
            self.steps += 1
            return value
        if self._finite(batch):
            raise OpponentError(
                f"the {type(self.network).__name__} that is trained against the network has diverged after {self.steps} "
                f"steps: its loss is {float(value):g} and the norm of its gradient {float(norm):g}. A lower learning rate "
                "of it, or a lower weight of its term, may help."
            )
        return torch.full_like(value, torch.nan)

    def _like_weights(self, x: Any) -> Any:
        return x.to(self.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    def _finite(self, batch: tuple[Any, ...]) -> bool:
        """Whether a batch is, in all processes."""
        here = all(bool(x.isfinite().all()) for x in batch if isinstance(x, Tensor))
        return float(average_over_processes(torch.tensor(float(here), device=self.device))) == 1

    @property
    def tensors(self) -> list[tuple[str, Tensor]]:
        """Parameters and buffers by name."""
        return list(itertools.chain(self.network.named_parameters(), self.network.named_buffers()))

    @property
    def device(self) -> torch.device:
        """Of its parameters."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of its parameters."""
        return next(self.network.parameters()).dtype

    def share(self) -> None:
        """Take the weights of the first process."""
        for _, each in self.tensors:
            broadcast(each.data)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move it as ``nn.Module._apply`` would, but never to half precision."""
        moved = fn(torch.empty(0, dtype=self.dtype, device=self.device))
        self.network.to(moved.device, torch.float64 if moved.dtype == torch.float64 else torch.float32)
        self.optimizer.load_state_dict(self.optimizer.state_dict())  # its state follows the parameters
        self._batch = None

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and the number of steps."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; its tensors stay the caller's."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.steps, self._batch = int(state["steps"]), None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_batch": None, "_calls": 0}
