"""Slabs of voxels, one per thread: any number of them, and voxels left over, give the same sums and gradients."""

from __future__ import annotations

import pytest
import torch

from monai_segloss.core.counts import FORMULAS, Stat, plain_statistics, soft_statistics
from monai_segloss.kernels import statistics_cpu
from monai_segloss.kernels.chunk_cpu import Part

ALL = tuple(
    Stat(name, 1.5 if name in ("focal", "focal_neg", "ae", "ce_power", "ce_neg_power") else 0) for name in FORMULAS
)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 3, 9])
@pytest.mark.parametrize("voxels", [1, 2, 5, 4099, 9000])
def test_slabs_change_nothing(
    voxels: int, classes: int, dtype: torch.dtype, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics_cpu, "CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(statistics_cpu, "SLAB_ELEMENTS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert voxels < 4 or any(part.slabs == 4 for part in statistics_cpu._chunks(0, classes, voxels))
    logits = (2 * torch.randn(2, classes, voxels)).to(dtype)
    labels = torch.randint(0, classes, (2, voxels))
    weight = torch.rand(2, voxels) * (torch.rand(2, voxels) < 0.6) if weighted else None
    found = []
    for function in (soft_statistics, plain_statistics):
        leaf = logits.clone().requires_grad_()
        sums = function(leaf, labels, ALL, "softmax", weight)
        (slope,) = torch.autograd.grad((sums / sums.detach().abs().clamp_min(1)).sum(), leaf)
        found.append((sums.detach(), slope))
    (sums, slope), (expected, other) = found
    torch.testing.assert_close(sums, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slope, other, rtol=2e-2 if dtype == torch.bfloat16 else 1e-3, atol=1e-6)


@pytest.mark.parametrize("voxels", [1, 4096, 4097, 131_072, 300_001])
def test_parts_cover_every_voxel_once(voxels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    seen = torch.zeros(2, voxels, dtype=torch.int32)
    for part in statistics_cpu._chunks(1, 3, voxels):
        assert isinstance(part, Part)
        part.of(seen).add_(1)
    assert (seen[1] == 1).all()
    assert not seen[0].any()


@pytest.mark.parametrize("kind", ["labels", "channels"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize(("batch", "classes"), [(1, 3), (2, 3), (7, 2), (5, 9)])
def test_small_samples_share_a_chunk(
    batch: int, classes: int, activation: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples that go together, three at a time here, have the sums and the gradients of samples that go one by one."""
    voxels = 50
    logits = torch.rand(batch, classes, voxels)
    target = torch.randint(0, classes, (batch, voxels)) if kind == "labels" else torch.rand(batch, classes, voxels)
    weight = torch.rand(batch, voxels) * (torch.rand(batch, voxels) < 0.6)
    monkeypatch.setattr(statistics_cpu, "CHUNK_ELEMENTS", 3 * classes * voxels)
    together = [samples for samples, _ in statistics_cpu._parts(batch, classes, voxels)]
    assert [s.stop - s.start for s in together] == [3] * (batch // 3) + [batch % 3] * (batch % 3 > 0)
    found = []
    for most in (statistics_cpu.SMALL, 0):
        monkeypatch.setattr(statistics_cpu, "SMALL", most)
        leaf = logits.clone().requires_grad_()
        sums = soft_statistics(leaf, target, ALL, activation, weight)
        factors = torch.linspace(-1, 2, sums.numel()).view_as(sums)  # of each sample its own
        found.append((sums.detach(), torch.autograd.grad((sums * factors).sum(), leaf)[0]))
    for joined, alone in zip(*found, strict=True):
        torch.testing.assert_close(joined, alone, rtol=1e-5, atol=1e-5)
