"""What has been measured, on disk: one file per machine and command, written after every row."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.measure import environment, machine
from monai_segloss.files import write_text

FOLDER = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]


class Results:
    """Rows that are found by the values of some of their fields; `add` writes the file, under its name at once.

    A row knows the environment in which it was measured; the environments of a file stand once, by number.
    """

    def __init__(self, file: Path, device: str = "cpu", fresh: bool = False) -> None:
        self.file = file
        self.environments: list[dict[str, Any]] = []
        self.rows: list[Row] = []
        if file.exists() and not fresh:
            content = json.loads(file.read_text(encoding="utf-8"))
            self.environments, self.rows = content["environments"], content["rows"]
        self.here = environment(device)

    def has(self, **fields: Any) -> bool:
        """Whether there is such a row."""
        return any(_fits(row, fields) for row in self.rows)

    def add(self, row: Row, *by: str) -> None:
        """Enter a row in the place of the one that has the same fields ``by``."""
        self.rows = [old for old in self.rows if not _fits(old, {name: row[name] for name in by})]
        if self.here not in self.environments:
            self.environments.append(self.here)
        self.rows.append({**row, "environment": self.environments.index(self.here)})
        self.rows.sort(key=lambda each: [each[name] for name in by])
        used = sorted({each["environment"] for each in self.rows})
        self.environments = [self.environments[number] for number in used]
        self.rows = [{**each, "environment": used.index(each["environment"])} for each in self.rows]
        self._write()

    def _write(self) -> None:
        lines = ",\n".join("  " + json.dumps(row) for row in self.rows)
        about = json.dumps(self.environments, indent=1)
        write_text(self.file, f'{{"environments": {about},\n "rows": [\n{lines}\n]}}\n')


def arguments(parser: argparse.ArgumentParser) -> None:
    """What all commands that write results take."""
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--machine", metavar="NAME", help="results go to benchmarks/results/NAME; default: what it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write there instead")
    parser.add_argument("--again", action="store_true", help="measure again what has a result")
    parser.add_argument("--repeats", type=int, default=15, help="rounds at most")
    parser.add_argument("--seconds", type=float, default=4.0, help="no new round after so many seconds")


def opened(options: argparse.Namespace, command: str) -> Results:
    """The file that the options name."""
    file = options.json or FOLDER / (options.machine or machine(options.device)) / f"{command}.json"
    return Results(file, options.device)


def _fits(row: Row, fields: Row) -> bool:
    return all(row.get(name) == value for name, value in fields.items())
