"""Shared by all tests: a fixed seed, the test data, and a guard that no test leaves global state changed."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from representatives import REPRESENTATIVES

from monai_segloss.core.registry import LossInfo
from monai_segloss.kernels import native

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SEGLOSS_TEST_DATA", ROOT.parent / "shared" / "data"))

STATUS = pytest.StashKey[int]()

# Set by the libraries that the tests run, once per process.
WRITTEN_BY_OTHERS = ("PYTEST_", "TORCH", "_TORCH", "TRITON_", "KINETO_", "OMP_", "MKL_", "KMP_", "MPL")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """With ITK loaded, some processes crash in destructors of C++ after Python has ended: leave with the tests' result."""
    if "itk" in sys.modules and STATUS in config.stash and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[STATUS])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only the real programs run, files without them are not imported: that takes half a minute."""
    if not config.option.markexpr.startswith("real") or not collection_path.is_file():
        return None
    return "mark.real" not in collection_path.read_text(encoding="utf-8") or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a loss that is not representative are left out of the fast tier, expensive ones also out of the full tier."""
    for item in items:
        params = getattr(item, "callspec", None)
        infos = [x for x in params.params.values() if isinstance(x, LossInfo)] if params else []
        if any(info.key not in REPRESENTATIVES for info in infos):
            item.add_marker("further_loss")
            if item.get_closest_marker("expensive"):
                item.add_marker("nightly")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public test volumes."""
    if not DATA.is_dir():
        pytest.skip(f"no test volumes at {DATA}: set SEGLOSS_TEST_DATA")
    return DATA


@pytest.fixture
def compiler() -> None:
    """For tests of the compiled kernels; without a compiler losses take the plain formulas, which the other tests cover."""
    if native.compiler() is None:
        pytest.skip("no C++ compiler")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def global_state() -> dict[str, object]:
    """What a loss, a transform or a trainer must leave as it found it."""
    return {
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "autocast": torch.is_autocast_enabled("cpu"),
        "numpy errors": np.geterr(),
        "directory": os.getcwd(),
        **{f"${name}": value for name, value in os.environ.items() if not name.startswith(WRITTEN_BY_OTHERS)},
    }


@pytest.fixture(autouse=True)
def global_state_unchanged() -> Iterator[None]:
    before = global_state()
    yield
    after = global_state()
    names = before.keys() | after.keys()
    changed = {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
    assert not changed, f"the test left changed: {changed}"
