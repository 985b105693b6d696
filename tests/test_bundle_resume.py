"""A training that is killed and goes on, and one that is repeated: equal to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nnunet_data
import pytest
import torch
from bundle_runs import CONFIGS, ENVIRON, SMALL, options, workflow

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")
EPOCHS = 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("resume"), "ignore")


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "models" / "last.pt", weights_only=True)


def assert_equal(one: Any, other: Any) -> None:
    """The same tensors, numbers and words, at any depth."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def train(folder: Path, dataset: Path, **settings: Any) -> None:
    # dropout draws random numbers in the network, the overlay has a schedule over the epochs
    terms = {"dice": 1, "focal": {"weight": {"schedule": "linear", "start": 1, "end": 0.1, "epochs": EPOCHS}}}
    loss = {"_target_": "monai_segloss.WeightedSum", "terms": terms, "softmax": True, "to_onehot_y": True}
    with workflow(folder, dataset, **{"loss": loss, "network_def#dropout": 0.2, "epochs": EPOCHS, **settings}) as flow:
        flow.run()


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, dataset: Path) -> None:
    train(tmp_path / "whole", dataset)
    train(
        tmp_path / "parts", dataset, **{"lr_scheduler#lr_lambda": "$lambda e: max(1 - e / 6, 0.01) ** 0.9", "epochs": 2}
    )
    assert last(tmp_path / "parts")["about"]["epoch"] == 2
    train(tmp_path / "parts", dataset, resume=True)
    assert_equal(last(tmp_path / "parts"), last(tmp_path / "whole"))
    models = [torch.load(tmp_path / name / "models" / "model.pt", weights_only=True) for name in ("parts", "whole")]
    assert_equal(*models)
    train(tmp_path / "other", dataset, seed=1, epochs=2)
    train(tmp_path / "again", dataset, seed=1, epochs=2)
    assert_equal(last(tmp_path / "other"), last(tmp_path / "again"))
    assert not torch.equal(
        last(tmp_path / "other")["optimizer"]["state"][0]["exp_avg"],
        last(tmp_path / "whole")["optimizer"]["state"][0]["exp_avg"],
    )


def command(folder: Path, dataset: Path, **settings: Any) -> list[str]:
    known = {"bundle_root": folder, "dataset_dir": dataset, "epochs": EPOCHS, **SMALL, **settings}
    return [sys.executable, "-m", "monai.bundle", "run", *options(config_file=CONFIGS / "train.json", **known)]


@pytest.mark.real
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, dataset: Path) -> None:
    quiet = {"env": {**os.environ, **ENVIRON}, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    subprocess.run(command(tmp_path / "whole", dataset), check=True, timeout=600, **quiet)
    killed = tmp_path / "killed"
    # 2000 epochs to come: it is killed in the middle of one, wherever that is
    long = command(
        killed, dataset, **{"epochs": 2000, "lr_scheduler#lr_lambda": f"$lambda e: max(1 - e / {EPOCHS}, 0.01) ** 0.9"}
    )
    process = subprocess.Popen(long, **quiet)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (killed / "models" / "last.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = last(killed)["about"]["epoch"]
    if reached >= EPOCHS:
        pytest.fail(f"the run was at epoch {reached} when it was killed: give it more epochs")
    subprocess.run(command(killed, dataset, resume=True), check=True, timeout=600, **quiet)
    assert_equal(last(killed), last(tmp_path / "whole"))
