"""Fixtures of the nnU-Net tests; a test module takes them with ``pytest_plugins = "nnunet_fixtures"``."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import pytest
from filelock import FileLock
from nnunet_data import Workspace, prepare


@pytest.fixture(scope="session")
def nnunet() -> None:
    """Import nnU-Net and all its trainers, which warns and sets variables of the environment, before any test counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnunetv2.run import run_training

        run_training.recursive_find_trainer_class_by_name("nnUNetTrainer_5epochs")


@pytest.fixture(scope="session")
def prepared(nnunet: None, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The data sets, written and preprocessed once; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "nnunet.lock"):
        root = shared / "nnunet"
        return Workspace(root) if root.exists() else prepare(root)


@pytest.fixture
def space(prepared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the data sets for one test, to which the variables of nnU-Net point."""
    own = Workspace(tmp_path / "nnunet")
    shutil.copytree(prepared.root, own.root)
    for name, value in own.variables.items():
        monkeypatch.setenv(name, value)
    # nnU-Net has read this variable once, when it was imported: 8 processes would start for one file.
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.default_num_processes", 1)
    return own
