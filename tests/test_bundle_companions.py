"""Heads, opponents and priors through a training of the bundle that is killed and goes on."""

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
from test_bundle_resume import assert_equal, last

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")
RATE = 1e-3
PRIORS = {"latent_shape": ("autoencoder", 20), "inverse_form": ("inverse-form", 120)}
"""Kind and steps of the prior, by loss."""
KEYS = ["conv_mcd", "adversarial", "latent_shape", pytest.param("inverse_form", marks=pytest.mark.nightly)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nnunet_data.write_raw(tmp_path_factory.mktemp("companions"), "labels")


def asked(key: str) -> dict[str, Any]:
    """Settings of a short training with a loss."""
    steps = PRIORS.get(key, ("", None))[1]
    return {"loss_key": key, "prior_steps": steps, "learning_rate": RATE, "surface_metrics": False}


def opponents(state: dict[str, Any]) -> dict[str, Any]:
    return state["loss_function"]["_extra_state"]["opponents"]


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_a_resumed_run_is_the_uninterrupted_one(key: str, tmp_path: Path, dataset: Path) -> None:
    """To the last bit: network, heads, opponents, their optimizers, and the same prior."""

    def train(name: str, **settings: Any) -> dict[str, Any]:
        with workflow(tmp_path / name, dataset, **asked(key), **settings) as flow:
            flow.run()
        return last(tmp_path / name)

    whole = train("whole", epochs=2)
    first = train("parts", epochs=1, **{"lr_scheduler#lr_lambda": "$lambda e: max(1 - e / 2, 0.01) ** 0.9"})
    assert_equal(train("parts", epochs=2, resume=True), whole)
    trained = [name for name in first["loss_function"] if name.startswith("heads.")]
    assert bool(trained) == (key == "conv_mcd")
    assert not any(torch.equal(first["loss_function"][name], whole["loss_function"][name]) for name in trained)
    assert {name: each["steps"] for name, each in opponents(whole).items()} == (
        {"discriminator": 4} if key == "adversarial" else {}
    )
    assert any("frozen" in name for name in whole["loss_function"]) == (key in PRIORS)


@pytest.mark.real
@pytest.mark.parametrize("key", KEYS)
def test_a_killed_run_goes_on_with_what_its_loss_brought(key: str, tmp_path: Path, dataset: Path) -> None:
    settings: dict[str, Any] = {"bundle_root": tmp_path, "dataset_dir": dataset, **SMALL, **asked(key)}
    command = [sys.executable, "-m", "monai.bundle", "run", *options(config_file=CONFIGS / "train.json", **settings)]
    said = killed_after_an_epoch(command, tmp_path)
    file, before = tmp_path / "models" / f"prior_{PRIORS.get(key, ('',))[0]}.safetensors", last(tmp_path)
    assert ("the loss wants one" in said) == file.exists() == (key in PRIORS)
    stamp = file.stat().st_mtime_ns if file.exists() else None

    epoch = before["about"]["epoch"] + 1
    said = run([*command, "--epochs", str(epoch), "--resume", "True"])
    after = last(tmp_path)
    assert after["about"]["epoch"] == epoch
    assert "the loss wants one" not in said
    if stamp is not None:
        assert f"{file}, from before" in said
        assert file.stat().st_mtime_ns == stamp
    per_epoch = 2  # three training cases by two
    for name, each in opponents(after).items():
        assert each["steps"] == epoch * per_epoch
        assert each["steps"] == opponents(before)[name]["steps"] + per_epoch
    for name, old in before["loss_function"].items():
        new = after["loss_function"][name]
        if "frozen" in name:
            assert torch.equal(old, new)
        elif name.startswith("heads."):  # a few steps away, where new weights would be tenths away
            assert 0 < float((new - old).abs().max()) < 3 * per_epoch * RATE
    counts = {int(each["step"]) for each in after["optimizer"]["state"].values()}
    assert counts == {epoch * per_epoch}, "those of heads as well as of the network"


def run(command: list[str]) -> str:
    """What a command says."""
    done = subprocess.run(
        command,
        env={**os.environ, **ENVIRON},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def killed_after_an_epoch(command: list[str], folder: Path) -> str:
    """What a command says until it is killed, as soon as there is a checkpoint."""
    log = folder / "log.txt"
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*command, "--epochs", "2000"],
            env={**os.environ, **ENVIRON, "PYTHONUNBUFFERED": "1"},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 600
            while not (folder / "models" / "last.pt").exists():
                assert process.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < deadline, "no checkpoint came"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
    return log.read_text()
