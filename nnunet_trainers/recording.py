"""What a run leaves behind about itself: its configuration as plain JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_trainers.building import with_defaults

KEY = "segloss"
"""The entry of ours in checkpoints, in ``debug.json`` and in the configurations of plans."""
CONTINUED = "continued"
"""The entry of a configuration with what a run was before it went on for more epochs."""


class OtherConfigurationError(RuntimeError):
    """A run meets results of a run with other settings in its own folder."""


def read_record(report: Path) -> dict[str, Any] | None:
    """The configuration in a ``debug.json``; None where it has none, also because its run was killed while writing."""
    try:
        record: dict[str, Any] | None = json.loads(report.read_text(encoding="utf-8")).get(KEY)
    except json.JSONDecodeError:
        return None
    return record


def refuse_other(there: Mapping[str, Any], here: Mapping[str, Any], where: str, resumes: bool = False) -> None:
    """Raise `OtherConfigurationError` where two configurations are `unlike`."""
    found = unlike(there, here, resumes)
    if found:
        raise OtherConfigurationError(f"{where} has another configuration: {'; '.join(found)}; {_advice(found, where)}")


def unlike(there: Mapping[str, Any], here: Mapping[str, Any], resumes: bool = False) -> list[str]:
    """Where two configurations differ in more than what other versions know.

    The number format of the network counts where both say one, so on CPUs alone: a GPU has nnU-Net's, and may validate or
    go on with what a CPU began.  A run that ``resumes`` may go on for more epochs.
    """
    free = ("versions.", CONTINUED) + (() if "autocast" in there and "autocast" in here else ("autocast ",))
    if resumes and is_longer(there, here):
        there = {**there, **{key: here[key] for key in ("trainer", "epochs")}}
    return [text for text in differences(with_defaults(there), here) if not text.startswith(free)]


def is_longer(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether a configuration has more epochs than another one, and a trainer of the same name but for their number."""
    names = [re.sub(r"_\d+epochs(?=_|$)", "", each.get("trainer", "")) for each in (there, here)]
    return names[0] == names[1] and there.get("epochs", 0) < here.get("epochs", 0)


def _advice(found: Sequence[str], where: str) -> str:
    settings = [text.split(" is ")[0] for text in found]
    if any(each.startswith("data.") for each in settings):
        folder = Path(where).parent if where.endswith(".pth") else where
        return (
            f"the data set was planned again since: remove {folder} to train it anew, or plan under another name (-p)"
        )
    if set(settings) <= {"epochs", "trainer"}:
        return (
            "for more epochs copy its folder under a trainer name that differs in their number, and go on with --c; or "
            "begin with its weights (-pretrained_weights .../checkpoint_final.pth)"
        )
    return "go on with its settings, or train under another trainer name or configuration"


def differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    """Where two plain JSON values differ, as ``loss.arguments.alpha is 0.3 there and 0.5 here``."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}):
            yield from differences(there.get(key), here.get(key), f"{path}.{key}".lstrip("."))
    elif there != here:
        yield f"{path} is {json.dumps(there)} there and {json.dumps(here)} here"
