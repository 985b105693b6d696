"""Two iterations and two held-out cases of every arm before the first run: does it train, how long, how much disk."""

from __future__ import annotations

import shutil
from dataclasses import asdict

from monai_segloss.demo.problem import DemoError
from monai_segloss.experiment.costs import Cost
from monai_segloss.experiment.running import DONE, TRIAL, Task, execute
from monai_segloss.files import read_json, write_json


def smoke(task: Task) -> Cost:
    """The cost of an arm, measured once.

    Args:
        task: of two iterations, with two held-out cases.

    Raises:
        DemoError: it failed.
    """
    kept, key = task.work / TRIAL / "costs.json", f"{task.run.trainer} {task.run.configuration}"
    known = read_json(kept) if kept.exists() else {}
    if key not in known:
        task.forget()
        if execute(task) != DONE:
            reason = task.ended().get("reason", "it did not end")
            raise DemoError(f"arm {task.run.arm!r} fails in two iterations, before any run has begun: {reason}")
        known[key] = asdict(task.cost())
        write_json(kept, known)
        shutil.rmtree(task.fold.parent, ignore_errors=True)
    return Cost(**known[key])
