"""Epochs that repeat, and a training that knows when it is done."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events
from monai.data.utils import set_rnd

from monai_segloss.core.seeding import derive, seed_everything

TRANSFORMS = 1
"""Purpose of the seeds of the random transforms."""


class EpochSeed:
    """Handler of a trainer: at the start of every epoch all random generators are seeded from (seed, epoch, process).

    Shuffling, augmentation and dropout of an epoch then do not depend on the epochs before it, so that a resumed run goes
    on as if it had never stopped: on a CPU with ``num_workers=0`` to the last bit.

    Args:
        seed: a number from 0; None seeds nothing.

    Raises:
        ValueError: another seed.
    """

    def __init__(self, seed: int | None) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"seed must be a whole number from 0 or None, got {seed!r}.")
        self.seed = seed

    def attach(self, engine: Any) -> None:
        """Register with the trainer ``engine``; before handlers that draw random numbers."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)

    def _start(self, engine: Any) -> None:
        if self.seed is None:
            return
        purpose = (engine.state.epoch, engine.state.rank)
        seed_everything(self.seed, *purpose)
        # transforms have generators of their own, which worker processes seed from torch's and this process does not
        set_rnd(engine.data_loader.dataset, derive(self.seed, *purpose, TRANSFORMS)[0])


class EarlyStop:
    """Handler of a trainer: ends the training when the key metric of the validator has not improved for so many epochs.

    It counts from the best epoch that the validator knows, which a resumed run restores. Attach it after the handler that
    validates and before the one that saves.

    Args:
        validator: the evaluator.
        patience: epochs without improvement; None: never stop.

    Raises:
        ValueError: a patience below 1.
    """

    def __init__(self, validator: Any, patience: int | None) -> None:
        if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
            raise ValueError(f"early_stop_patience must be a whole number from 1 or None, got {patience!r}.")
        self.validator, self.patience = validator, patience

    def attach(self, engine: Any) -> None:
        """Register with the trainer ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._check)

    def _check(self, engine: Any) -> None:
        best = int(self.validator.state.best_metric_epoch)
        if self.patience is not None and best > 0 and engine.state.epoch - best >= self.patience:
            engine.logger.info(
                f"No better validation since epoch {best}: training ends after epoch {engine.state.epoch}."
            )
            engine.terminate()
