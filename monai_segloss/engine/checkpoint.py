"""Checkpoints from which a training goes on after it was killed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from torch import nn

from monai_segloss.engine.errors import NotFiniteError, not_finite_entry
from monai_segloss.files import atomic


class ResumableCheckpoint:
    """Handler: the whole state after every epoch, the best weights after every better validation.

    ``last.pt`` holds every object, the state of loss and gradient scaler, the epoch and the best metric so far, so that a
    resumed run goes on counting and does not replace better weights by worse ones; ``model.pt`` holds
    ``{"model": weights}``, which MONAI's ``CheckpointLoader`` reads. Both are written to another name and then renamed: a
    killed run leaves the previous file. Only rank 0 writes. Attach it after the handlers that validate and that step the
    schedule.

    Args:
        save_dir: folder for both files, made if missing.
        objects: what to save, by name, each with a ``state_dict``; ``"model"`` is the network.
        validator: the evaluator whose key metric decides; None keeps the last weights as ``model.pt``.
        resume: continue from ``last.pt`` if it is there.

    Raises:
        ValueError: ``objects`` has no ``"model"``, or ``resume`` is no bool; when the run starts: the checkpoint has
            another loss or more epochs than the trainer.
        NotFiniteError: the network to save or to resume from holds NaN or infinite values.
    """

    def __init__(
        self, save_dir: str | Path, objects: Mapping[str, Any], validator: Any = None, resume: bool = False
    ) -> None:
        if "model" not in objects:
            raise ValueError(f"objects must have the key 'model', the network; got {sorted(objects)}.")
        if not isinstance(resume, bool):  # the string "false" of a command line would count as true
            raise ValueError(f"resume must be True or False, got {resume!r}.")
        self.save_dir = Path(save_dir)
        self.objects = {name: _unwrapped(value) for name, value in objects.items()}
        self.validator = validator
        self.resume = resume

    def attach(self, engine: Any) -> None:
        """Register with the trainer ``engine``."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self._load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _save(self, engine: Any) -> None:
        if engine.state.rank > 0:
            return
        entry = not_finite_entry(self.objects["model"].state_dict())
        if entry is not None:
            raise NotFiniteError(
                f"epoch {engine.state.epoch} is not saved to {self.save_dir}: the network holds NaN or infinite values, the "
                f"first in {entry!r}. The checkpoints before it stay."
            )
        best = self._best()
        if best["best_metric_epoch"] in (-1, engine.state.epoch):
            _write({"model": self.objects["model"].state_dict()}, self.save_dir / "model.pt")
        states = {name: value.state_dict() for name, value in self._everything(engine).items()}
        about = {"epoch": engine.state.epoch, "loss": _describe(engine.loss_function), **best}
        _write({**states, "about": about}, self.save_dir / "last.pt")

    def _everything(self, engine: Any) -> dict[str, Any]:
        """The objects, and what the trainer itself has of state: the loss, and the gradient scaler where there is one."""
        found = {"loss_function": engine.loss_function, "scaler": getattr(engine, "scaler", None)}
        return {**self.objects, **{name: value for name, value in found.items() if hasattr(value, "state_dict")}}

    def _best(self) -> dict[str, Any]:
        if self.validator is None:
            return {"best_metric": -1.0, "best_metric_epoch": -1}
        state = self.validator.state
        return {"best_metric": float(state.best_metric), "best_metric_epoch": int(state.best_metric_epoch)}

    def _load(self, engine: Any) -> None:
        path = self.save_dir / "last.pt"
        if not path.exists():
            engine.logger.info(f"No {path} to resume from: training starts at the first epoch.")
            return
        saved = torch.load(path, map_location=engine.state.device, weights_only=True)
        entry = not_finite_entry(saved["model"])
        if entry is not None:
            raise NotFiniteError(f"{path} holds a network with NaN or infinite values, the first in {entry!r}.")
        about = saved["about"]
        self._check(engine, about, path)
        for name, value in self._everything(engine).items():
            if name in saved or name != "scaler":  # mixed precision may be switched on in between
                value.load_state_dict(saved[name])
        engine.state.epoch = about["epoch"]
        engine.state.iteration = about["epoch"] * (engine.state.epoch_length or 0)
        if self.validator is not None:
            self.validator.state.best_metric = about["best_metric"]
            self.validator.state.best_metric_epoch = about["best_metric_epoch"]
        engine.logger.info(f"Resumed from {path} after epoch {about['epoch']}.")

    def _check(self, engine: Any, about: Mapping[str, Any], path: Path) -> None:
        loss = _describe(engine.loss_function)
        if about["loss"] != loss:
            raise ValueError(f"{path} was trained with the loss {about['loss']}, not {loss}: use another save_dir.")
        if about["epoch"] > engine.state.max_epochs:
            raise ValueError(f"{path} has {about['epoch']} epochs, more than max_epochs={engine.state.max_epochs}.")


def _describe(loss: Any) -> str:
    """What a checkpoint remembers of its loss; no memory addresses."""
    return repr(loss) if isinstance(loss, nn.Module) else getattr(loss, "__qualname__", type(loss).__qualname__)


def _unwrapped(value: Any) -> Any:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return value.module if isinstance(value, wrappers) else value


def _write(content: Mapping[str, Any], path: Path) -> None:
    with atomic(path) as part:
        torch.save(content, part)
