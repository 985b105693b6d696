"""Tasks, blocks and threads: any number of them, and voxels left over, give the same sums and gradients, bit by bit."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from torch import Tensor

import monai_segloss.kernels  # noqa: F401  (registers the fast backends)
from monai_segloss.core.counts import FORMULAS, Stat, plain_statistics, soft_statistics
from monai_segloss.kernels import statistics_cpu

ALL = tuple(
    Stat(name, 1.5 if name.endswith("_power") or name in ("focal", "focal_neg", "ae") else 0) for name in FORMULAS
)
SOME = (Stat("tp"), Stat("fp"), Stat("fn"), Stat("ce"))


def both(function, logits: Tensor, *rest) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """Sums, and the gradient of a combination of them."""
    leaf = logits.clone().requires_grad_()
    sums = function(leaf, *rest)
    factors = torch.linspace(-1, 2, sums.numel()).view_as(sums)  # of each sample its own
    (slope,) = torch.autograd.grad((sums * factors / sums.detach().abs().clamp_min(1)).sum(), leaf)
    return sums.detach(), slope


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 3, 9, 19])
@pytest.mark.parametrize("voxels", [1, 2, 5, 15, 16, 17, 4099, 9000])
def test_any_number_of_voxels(voxels: int, classes: int, dtype: torch.dtype, weighted: bool) -> None:
    logits = (2 * torch.randn(2, classes, voxels)).to(dtype)
    labels = torch.randint(0, classes, (2, voxels))
    weight = torch.rand(2, voxels) * (torch.rand(2, voxels) < 0.6) if weighted else None
    sums, slope = both(soft_statistics, logits, labels, ALL, "softmax", weight)
    expected, other = both(plain_statistics, logits, labels, ALL, "softmax", weight)
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slope, other, rtol=2e-2 if dtype == torch.bfloat16 else 1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["labels", "channels"])
@pytest.mark.parametrize(("classes", "voxels"), [(3, 300_001), (40, 20_011)])
def test_threads_change_no_bit(classes: int, voxels: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(2, classes, voxels)
    target = torch.randint(0, classes, (2, voxels)) if kind == "labels" else torch.rand(2, classes, voxels)
    found = []
    for threads in (1, 2, 7, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(both(soft_statistics, logits, target, SOME, "softmax"))
    for sums, slope in found[1:]:
        assert torch.equal(sums, found[0][0])
        assert torch.equal(slope, found[0][1])
    expected, other = both(plain_statistics, logits.double(), target, SOME, "softmax")
    torch.testing.assert_close(found[0][0].double(), expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(found[0][1].double(), other, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("kind", ["labels", "channels"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize(("batch", "classes"), [(1, 3), (2, 3), (7, 2), (5, 9)])
def test_small_samples_do_not_mix(
    batch: int, classes: int, activation: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples that go together have the sums and the gradients of samples that go one by one."""
    voxels = 50
    logits = torch.rand(batch, classes, voxels)
    target = torch.randint(0, classes, (batch, voxels)) if kind == "labels" else torch.rand(batch, classes, voxels)
    weight = torch.rand(batch, voxels) * (torch.rand(batch, voxels) < 0.6)
    monkeypatch.setattr(statistics_cpu, "CHUNK", {"cpu": 9 * batch * classes})  # of the plain formula
    rest = ALL, activation
    sums, slope = both(soft_statistics, logits, target, *rest, weight)
    expected, other = both(plain_statistics, logits.double(), target, *rest, weight.double())
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope.double(), other, rtol=1e-4, atol=1e-5)


def _child(logits: Tensor, labels: Tensor, results: object) -> None:
    results.put([x.numpy() for x in both(soft_statistics, logits, labels, SOME, "softmax")])  # type: ignore[attr-defined]


def test_in_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker that loads data: threads of the parent are not there."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    logits, labels = torch.randn(2, 3, 200_000), torch.randint(0, 3, (2, 200_000))
    expected = both(soft_statistics, logits, labels, SOME, "softmax")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_child, args=(logits, labels, results))
    child.start()
    found = results.get(timeout=60)
    child.join()
    assert all(torch.equal(torch.from_numpy(a), b) for a, b in zip(found, expected, strict=True))
