"""Short workflows of the bundle in this process, as ``monai.bundle run`` makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import create_workflow
from monai.utils import set_determinism

CONFIGS = Path(__file__).resolve().parent.parent / "bundles" / "segloss_segmentation" / "configs"
SMALL = {"patch_size": [16, 16, 16], "num_samples": 1, "network_def#channels": [4, 8], "network_def#strides": [2]}


ENVIRON = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def options(**settings: Any) -> list[str]:
    """Settings as options of a command."""
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def monai_bundle(
    *arguments: str, folder: Path | None = None, processes: int = 0, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """``python -m monai.bundle`` on the CPU, in one process or with a launcher of several; what it prints is ``stdout``."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"] if processes else []
    command = [sys.executable, "-m", *launcher, "monai.bundle", *arguments, *options(**settings)]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **ENVIRON, "PYTHONUNBUFFERED": "1"},  # lines of both streams in order
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


@contextmanager
def workflow(folder: Path, dataset: Path, *overlays: str | Path, **settings: Any) -> Iterator[Any]:
    """A workflow of ``train.json`` and overlays, as ``monai.bundle run`` makes it."""
    try:
        yield create_workflow(
            workflow_name="ConfigWorkflow",
            workflow_type="train",
            config_file=[str(CONFIGS / name) for name in ("train.json", *overlays)],
            logging_file=False,
            bundle_root=str(folder),
            dataset_dir=str(dataset),
            **{**SMALL, **settings},
        )
    finally:
        set_determinism(None)


def inference(folder: Path, dataset: Path, **settings: Any) -> Any:
    """A workflow of ``inference.json`` with the small network."""
    small = {name: value for name, value in SMALL.items() if name != "num_samples"}
    return create_workflow(
        workflow_name="ConfigWorkflow",
        workflow_type="infer",
        config_file=str(CONFIGS / "inference.json"),
        logging_file=False,
        bundle_root=str(folder),
        dataset_dir=str(dataset),
        **{**small, **settings},
    )
