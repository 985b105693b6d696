"""What the logs of nnU-Net say, and how far that is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

STAMP = r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: )?"
EPOCH = re.compile(
    STAMP + r"(?:Epoch (?P<epoch>\d+)|(?P<what>train_loss|val_loss|Pseudo dice|Epoch time:) (?P<value>.+?))\s*$"
)
# Digits behind a letter are none: np.float32(0.5) holds one number.
NUMBER = re.compile(r"(?<![\w.])(?:nan|[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)(?![\w.])")
BAR = re.compile(r"\| (\d+)/(\d+) \[")


@dataclass
class Epoch:
    """One epoch of a training as logged; NaN is what the log does not say.

    Args:
        number: counted from 0.
        train_loss: mean over the iterations.
        val_loss: mean over the validation iterations.
        dice: of each foreground class over random validation patches.
        seconds: how long it took.
    """

    number: int
    train_loss: float = math.nan
    val_loss: float = math.nan
    dice: tuple[float, ...] = ()
    seconds: float = math.nan


def read_epochs(log: Iterable[str]) -> list[Epoch]:
    """The finished epochs of a training log; of an epoch that was trained twice, after a stop, the last."""
    found: dict[int, Epoch] = {}
    current: Epoch | None = None
    for line in log:
        match = EPOCH.match(line)
        if match is None:
            continue
        if match["epoch"] is not None:
            current = Epoch(int(match["epoch"]))
        elif current is not None:
            _set(current, match["what"], tuple(float(each) for each in NUMBER.findall(match["value"])))
            if match["what"] == "Epoch time:":
                found[current.number] = current
    return [found[number] for number in sorted(found)]


def _set(epoch: Epoch, what: str, values: tuple[float, ...]) -> None:
    if what == "Pseudo dice":
        epoch.dice = values
    elif values:
        setattr(epoch, {"train_loss": "train_loss", "val_loss": "val_loss", "Epoch time:": "seconds"}[what], values[0])


class Step(Protocol):
    """How far a stage is: parts done, parts in all (0: unknown), a word on it."""

    def __call__(self, done: float, total: float, note: str = "") -> None: ...


class Display:
    """Tells the user what happens: a bar per stage on a terminal, lines elsewhere.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def stage(self, title: str) -> Iterator[Step]:
        """Show one stage for as long as the block runs."""
        if not self.console.is_terminal:
            yield self._lines(title)
            return
        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Progress(*columns, console=self.console, transient=True, speed_estimate_period=3600) as bar:
            task = bar.add_task(title, total=None, note="")

            def step(done: float, total: float, note: str = "") -> None:
                bar.update(task, completed=done, total=total or None, note=note)

            yield step

    def _lines(self, title: str) -> Step:
        self.say(f"... {title}")
        last = ""

        def step(done: float, total: float, note: str = "") -> None:
            nonlocal last
            if note and note != last:
                self.say(f"    {note}")
                last = note

        return step

    def say(self, text: str) -> None:
        """One line; brackets in it are no markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def train_listener(step: Step, epochs: int, classes: list[str]) -> Callable[[str], None]:
    """Turns the growing log of a training into steps."""
    lines = _Lines()

    def listen(text: str) -> None:
        lines.add(text)
        found = read_epochs(lines.all)
        if found:
            last = found[-1]
            dice = ", ".join(f"{name} {value:.2f}" for name, value in zip(classes, last.dice, strict=False))
            step(last.number + 1, epochs, f"epoch {last.number + 1}/{epochs}, loss {last.train_loss:.3f}, Dice {dice}")
        else:
            step(0, epochs, "starting")

    return listen


def bar_listener(step: Step, cases: int, finished: str = "") -> Callable[[str], None]:
    """Turns nnU-Net's own progress bars, or lines that begin with `finished`, into steps.

    Only steps of all `cases` count: nnU-Net shows other bars too.
    """
    lines = _Lines()

    def listen(text: str) -> None:
        lines.add(text)
        if finished:
            step(sum(line.startswith(finished) for line in lines.all), cases)
            return
        for done, total in BAR.findall(lines.tail)[-1:]:
            if int(total) == cases:
                step(int(done), cases)

    return listen


class _Lines:
    """Text that arrives in pieces, by line; what has no end yet is the tail."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.tail = ""

    def add(self, text: str) -> None:
        *complete, rest = (self.tail + text).split("\n")
        self.all += complete
        # A bar redraws itself in one line without end: its last state is enough.
        self.tail = rest[-1000:]
