"""The priors of a run: found in its folder, or made there by the first of its processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from monai_segloss.core.prior import Header, PriorError, read_prior, refuse_missing_safetensors
from monai_segloss.core.taps import NetworkShape
from monai_segloss.prior.patches import Augmentation, Labels
from monai_segloss.prior.train import plan, train_prior


def supply(loss: Any, made: Callable[[str], Path]) -> None:
    """Give a prepared loss the priors that it wants.

    Args:
        loss: of this project, or what stands around one.
        made: kind -> file, see `found_or_made`.

    Raises:
        PriorError: one was trained for other classes, another patch or spacing, or cannot be trained.
    """
    while (kind := loss.prior_kind) is not None:
        refuse_missing_safetensors()
        loss.load_prior(made(kind))


def found_or_made(
    kind: str,
    shape: NetworkShape,
    labels: Labels,
    folder: Path,
    steps: int | None,
    augmentation: Augmentation | None,
    device: torch.device,
    rank: int = 0,
    say: Callable[[str], None] = print,
) -> Path:
    """The file ``prior_<kind>.safetensors`` of a folder, which is made where none of these settings is there.

    Args:
        kind, shape, labels, steps, augmentation, device, say: see `train_prior`.
        folder: of the run.
        rank: of this process; the others wait for the file of the first.
    """
    file, wanted = file_of(kind, folder), plan(kind, shape, labels, steps, augmentation)
    if rank != 0:
        while not _is(file, wanted):
            time.sleep(1)
    elif not _is(file, wanted):
        say(f"prior {kind}: the loss wants one; it is trained on the labels of {len(labels.cases)} training cases")
        train_prior(kind, shape, labels, file, steps, augmentation, device, say)
    return file


def file_of(kind: str, folder: Path) -> Path:
    """Where the prior of a run is."""
    return folder / f"prior_{kind}.safetensors"


def refuse_leak(loss: Any, training: Iterable[str], validation: Iterable[str], fold: int | str, advice: str) -> None:
    """Refuse a prior that has seen a case of the validation.

    Args:
        loss: with its priors.
        training, validation: names of the cases of the fold; a case may have several.
        fold: of the run.
        advice: what to do, with the kind of the prior as ``{kind}``.

    Raises:
        PriorError: there is one.
    """
    for header in (getattr(module, "header", None) for module in loss.modules()):
        if not isinstance(header, Header):
            continue
        advised = advice.format(kind=header.kind)
        seen = (*header.cases, *header.held_back)
        _refuse_seen(seen, training, validation, fold, "prior: it was trained with", advised)


def refuse_measured(
    loss: Any,
    split: Callable[[], tuple[Iterable[str], Iterable[str]]],
    fold: int | str,
    options: Mapping[str, str] | None = None,
) -> None:
    """Refuse bounds and rules that were measured on the label of a case that the fold validates.

    A loss says as ``from_labels`` which of its arguments are a file of such: argument -> the cases that the file names, and
    the command of ``segloss prior`` that makes it.

    Args:
        loss: with its terms.
        split: gives the names of the training and of the validation cases of the fold; a case may have several.  It is
            called for a loss with such a file only.
        fold: of the run.
        options: command -> further options, for the advice.

    Raises:
        PriorError: there is such a case.
    """
    files = [item for module in loss.modules() for item in getattr(module, "from_labels", {}).items()]
    if not files:
        return
    training, validation = split()
    for argument, (cases, command) in files:
        more = (options or {}).get(command, "")
        advice = f"make one with `segloss prior {command} DATASET --fold {fold}{more}`"
        _refuse_seen(cases, training, validation, fold, f"{argument}: its file is from", advice)


def _refuse_seen(
    cases: Iterable[str], training: Iterable[str], validation: Iterable[str], fold: int | str, what: str, advice: str
) -> None:
    seen = sorted(set(cases) & (set(validation) - set(training)))
    if seen:
        raise PriorError(
            f"{what} {', '.join(seen[:3])}{' ...' if len(seen) > 3 else ''}, which fold {fold} validates; {advice}."
        )


def _is(file: Path, wanted: Header) -> bool:
    """Whether a file holds the prior that would be made."""
    try:
        found = read_prior(file).header
    except PriorError:
        return False
    return _settings(found) == _settings(wanted)


def _settings(header: Header) -> str:
    return json.dumps(asdict(replace(header, quality={}, versions={})), sort_keys=True)
