"""The runs of a comparison as they go: a table on the terminal, lines elsewhere, and the same as a page."""

from __future__ import annotations

import io
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from monai_segloss.demo.report import duration
from monai_segloss.experiment.queue import Show
from monai_segloss.experiment.running import DONE, RUNNING, WAITING, Task
from monai_segloss.files import write_text

COLORS = {DONE: "green", RUNNING: "cyan", WAITING: "dim", "failed": "red", "diverged": "red"}
COLUMNS = ("run", "state", "epoch", "loss", "Dice", "time")
PAGE_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class Row:
    """How far a run is.

    Args:
        name: of the run.
        state: waiting, running, done, failed or diverged.
        epoch: those that are over, of all.
        loss, dice: of the last epoch.
        seconds: of all attempts, the present one aside.
    """

    name: str
    state: str
    epoch: str
    loss: float
    dice: float
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """As text; what is not known is empty."""
        numbers = ("" if math.isnan(each) else f"{each:.3f}" for each in (self.loss, self.dice))
        state = f"[{COLORS[self.state]}]{self.state}[/]"
        return self.name, state, self.epoch, *numbers, duration(self.seconds) if self.seconds else ""


class Watch:
    """Looks at runs; what is over is looked at once.

    Args:
        tasks: the runs.
        epochs: of a run.
    """

    def __init__(self, tasks: Sequence[Task], epochs: int) -> None:
        self.tasks = tasks
        self.epochs = epochs
        self._over: dict[str, Row] = {}

    def rows(self, at_work: set[str]) -> list[Row]:
        """All runs; `at_work` are the keys of those that may be running."""
        return [self._over.get(task.key) or self._row(task, at_work) for task in self.tasks]

    def _row(self, task: Task, at_work: set[str]) -> Row:
        state = task.state()
        if task.key in at_work:
            state = RUNNING if state != WAITING and task.log.exists() else state
        elif state == RUNNING:
            state = WAITING
        last = next(reversed(task.epochs()), None)
        dice = [each for each in (last.dice if last else ()) if not math.isnan(each)]
        row = Row(
            task.run.name,
            state,
            f"{last.number + 1 if last else 0}/{self.epochs}",
            last.train_loss if last else math.nan,
            sum(dice) / len(dice) if dice else math.nan,
            task.seconds(),
        )
        if state not in (RUNNING, WAITING) and task.key not in at_work:
            self._over[task.key] = row
        return row


def table(rows: Sequence[Row]) -> Table:
    """The runs and, below, how many are in each state."""
    counts = Counter(row.state for row in rows)
    made = Table(title=", ".join(f"{count} {state}" for state, count in counts.items()), title_justify="left")
    for column in COLUMNS:
        made.add_column(column)
    for row in rows:
        made.add_row(*row.cells())
    return made


@contextmanager
def watching(console: Console, tasks: Sequence[Task], epochs: int, page: Path) -> Iterator[Show]:
    """Show the runs while the block runs them.

    Args:
        console: a terminal gets the table, anything else a line for every change of a state.
        tasks: the runs.
        epochs: of a run.
        page: file with the same table.
    """
    watch, states, written = Watch(tasks, epochs), dict[str, str](), 0.0
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def show(at_work: set[str]) -> None:
        nonlocal written
        rows = watch.rows(at_work)
        if live is not None:
            live.update(table(rows), refresh=True)
        for row in rows if live is None else ():
            if states.get(row.name, WAITING) != row.state:
                console.print(f"{row.name}: {row.state}", markup=False, highlight=False)
            states[row.name] = row.state
        if time.monotonic() - written > PAGE_EVERY:
            write_page(page, rows)
            written = time.monotonic()

    if live is not None:
        live.start()
    try:
        show(set())
        yield show
    finally:
        written = -math.inf
        show(set())
        if live is not None:
            live.stop()


def write_page(file: Path, rows: Sequence[Row]) -> None:
    """The table as a page that renews itself."""
    console = Console(record=True, file=io.StringIO(), width=120)
    console.print(table(rows))
    html = console.export_html(inline_styles=True)
    write_text(file, html.replace("<head>", '<head>\n<meta http-equiv="refresh" content="10">\n<title>Runs</title>', 1))
