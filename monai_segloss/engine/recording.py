"""What shows which training a training was, in a file of its own."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from monai_segloss.core.hashing import weights_hash
from monai_segloss.files import read_json, write_json


class TrainingRecord:
    """Handler of a trainer: first weights, settings and epochs of a training, in a JSON file that is whole or absent.

    ``{"first_weights": hash, "settings": ..., "epochs": [{"epoch", "train_loss", "dice", "seconds",
    "validation_seconds"}], "finished": bool}``.  Epochs count from 0; ``dice`` is the validator's key metric, null in an
    epoch without validation.  A resumed training keeps the epochs that it does not repeat.  Only rank 0 writes.  Attach it
    after the handler that validates and before the one that saves, so that no saved epoch is missing.

    Args:
        path: of the file.
        network: with its first weights when this is attached.
        validator: the evaluator, or None.
        settings: whatever else shall be known of the training, plain data.
    """

    def __init__(self, path: str | Path, network: Any, validator: Any = None, settings: Any = None) -> None:
        self.path, self.network, self.validator = Path(path), network, validator
        self.about: dict[str, Any] = {"first_weights": None, "settings": settings}
        self.losses: list[float] = []
        self.began = self.trained = 0.0

    def attach(self, engine: Any) -> None:
        """Register with the trainer ``engine``."""
        self.about["first_weights"] = weights_hash(self.network)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._collect)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iterated)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, engine: Any) -> None:
        self.began, self.losses = time.monotonic(), []

    def _collect(self, engine: Any) -> None:
        self.losses.append(float(engine.state.output[CommonKeys.LOSS].detach().mean()))

    def _iterated(self, engine: Any) -> None:
        self.trained = time.monotonic()

    def _end(self, engine: Any) -> None:
        now = time.monotonic()
        row = {
            "epoch": engine.state.epoch - 1,
            "train_loss": math.fsum(self.losses) / max(1, len(self.losses)),
            "dice": self._dice(engine.state.epoch),
            "seconds": now - self.began,
            "validation_seconds": now - self.trained,
        }
        before = [each for each in self._epochs() if each["epoch"] < row["epoch"]]
        self._write(engine, [*before, row], finished=False)

    def _finish(self, engine: Any) -> None:
        self._write(engine, self._epochs(), finished=True)

    def _dice(self, epoch: int) -> float | None:
        state = getattr(self.validator, "state", None)
        if state is None or state.epoch != epoch:
            return None
        value = float(state.metrics[state.key_metric_name])
        return value if math.isfinite(value) else None

    def _epochs(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            found: list[dict[str, Any]] = read_json(self.path)["epochs"]
            return found
        return []

    def _write(self, engine: Any, epochs: list[dict[str, Any]], finished: bool) -> None:
        if engine.state.rank == 0:
            write_json(self.path, {**self.about, "epochs": epochs, "finished": finished})
