"""Kernels that a wheel carries compiled: who uses them, and that a build with them has what the losses ask for."""

from __future__ import annotations

import email
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from monai_segloss.kernels import native, shipped

ROOT = Path(__file__).resolve().parent.parent
SOURCE = 'extern "C" int seven() { return 7; }'
CHANGED = SOURCE.replace("7;", "8;")

fits = pytest.mark.skipif(
    platform.machine() not in shipped.PROCESSORS, reason="no kernels are shipped for this machine"
)


@pytest.fixture
def folder(compiler: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a wheel would carry: one library, which says 8 where the source says 7."""
    monkeypatch.setenv(native.CACHE, str(tmp_path / "cache"))
    made = tmp_path / shipped.name(SOURCE, "-O2")
    native.compile_to(made, CHANGED, native.flags())
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    monkeypatch.setattr(native, "_broken", {})
    native.load.cache_clear()
    yield tmp_path
    native.load.cache_clear()


@pytest.fixture
def without_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiler", lambda: None)


@fits
def test_what_is_compiled_here_goes_first(folder: Path) -> None:
    assert native.load(SOURCE).seven() == 7
    assert native.used()[1].startswith("C++, compiled by ")


@fits
@pytest.mark.usefixtures("without_compiler")
def test_without_a_compiler_the_library_of_the_same_source_and_level_is_used() -> None:
    assert native.load(SOURCE).seven() == 8
    assert native.load(CHANGED) is native.load(SOURCE, "-O3") is None
    name = shipped.PROCESSORS[platform.machine()].name
    assert native.used() == (True, f"there is no C++ compiler: kernels shipped with the wheel (1, for {name})")


@fits
def test_a_compiler_that_fails_leaves_what_the_wheel_carries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiler", lambda: "false")
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ kernels compiled here"):
        assert native.load(SOURCE).seven() == 8
    assert native.used()[1].startswith("false failed: ")


@pytest.mark.usefixtures("without_compiler")
@pytest.mark.parametrize(
    ("machine", "capability"), [("x86_64", "DEFAULT"), ("x86_64", "NO AVX"), ("riscv64", "DEFAULT")]
)
def test_another_processor_loads_nothing(
    machine: str, capability: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    (folder / shipped.name(SOURCE, "-O2")).touch()
    assert native.load(SOURCE) is None
    assert native.used() == (
        False,
        "there is no C++ compiler and the processor does not run the kernels of the wheel",
    )


@fits
@pytest.mark.usefixtures("without_compiler")
def test_a_library_that_does_not_load_is_told_once(folder: Path) -> None:
    for source in (SOURCE, CHANGED):
        (folder / shipped.name(source, "-O2")).write_bytes(b"for another libc")
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ kernels of the wheel"):
        assert native.load(SOURCE) is None
    assert native.load(CHANGED) is None  # a warning would be an error
    assert "the kernels of the wheel do not load: " in native.used()[1]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program without this repository on its path."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *command], env={**kept, **environment}, capture_output=True, text=True, cwd="/", check=False
    )


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    asked = {"SEGLOSS_WHEEL_KERNELS": "1", **environment}
    return run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT), **asked)


@fits
@pytest.mark.nightly
@pytest.mark.usefixtures("compiler")
def test_a_wheel_with_kernels_on_a_machine_without_a_compiler(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith(f"-py3-none-linux_{platform.machine()}.whl")
    with zipfile.ZipFile(wheel) as archive:
        about = next(name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        assert email.message_from_bytes(archive.read(about))["Root-Is-Purelib"] == "false"
    target, cache = tmp_path / "installed", tmp_path / "cache"
    installed = run("-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    assert installed.returncode == 0, installed.stderr[-2000:]

    machine = {"PYTHONPATH": str(target), "SEGLOSS_COMPILER": "none", "SEGLOSS_CACHE": str(cache)}
    done = run("-c", USED, **machine)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(target / "monai_segloss" / "kernels" / "native.py")]
    if shipped.PROCESSORS[platform.machine()].capabilities:
        done = run("-c", NOT_USED, ATEN_CPU_CAPABILITY="default", **machine)
        assert done.returncode == 0, done.stderr[-2000:]
    assert not cache.exists()


USED = """
import ctypes, warnings
from dataclasses import replace
from unittest.mock import patch
import torch
from monai_segloss import create
from monai_segloss.core.counts import FORMULAS, Stat, plain_statistics, soft_statistics
from monai_segloss.core.registry import LOSSES
from monai_segloss.kernels import native, statistics_cpu
from monai_segloss.testing import harness

load, loaded = native.load, []
def watched(*source):
    loaded.append(load(*source))
    return loaded[-1]

def step(key):
    statistics_cpu._way.cache_clear()
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 12, 12, 12, requires_grad=True), torch.randint(0, 3, (2, 1, 12, 12, 12))
    value = create(key, softmax=True, to_onehot_y=True)(logits, label, spacing=(1.0, 1.0, 2.0))
    return value.detach(), *torch.autograd.grad(value, logits)

for key in ("dice_ce", "focal_tversky", "boundary", "dice_topk", "unified_focal"):
    with patch.object(native, "load", watched):
        found = step(key)
    assert loaded and all(isinstance(x, ctypes.CDLL) for x in loaded), key
    loaded.clear()
    with patch.object(native, "load", lambda *_: None):
        expected = step(key)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)

# every loss, in the form of each case that it reads
with patch.object(native, "load", watched), warnings.catch_warnings(action="ignore"):
    for info in LOSSES.values():
        for case in harness.supported(info):
            case = case.with_input(case.input.float())
            statistics_cpu._way.cache_clear()
            harness.gradient(harness.make(info, case), case)
            assert None not in loaded, (info.key, case.name)
assert len(set(map(id, loaded))) > 50

warnings.simplefilter("error")
FORMULAS["p_cube"] = lambda v, a: v.p**3
logits, target = torch.randn(2, 3, 50), torch.randint(0, 3, (2, 50))
loaded.clear()
with patch.object(native, "load", watched):
    found = soft_statistics(logits, target, (Stat("p_cube"),))
assert loaded == [None]
torch.testing.assert_close(found, plain_statistics(logits, target, (Stat("p_cube"),)))
assert native.used()[0], native.used()
print(native.__file__)
"""

NOT_USED = """
import torch
from monai_segloss import create
from monai_segloss.kernels import native, shipped
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
assert shipped.libraries() and not native.used()[0]
with torch.no_grad():
    assert create("dice_ce", softmax=True)(torch.randn(1, 2, 4), torch.ones(1, 2, 4)).isfinite()
assert native.load.cache_info().currsize and native.load(native.source("threads", "distance"), "-O3") is None
"""


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("compiler", "sentence"),
    [("none", "no C++ compiler was found; SEGLOSS_COMPILER names one."), ("false", "false failed: exit status 1")],
)
def test_a_build_without_a_working_compiler_ends_with_a_sentence(compiler: str, sentence: str, tmp_path: Path) -> None:
    done = build(tmp_path, SEGLOSS_COMPILER=compiler)
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("SEGLOSS_WHEEL_KERNELS: "))
    assert line.endswith(sentence)
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())
