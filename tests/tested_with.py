"""Writes docs/tested.json: the versions with which a tox environment has passed its tests.

``python tests/tested_with.py NAME REPORT...`` with JUnit reports of pytest; run by ``tox run -e py311-lowest`` and the like.
"""

from __future__ import annotations

import json
import platform
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "docs" / "tested.json"
PACKAGES = ("torch", "monai", "nnunetv2", "numpy", "scipy")


def passed(reports: list[Path]) -> int:
    """Tests that passed; an error where one failed or none ran."""
    suites = [suite for report in reports for suite in ET.parse(report).iter("testsuite")]
    counts = {
        name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped", "failures", "errors")
    }
    if counts["failures"] or counts["errors"] or counts["tests"] == counts["skipped"]:
        raise SystemExit(f"nothing is recorded: {counts}")
    return counts["tests"] - counts["skipped"]


def entry(reports: list[Path]) -> dict[str, Any]:
    """What ran here, and how many tests passed."""
    versions = {name: version(name).partition("+")[0] for name in PACKAGES}
    day = datetime.now(UTC).date().isoformat()
    return {"python": platform.python_version(), **versions, "passed": passed(reports), "day": day}


def record(name: str, reports: list[Path], file: Path = FILE) -> None:
    """Add or replace the entry of an environment."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known[name] = entry(reports)
    file.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(sys.argv[1], [Path(each) for each in sys.argv[2:]])
