"""What stands around a loss and passes on what belongs to it, and the preparation of a loss for MONAI's networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_segloss.core.companions import Companions, parameter_groups, share_between_processes
from monai_segloss.core.prior import Prior, PriorError
from monai_segloss.core.probe import network_shape
from monai_segloss.core.sync import is_distributed
from monai_segloss.core.taps import NetworkShape


class Around(Companions, nn.Module):
    """A module around a loss: it needs, takes and brings along what the loss does.

    Args:
        loss: one of ours, or any other callable.
    """

    loss: Any

    def __init__(self, loss: nn.Module | Callable[..., Tensor]) -> None:
        super().__init__()
        self.loss = loss

    @property
    def needs(self) -> tuple[Any, ...]:
        """The maps of the loss."""
        return tuple(getattr(self.loss, "needs", ()))

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(getattr(self.loss, "taps", ()))

    @property
    def brings(self) -> bool:
        return bool(getattr(self.loss, "brings", False))

    @property
    def tells_scales_apart(self) -> bool:
        return bool(getattr(self.loss, "tells_scales_apart", False))

    @property
    def prior_kind(self) -> str | None:
        return getattr(self.loss, "prior_kind", None)

    def prepare(self, shape: NetworkShape) -> None:
        """Build what the loss brings along."""
        super().prepare(shape)
        getattr(self.loss, "prepare", lambda _: None)(shape)

    def take_prior(self, prior: Prior) -> None:
        """Give the loss its prior."""
        self.loss.take_prior(prior)

    def update(self) -> dict[str, Tensor]:
        """The step of the opponents of the loss, and their losses."""
        found: dict[str, Tensor] = getattr(self.loss, "update", dict)()
        return found

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to the loss, if it takes one."""
        getattr(self.loss, "set_epoch", lambda _: None)(epoch)

    def end_epoch(self, means: Mapping[str, float]) -> None:
        """Hand the means of the terms on to the loss, if it takes them."""
        getattr(self.loss, "end_epoch", lambda _: None)(means)


def prepared(
    loss: Any,
    network: nn.Module,
    in_channels: int,
    patch_size: Sequence[int],
    spacing: Sequence[float] | None = None,
    taps: Mapping[str, str] | None = None,
    prior: Callable[[Any, NetworkShape, torch.device], None] | None = None,
) -> Any:
    """The loss, with heads and opponents built for the network where it brings any along; before the optimizer is made.

    Args:
        loss: whatever the trainer trains with; a loss that brings nothing stays as it is.
        network: on any device; a pass of zeros goes through it in evaluation mode.
        in_channels: of the image.
        patch_size: in voxels.
        spacing: of a voxel, in array axis order, in mm.
        taps: tap -> module of the network whose output it is, where the search does not find it.
        prior: gives the loss the priors that it wants and has not got, such as a `DatalistPrior`.

    Raises:
        TapError: the network has not got what the loss takes; the message names its modules.
        PriorError: the loss wants a prior and was given none, or ``prior`` has none that fits.

    Example:
        >>> from monai_segloss import DiceCELoss
        >>> loss = DiceCELoss(softmax=True, to_onehot_y=True)
        >>> prepared(loss, nn.Conv2d(1, 2, 1), 1, (8, 8)) is loss
        True
    """
    device = next(iter(network.parameters()), torch.empty(0)).device
    if getattr(loss, "brings", False):
        image = torch.zeros((1, in_channels, *patch_size), device=device)
        shape = network_shape(network, image, loss.taps, taps, spacing)
        loss.prepare(shape)
        if prior is not None:
            prior(loss, shape, device)
        if loss.prior_kind is not None:
            raise PriorError(
                f"loss: it wants a prior of the kind {loss.prior_kind!r}: train one with `segloss prior train DATASET "
                f"--kind {loss.prior_kind}` and give its file as the argument prior."
            )
    if is_distributed() and isinstance(loss, nn.Module):
        share_between_processes(loss.to(device))
    return loss


def parameters(network: nn.Module, loss: Any) -> list[dict[str, Any]]:
    """What the optimizer trains, as its groups: the network, and what the loss trains with it.

    Weights that a loss learns have no weight decay, which would pull them to 0; its heads have that of the optimizer.

    Example:
        >>> from monai_segloss import DiceLoss
        >>> [sorted(group) for group in parameters(nn.Conv2d(1, 2, 1), DiceLoss())]
        [['params']]
    """
    own = parameter_groups(loss) if isinstance(loss, nn.Module) else []
    return [{"params": list(network.parameters())}, *own]
