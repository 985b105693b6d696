"""The distance transform equals brute force, on every back end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from monai_segloss.kernels import distance, native
from monai_segloss.kernels.distance import distance_across, distance_to, min_plus

SHAPES = [(9,), (7, 9), (1, 8), (4, 6, 5), (1, 6, 5), (3, 2, 3, 2)]
Transform = Callable[[Tensor, Tensor, bool], Tensor]


def brute(sources: NDArray[np.bool_], steps: NDArray[np.float64], surface: bool = False) -> NDArray[np.float64]:
    """Every voxel against every source."""
    points, every = np.argwhere(sources), np.argwhere(np.ones_like(sources))
    if not len(points):
        return np.full(sources.shape, np.inf)
    gap = np.abs(every[:, None] - points[None]).astype(float)
    gap = np.maximum(gap - 0.5, 0) if surface else gap
    squares = ((gap * steps) ** 2).sum(-1)
    out: NDArray[np.float64] = np.sqrt(squares.min(1)).reshape(sources.shape)
    return out


def rows(change: Callable[..., NDArray[np.float64]], x: Tensor, spacing: Tensor, *more: Tensor) -> NDArray[np.float64]:
    """The brute force of each sample and channel."""
    return np.stack(
        [
            [change(*(t[b, c].numpy() for t in (x, *more)), spacing[b].numpy()) for c in range(x.shape[1])]
            for b in range(x.shape[0])
        ]
    )


def masks(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Random, empty, full, one voxel, a corner, all but one, with a spacing of 0.3 to 8 mm for each sample."""
    rng = np.random.default_rng(len(shape))
    found = torch.from_numpy(rng.random((2, 6, *shape)) < 0.25)
    found[:, 1], found[:, 2], found[:, 3:5], found[0, 5] = False, True, False, True
    found[:, 3].flatten(1)[:, found[0, 0].numel() // 2] = True
    found[:, 4].flatten(1)[:, 0] = True
    found[0, 5].flatten()[-1] = False
    found[1, 5] = torch.from_numpy(np.indices(shape).sum(0) > sum(shape) // 2)
    spacing = torch.from_numpy(rng.uniform(0.3, 8, (2, len(shape))))
    spacing[1, 0], spacing[1, -1] = 8.0, 0.3
    return found, spacing


def by_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distance, "library", lambda: None)
    monkeypatch.setattr(distance, "_transform", lambda: distance.transform_by_scipy)


@pytest.fixture(params=["c++", "edt", "scipy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "scipy":
        by_scipy(monkeypatch)
    elif request.param == "edt":
        pytest.importorskip("edt", reason="the package edt is not installed")
        monkeypatch.setattr(distance, "library", lambda: None)
    elif native.compiler() is None:
        pytest.skip("no C++ compiler")
    return str(request.param)


@pytest.mark.parametrize("surface", [False, True], ids=["centers", "surface"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.usefixtures("backend")
def test_the_nearest_source(shape: tuple[int, ...], surface: bool) -> None:
    sources, spacing = masks(shape)
    found = distance_to(sources, spacing, surface=surface)
    assert found.dtype == torch.float32
    expected = rows(lambda x, s: brute(x, s, surface), sources, spacing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(min_plus(sources, spacing, surface), expected, rtol=1e-5)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("shape", [(40,), (3, 70), (40, 3), (7, 37, 50), (64, 2, 33)], ids=str)
def test_far_from_everything_the_compiled_code_equals_scipy(shape: tuple[int, ...], labels: int, threads: int) -> None:
    rng = np.random.default_rng(0)
    scales = np.array([1.0, 2.0, 8.0, 30.0, 500.0]).repeat(2)  # from noise to a single blob in an empty volume
    x = np.stack([ndimage.gaussian_filter(rng.random(shape), s / 4, mode="constant") for s in scales])
    edges = np.linspace(0.5, 0.9 if labels > 2 else 0.5, labels - 1)
    x = np.stack([np.digitize(each, np.quantile(each, edges)) for each in x])
    x[-1] = 0
    x[-1].flat[[0, -1]] = 1
    steps = [tuple(rng.uniform(0.3, 8, len(shape))) for _ in x]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = torch.tensor(steps, dtype=torch.float64)
        found = distance_across(torch.from_numpy(x)[:, None], rows, classes=labels)
        nearest = distance_to(torch.from_numpy(x > 0)[:, None], rows)
    finally:
        torch.set_num_threads(before)
    for i, (each, step) in enumerate(zip(x, steps, strict=True)):
        np.testing.assert_allclose(found[i, 0], distance.transform_by_scipy(each, step, labels), rtol=1e-5)
        np.testing.assert_allclose(nearest[i, 0], distance.transform_by_scipy(each > 0, step, 0), rtol=1e-5)


def other_side(x: NDArray[np.int64], valid: NDArray[np.bool_], steps: NDArray[np.float64], surface: bool) -> NDArray:
    out = np.full(x.shape, np.inf)
    for label in np.unique(x):
        own = x == label
        out[own] = brute(~own & valid, steps, surface)[own]
    return out


@pytest.mark.parametrize("surface", [False, True], ids=["centers", "surface"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.usefixtures("backend")
def test_the_other_side_of_a_mask(shape: tuple[int, ...], surface: bool) -> None:
    x, spacing = masks(shape)
    everything = torch.ones_like(x)
    for valid in (None, everything, torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.7):
        sent = everything if valid is None else valid
        expected = rows(lambda a, v, s: other_side(a, v, s, surface), x, spacing, sent)
        found = distance_across(x, spacing, valid, surface=surface)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("surface", [False, True], ids=["centers", "surface"])
@pytest.mark.parametrize("classes", [4, 300])
@pytest.mark.usefixtures("backend")
def test_all_labels_in_one_pass(classes: int, surface: bool) -> None:
    x = torch.randint(0, 4, (2, 1, 4, 5, 6), generator=torch.Generator().manual_seed(0)) * (classes // 4)
    spacing = torch.tensor([[3.0, 0.3, 1.0], [1.0, 1.0, 8.0]]).double()
    for valid in (None, torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.6):
        sent = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
        expected = rows(lambda a, v, s: other_side(a, v, s, surface), x, spacing, sent)
        found = distance_across(x, spacing, valid, classes=classes, surface=surface)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_device_without_back_end_of_its_own_has_the_passes_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randint(0, 3, (2, 2, 5, 6), generator=torch.Generator().manual_seed(0))
    expected = distance_across(x, classes=3)
    nearest = distance_to(x == 1)
    monkeypatch.setattr(distance, "_on_cpu", lambda *_: pytest.fail("the CPU was asked"))
    monkeypatch.setattr(distance, "CHUNK", 100)
    assert distance._passes("mps") is min_plus
    meta = distance_to(x.to("meta") == 1)
    assert (meta.shape, meta.dtype, meta.device.type) == (x.shape, torch.float32, "meta")
    torch.testing.assert_close(min_plus(x == 1, torch.ones(2, 2), False), nearest)
    assert torch.equal(expected.isinf(), torch.zeros_like(x, dtype=torch.bool))


INTERPRETED = """
import sys
sys.path.insert(0, "tests")
from test_distance import SHAPES, masks
import numpy as np
from monai_segloss.kernels.distance import min_plus
from monai_segloss.kernels.distance_triton import min_plus as in_triton
for shape in [*SHAPES, (3, 70)]:
    sources, spacing = masks(shape)
    for surface in (False, True):
        np.testing.assert_allclose(in_triton(sources, spacing, surface), min_plus(sources, spacing, surface), rtol=1e-5)
        turned = sources.transpose(-1, 2)
        apart = in_triton(turned, spacing, surface)
        np.testing.assert_allclose(apart, min_plus(turned, spacing, surface), rtol=1e-5)
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_kernel_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from monai_segloss.kernels.distance_triton import LINES, POINTS, _pass
whole = dict.fromkeys(("lines", "per_sample", "length", "inner", "axis", "ndim"), "i32")
fixed = {"LINES": LINES, "POINTS": POINTS}
for first, last in ((True, False), (False, False), (False, True), (True, True)):
    pointers = {"source": "*u8" if first else "*fp32", "out": "*fp32", "rows": "*fp32"}
    signature = {**pointers, **whole, "half": "fp32", **dict.fromkeys(("FIRST", "LAST", *fixed), "constexpr")}
    source = ASTSource(fn=_pass, signature=signature, constexprs={"FIRST": first, "LAST": last, **fixed})
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_kernel_compiles_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_back_end_has_a_name(backend: str) -> None:
    assert distance.cpu_backend().lower() == backend


def test_an_absent_class_costs_no_transform(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distance, "_transform", lambda: pytest.fail("a transform of nothing"))
    if backend == "c++":
        monkeypatch.setattr(distance, "distances", lambda *_: pytest.fail("a transform of nothing"))
    for full in (False, True):
        x = torch.full((1, 2, 4, 5), full)
        assert distance_across(x).isinf().all()
        assert (distance_to(x) == (0.0 if full else torch.inf)).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_without_waiting_for_it() -> None:
    x, spacing = masks((4, 6, 5))
    expected = distance_across(x, spacing)
    on_gpu = x.cuda()
    distance_across(on_gpu, spacing)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = distance_across(on_gpu, spacing)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=0)


def test_a_graph_holds_it() -> None:
    x, spacing = masks((4, 6, 5))
    compiled = torch.compile(lambda m: distance_across(m, spacing) + 1, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), distance_across(x, spacing) + 1)


def test_nothing_to_measure() -> None:
    assert distance_to(torch.zeros(0, 2, 3, dtype=torch.bool)).shape == (0, 2, 3)
    assert distance_to(torch.zeros(2, 0, 3, 3, dtype=torch.bool)).shape == (2, 0, 3, 3)
