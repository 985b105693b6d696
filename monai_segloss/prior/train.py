"""The training of a prior: a fixed number of steps, which a killed process takes up again, and a file."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_segloss.core import seeding
from monai_segloss.core.prior import KINDS, Header, Prior, PriorError, refuse_missing_safetensors, save_prior
from monai_segloss.core.taps import NetworkShape
from monai_segloss.files import atomic
from monai_segloss.prior.networks import header_of, network
from monai_segloss.prior.objectives import OBJECTIVES, Objective
from monai_segloss.prior.patches import Augmentation, Labels, Patches

STEPS = {"autoencoder": 1000, "label-unet": 1000, "inverse-form": 1500}
"""Steps of a training, by kind."""
RATE, HELD_BACK, SAVE_EVERY, TIMED = 2e-3, 0.2, 50, 10
"""Learning rate of Adam, which falls to 0; part of the cases that is held back; steps between states, and to be timed."""
SEED = 0


def train_prior(
    kind: str,
    shape: NetworkShape,
    labels: Labels,
    file: Path,
    steps: int | None = None,
    augmentation: Augmentation | None = None,
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = print,
) -> Prior:
    """Train a prior on labels and write its file; a training of the same settings that was killed goes on.

    The same labels and settings give the same file on a CPU.

    Args:
        kind: one of `monai_segloss.core.prior.KINDS`.
        shape: of the network that the prior is for: classes, patch, spacing, and for a label U-Net the tap "bottleneck".
        labels: of the training cases, a fifth of which is held back to measure by.
        file: with the ending .safetensors.
        steps: of the optimizer; None: as many as usual.
        augmentation: as in the training of the network.
        device: to train on.
        say: is told how long it will take and how good it is.

    Raises:
        PriorError: an unknown kind; no cases; no boundaries; a regressor that is no better than none; no safetensors.
    """
    if kind not in KINDS:
        raise PriorError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    if file.suffix != ".safetensors":
        raise PriorError(f"the file of a prior ends with .safetensors, got {str(file)!r}.")
    refuse_missing_safetensors()
    header = plan(kind, shape, labels, steps, augmentation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        made = network(header).to(device)
    augmentation = Augmentation() if augmentation is None else augmentation
    train = Patches(labels.of(header.cases), shape.size, augmentation, shape.spacing)
    held_back = Patches(labels.of(header.held_back or header.cases), shape.size, None, shape.spacing)
    objective = OBJECTIVES[kind](header, train, held_back)
    state = file.with_name(f"{file.name}.training")
    _optimize(made, objective, state, torch.device(device), say)
    made.eval()
    with torch.no_grad():
        try:
            quality = objective.quality(made, _generator(-1), torch.device(device))
        except PriorError:
            state.unlink(missing_ok=True)
            raise
    prior = Prior(replace(header, quality=quality), made.state_dict())
    save_prior(prior, file)
    state.unlink(missing_ok=True)
    cases = "held-back training cases" if header.held_back else "the one training case"
    say(f"prior {kind}: {objective.words(quality)} on {cases}; written to {file}")
    return prior


def plan(
    kind: str, shape: NetworkShape, labels: Labels, steps: int | None = None, augmentation: Augmentation | None = None
) -> Header:
    """The header of the prior that `train_prior` would make, without its quality.

    Raises:
        PriorError: there are no cases.
    """
    cases = sorted(labels.cases)
    if not cases:
        raise PriorError("prior: there are no training cases.")
    apart = min(max(1, round(HELD_BACK * len(cases))), len(cases) - 1)
    held_back = [cases[i * len(cases) // apart] for i in range(apart)]
    augmentation = Augmentation() if augmentation is None else augmentation
    training = {"steps": STEPS[kind] if steps is None else steps, "learning_rate": RATE, **asdict(augmentation)}
    return replace(
        header_of(kind, shape, labels.regions),
        cases=tuple(case for case in cases if case not in held_back),
        held_back=tuple(held_back),
        training=json.loads(json.dumps(training)),
        versions={name: importlib.metadata.version(name) for name in ("monai-segloss", "torch")},
    )


def _optimize(
    made: nn.Module, objective: Objective, state: Path, device: torch.device, say: Callable[[str], None]
) -> None:
    from rich.console import Console
    from rich.progress import track

    header, steps = objective.header, int(objective.header.training["steps"])
    optimizer = torch.optim.Adam(made.parameters(), lr=RATE)
    first = _resume(state, header, made, optimizer)
    if first:
        say(f"prior {header.kind}: goes on at step {first} of {steps}")
    console = Console(stderr=True)
    bar = {"console": console, "transient": True, "disable": not console.is_terminal}
    began = time.monotonic()
    for step in track(range(first, steps), f"prior {header.kind}", **bar):  # type: ignore[arg-type]
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        with torch.autocast(device.type, enabled=False):
            loss = objective.loss(made, step, _generator(step), device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step == first + TIMED - 1:
            rest = (time.monotonic() - began) / TIMED * (steps - step - 1)
            say(f"prior {header.kind}: {steps - step - 1} more steps, about {_duration(rest)}")
        if (step + 1) % SAVE_EVERY == 0:
            _save(state, header, made, optimizer, step + 1)


def _save(state: Path, header: Header, made: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    content = {"header": _facts(header), "step": step, "network": made.state_dict()}
    with atomic(state) as part:
        torch.save({**content, "optimizer": optimizer.state_dict()}, part)


def _resume(state: Path, header: Header, made: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on with, of a state with the same settings."""
    if not state.is_file():
        return 0
    content: Mapping[str, Any] = torch.load(state, map_location="cpu", weights_only=True)
    if content["header"] != _facts(header):
        return 0
    made.load_state_dict(content["network"])
    optimizer.load_state_dict(content["optimizer"])
    return int(content["step"])


def _facts(header: Header) -> str:
    return json.dumps(asdict(header), sort_keys=True)


def _generator(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(seeding.derive(SEED, step + 1)[0])


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"
