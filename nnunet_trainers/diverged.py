"""A training whose loss or network is no longer finite ends, before anything of it is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from monai_segloss.core.errors import NotFiniteError

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

Result = TypeVar("Result")


class DivergedError(RuntimeError):
    """The loss of a whole epoch, the network, or what is trained against it, is NaN or infinite."""


def refuse(trainer: nnUNetTrainer, losses: Sequence[Any], terms: Mapping[str, float]) -> None:
    """Raise `DivergedError`, in all processes, after an epoch from which a training does not come back.

    Single steps with an overflow are no such thing: mixed precision leaves them out.

    Args:
        trainer: at the end of the iterations of an epoch.
        losses: of the iterations.
        terms: mean of each term of the loss.
    """
    steps, lost = len(losses), int((~np.isfinite(np.asarray(losses, dtype=float))).sum())
    network = trainer.network
    broken = not all(torch.isfinite(each).all() for each in [*network.parameters(), *trainer.loss.parameters()])
    broken |= any(bool(torch.isnan(each).any()) for each in network.buffers())  # masks of attention hold -inf
    if trainer.is_ddp:
        every: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(every, (steps, lost, broken))
        steps, lost, broken = sum(each[0] for each in every), sum(each[1] for each in every), any(x[2] for x in every)
    if not broken and lost < steps:
        return
    which = [name for name, value in terms.items() if not np.isfinite(value)]
    loss = type(trainer).__name__ + (f" ({', '.join(which)})" if which else "")
    message = (
        f"Epoch {trainer.current_epoch} of {loss}: the loss is NaN or infinite in {lost} of {steps} iterations"
        f"{', and so are weights of the network' if broken else ''}. {_kept(trainer)} Look for images with NaN "
        "(segloss check), or try a smaller learning rate (_lr1em3 in the name of the trainer)."
    )
    _end(trainer, message)


def guarded(trainer: nnUNetTrainer, step: Callable[[], Result]) -> Result:
    """The result of the step of the opponents; `DivergedError`, in all processes, where one is no longer finite."""
    try:
        return step()
    except NotFiniteError as error:
        _end(trainer, f"Epoch {trainer.current_epoch} of {type(trainer).__name__}: {error} {_kept(trainer)}")


def _end(trainer: nnUNetTrainer, message: str) -> NoReturn:
    trainer.print_to_log_file(message, also_print_to_console=False)
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if isinstance(loader, NonDetMultiThreadedAugmenter):
            loader._finish()  # as at the end of a training; its threads would end with messages of their own
    raise DivergedError(message)


def _kept(trainer: nnUNetTrainer) -> str:
    if trainer._best_ema is None or trainer.disable_checkpointing:
        return "This run has written no checkpoint."
    latest = (Path(trainer.output_folder) / "checkpoint_latest.pth").is_file()
    return f"checkpoint_{'latest' if latest else 'best'}.pth is from before; --c goes on from there."
