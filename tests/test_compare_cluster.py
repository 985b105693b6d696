"""Runs of a comparison as tasks of a Ray cluster of three nodes, of which one is lost.  nnU-Net's programs are stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from monai_segloss.demo.problem import DemoError
from monai_segloss.experiment import queue
from monai_segloss.experiment.queue import Cluster

HERE = Path(__file__).parent
STAND_INS = f"import sys; sys.path.insert(0, {str(HERE)!r}); import compare_programs; compare_programs.run()"
SCRIPT = f"""
import io, os, sys
from pathlib import Path
import pandas as pd
from ray.cluster_utils import Cluster as Nodes
from rich.console import Console
from monai_segloss.demo import process
from monai_segloss.demo.generate import Size
from monai_segloss.demo.progress import Display
from monai_segloss.experiment import comparison, queue
from monai_segloss.experiment.matrix import matrix

def stand_in(name):
    import sys
    return [sys.executable, "-c", {STAND_INS!r}, name]

def execute(task, stop=None):
    from monai_segloss.demo import process
    from monai_segloss.experiment import running
    process.program = stand_in
    return running.execute(task, stop)

def run(work, cluster, show=lambda at_work: None):
    made = comparison.Comparison(work, matrix(CONTENT), Display(Console(file=io.StringIO())), 1, cluster)
    with made.open():
        made.run(made.prepare(), lambda at_work: show(made))
        return made, made.measure()

process.program, queue.execute, comparison.DEMO_SIZE = stand_in, execute, Size(6, 0, (45.0, 20.0, 20.0))
CONTENT = {{
    "demo": True, "epochs": 2, "iterations": 4, "baseline_seeds": 3,
    "arms": ["dice_ce", {{"name": "sum", "terms": {{"dice": 1, "cross_entropy": 0.5}}}}],
}}
nodes = Nodes(initialize_head=True, head_node_args={{"num_cpus": 1, "object_store_memory": 80 * 2**20}})
lost = [nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)][:1]
nodes.wait_for_nodes()

def lose(made):
    if lost and sum(task.state() == "running" for task in made.tasks()) == 3:
        nodes.remove_node(lost.pop(), allow_graceful=False)

folder = Path(sys.argv[1])
made, tables = run(folder / "cluster", queue.Cluster(nodes.address), lose)
nodes.shutdown()
assert not lost
starts = [task.log.read_text().count("$ nnUNetv2_train") for task in made.tasks()]
assert sorted(starts) == [1, 1, 1, 1, 2], starts
os.environ["SEGLOSS_TEST_PACE"] = "0"
_, whole = run(folder / "whole", None)
for name in ("cases", "bins", "curves"):
    pd.testing.assert_frame_equal(getattr(tables, name), getattr(whole, name))
pd.testing.assert_frame_equal(*(each.runs.drop(columns="minutes") for each in (tables, whole)))
"""


@pytest.mark.real
@pytest.mark.nightly
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_lost_node_changes_no_table(tmp_path: Path) -> None:
    where = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    variables = {**os.environ, "PYTHONPATH": where, "SEGLOSS_TEST_PACE": "4"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cluster_without_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "find_spec", lambda name: None)
    with pytest.raises(DemoError, match=r"--cluster needs Ray: pip install"):
        queue.on_ray([], Cluster("auto"), lambda at_work: None)
