"""What a loss takes from nnU-Net's network and brings along next to it, see `monai_segloss.core.companions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import Tensor, nn

from monai_segloss.core.companions import parameter_groups, share_between_processes
from monai_segloss.core.module import SegLoss
from monai_segloss.core.probe import network_shape
from monai_segloss.core.taps import NetworkShape, Taps
from nnunet_trainers import building, prior

if TYPE_CHECKING:
    from nnunet_trainers.base import SegLossTrainer


def hooked(taps: tuple[str, ...]) -> list[str]:
    """The taps that are read by hooks; the image is in the batch."""
    return [name for name in taps if name != "image"]


def prepare(trainer: SegLossTrainer, loss: SegLoss) -> Taps | None:
    """Build what the loss brings along, for the network of the trainer; the hooks of its taps."""
    prior.refuse_measured(trainer, loss)
    taps = _prepare(trainer, loss) if loss.brings else None
    if "image" in loss.taps and not loss.brings:
        trainer.print_to_log_file(f"segloss tap image: {image_channels(trainer)} channels, at each scale")
    if trainer.is_ddp:
        share_between_processes(loss)
    return taps


def _prepare(trainer: SegLossTrainer, loss: SegLoss) -> Taps | None:
    shape = _shape(trainer, loss)
    loss.prepare(shape)
    prior.supply(trainer, loss, shape)
    loss.to(trainer.device)
    for name, tap in shape.taps.items():
        trainer.print_to_log_file(f"segloss tap {name}: {tap.channels} channels at {tap.size}, module {tap.module!r}")
    return Taps(trainer.network, shape.without("image"))


def _shape(trainer: SegLossTrainer, loss: SegLoss) -> NetworkShape:
    """One forward pass, which leaves the random numbers of the training as they are."""
    channels, size = trainer.num_input_channels, trainer.configuration_manager.patch_size
    image = torch.zeros((1, channels, *size), device=trainer.device)
    found = network_shape(trainer.network, image, loss.taps, spacing=trainer.configuration_manager.spacing)
    seen = image_channels(trainer)
    taps = {name: replace(tap, channels=seen) if name == "image" else tap for name, tap in found.taps.items()}
    return replace(found, image_channels=seen, taps=taps)


def image_channels(trainer: SegLossTrainer) -> int:
    """Channels of the image, without an earlier stage."""
    return len(trainer.dataset_json.get("channel_names", trainer.dataset_json.get("modality", ())))


def optimize(trainer: SegLossTrainer, loss: nn.Module) -> None:
    """Make the optimizer that the name of the trainer asks for, and give it what of the loss is trained with the network."""
    if trainer.settings.optimizer == "adam":
        network, rate = trainer.network.parameters(), trainer.initial_lr
        trainer.optimizer = torch.optim.Adam(network, rate, weight_decay=trainer.weight_decay)
        trainer.lr_scheduler = PolyLRScheduler(trainer.optimizer, rate, trainer.num_epochs)
    for group in parameter_groups(loss, trainer.weight_decay):
        trainer.optimizer.add_param_group(group)


def with_image(
    trainer: SegLossTrainer, batch: dict[str, Any], scales: list[Mapping[str, Tensor]]
) -> tuple[dict[str, Any], list[Mapping[str, Tensor]]]:
    """For a loss that takes the image: the batch with its data on the device, and the image without an earlier stage."""
    if "image" not in trainer.loss.loss.taps:
        return batch, scales
    data = batch["data"].to(trainer.device, non_blocking=True)
    return {**batch, "data": data}, [{**scales[0], "image": data[:, : image_channels(trainer)]}, *scales[1:]]


def refuses_compilation(trainer: SegLossTrainer) -> bool:
    """Whether the network must run as it is, because hooks read its features; said in the log."""
    taps = hooked(building.create_loss(trainer.loss_config(), trainer.properties).taps)
    if taps:
        trainer.print_to_log_file(
            f"segloss: torch.compile is off, since the loss reads {', '.join(taps)} of the network"
        )
    return bool(taps)
