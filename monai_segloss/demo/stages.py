"""What has been done in a work folder, how long it took, and with which settings."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_segloss.demo.problem import DemoError
from monai_segloss.files import read_json, write_json

SETTINGS = "settings.json"
PRIVATE = (".lock", ".running.json", ".program")
OURS = (
    SETTINGS,
    "stages",
    "logs",
    "nnUNet_raw",
    "nnUNet_preprocessed",
    "nnUNet_results",
    "inputs",
    "predictions",
    "scores.json",
    "report.html",
)


class Stages:
    """The markers of a work folder.

    Args:
        work: the folder.
        settings: plain JSON values, by option; a folder holds the results of one such set.
        command: of whom the folder is.
        option: that names it.
        remedy: what a user may do instead, where the folder has other settings.
    """

    def __init__(
        self,
        work: Path,
        settings: Mapping[str, Any],
        command: str = "segloss demo",
        option: str = "--out",
        remedy: str = ", or --fresh to remove it and start again",
    ) -> None:
        self.work = work
        self.settings = json.loads(json.dumps(settings))
        self.command = command
        self.option = option
        self.remedy = remedy

    def refuse_foreign(self) -> None:
        """Raise DemoError where the folder is somebody's; nothing is written."""
        if self.work.exists() and not self.work.is_dir():
            raise DemoError(f"{self.option} {self.work} is a file: choose another {self.option}")
        if self.work.is_dir() and not (self.work / SETTINGS).exists():
            # Our own first file may be there by half, if the very first moment of a run was its last.
            ours = (SETTINGS, *PRIVATE)
            foreign = sorted(path.name for path in self.work.iterdir() if not path.name.startswith(ours))
            if foreign:
                raise DemoError(
                    f"{self.work} holds {foreign[0]}, which is not from {self.command}: choose another {self.option}"
                )

    def open(self, fresh: bool) -> None:
        """Make the folder this run's, or find that it is.

        Args:
            fresh: remove the results of earlier runs first.

        Raises:
            DemoError: it holds something else, or results of other settings.
        """
        self.refuse_foreign()
        record = self.work / SETTINGS
        if record.exists() and not fresh:
            self._refuse_others(record)
        elif record.exists():
            self._clear()
        write_json(record, self.settings)

    def _clear(self) -> None:
        # Last the record that makes the folder ours, so that a removal cut short can be repeated.
        for name in reversed(OURS):
            path = self.work / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _refuse_others(self, record: Path) -> None:
        try:
            there = read_json(record)
        except ValueError:
            there = {}
        names = sorted({*there, *self.settings})
        pairs = [(name, there.get(name), self.settings.get(name)) for name in names]
        other = [f"{name} {old!r} there, {new!r} now" for name, old, new in pairs if old != new]
        if other:
            raise DemoError(
                f"{self.work} holds a run with other settings ({'; '.join(other)}): choose another "
                f"{self.option}{self.remedy}"
            )

    def marker(self, stage: str) -> Path:
        """File that says how far a stage is."""
        return self.work / "stages" / f"{stage}.json"

    def read(self, stage: str) -> dict[str, Any]:
        """What is known of a stage; empty where it never began or was made with other settings."""
        path = self.marker(stage)
        if not path.exists():
            return {}
        try:
            found: dict[str, Any] = read_json(path)
        except ValueError:
            return {}
        return found if found.get("settings") == self.settings else {}

    def done(self, stage: str, *products: Path) -> bool:
        """Whether a stage was finished with these settings and its products are there."""
        return self.read(stage).get("state") == "done" and all(path.exists() for path in products)

    def seconds(self, stage: str) -> float:
        """Time of all attempts at a stage."""
        return float(sum(attempt["seconds"] for attempt in self.read(stage).get("attempts", [])))

    def attempts(self, stage: str) -> int:
        """How often a stage was begun."""
        return len(self.read(stage).get("attempts", []))

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Time a stage and mark it done when the block ends without an exception."""
        attempts = self.read(stage).get("attempts", []) if self.read(stage).get("state") != "done" else []
        self._close_killed(stage, attempts)
        began = time.time()
        attempts.append({"began": began, "seconds": 0.0})
        self._write(stage, "running", attempts)
        try:
            yield
        except BaseException:
            attempts[-1]["seconds"] = time.time() - began
            self._write(stage, "stopped", attempts)
            raise
        attempts[-1]["seconds"] = time.time() - began
        self._write(stage, "done", attempts)

    def _close_killed(self, stage: str, attempts: list[dict[str, float]]) -> None:
        # A killed run left no end; the last line of its log is the nearest thing to it.
        log = self.work / "logs" / f"{stage}.log"
        if attempts and not attempts[-1]["seconds"] and log.exists():
            attempts[-1]["seconds"] = max(0.0, log.stat().st_mtime - attempts[-1]["began"])

    def _write(self, stage: str, state: str, attempts: list[dict[str, float]]) -> None:
        write_json(self.marker(stage), {"state": state, "settings": self.settings, "attempts": attempts})
