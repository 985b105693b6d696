"""Sums over parts of maps: those of the whole, with the same derivatives, whatever the parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss.kernels import dilation as dilations
from monai_segloss.kernels import recomputed
from monai_segloss.kernels.dilation import dilation
from monai_segloss.kernels.recomputed import by_class, class_parts, sums, totals, voxel_parts

SHAPE = (2, 3, 7, 5, 4)


def maps(counted: bool) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    p, w = (torch.rand(SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
    mask = torch.rand(SHAPE[0], 1, *SHAPE[2:], generator=generator) < 0.7
    return [p.requires_grad_(), w.requires_grad_(), mask if counted else None]


def windows(rows: slice, p: Tensor, w: Tensor, counted: Tensor | None) -> Tensor:
    return totals(rows, counted, dilation(p, (1, 1, 1), counted) * w, p**3)


def of_voxels(_: slice, p: Tensor, w: Tensor, counted: Tensor | None) -> Tensor:
    x = p.softmax(1) * w
    return (x if counted is None else x * counted).sum(2)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("halo", [1, 3, None])
def test_sums_of_rows(monkeypatch: pytest.MonkeyPatch, counted: bool, halo: int | None) -> None:
    given = maps(counted)
    whole = windows(slice(None), *given)
    monkeypatch.setitem(recomputed.MOST, "cpu", 1)
    monkeypatch.setattr(recomputed, "LEAST_ROWS", 2)
    assert len(class_parts(given[0], halo)) > (6 if halo is None else 2) - 1
    agree(by_class(windows, halo, *given), whole, given[:2])


@pytest.mark.parametrize("counted", [False, True])
def test_sums_of_voxels(monkeypatch: pytest.MonkeyPatch, counted: bool) -> None:
    given = [None if x is None else x.flatten(2) for x in maps(counted)]
    whole = of_voxels(slice(None), *given)
    monkeypatch.setitem(recomputed.MOST, "cpu", 27)
    parts = voxel_parts(given[0], by_sample=True)
    assert len(parts) > 2 * 2
    agree(sums(of_voxels, parts, (2,), *given), whole, given[:2])


def agree(found: Tensor, whole: Tensor, at: list[Tensor]) -> None:
    """In value, gradient and second derivative."""
    torch.testing.assert_close(found, whole)
    weight = torch.linspace(0.5, 2, whole.numel(), dtype=whole.dtype).view_as(whole)
    results = []
    for table in (found, whole):
        first = torch.autograd.grad((table * weight).square().sum(), at, retain_graph=True)
        slopes = torch.autograd.grad((table * weight).square().sum(), at, create_graph=True)
        second = torch.autograd.grad(sum((x**2).sum() for x in slopes), at)
        results.append((*first, *slopes, *second))
    for mine, others in zip(*results, strict=True):
        torch.testing.assert_close(mine, others)


IN_PARTS = """
boundary cb_dice cc_dice_ce cl_ce component_tversky convexity inverse_weighted_dice non_adjacency
soft_cldice star_shape structural_similarity surface_dice
"""


@pytest.mark.parametrize("key", IN_PARTS.split())
def test_a_loss_in_parts_is_the_loss(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Labels, an ignored class and two samples, of which each has a spacing."""
    info = monai_segloss.find(key)
    loss = monai_segloss.create(key, **{**info.example, "softmax": True, "to_onehot_y": True, "ignore_index": 3})
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, 3, 9, 8, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    label = torch.randint(0, 4, (2, 1, 9, 8, 7), generator=generator)
    spacing = torch.tensor([[1.0, 2.0, 1.0], [3.0, 1.0, 1.0]])
    results = []
    for most in (2**18, 100):
        monkeypatch.setitem(recomputed.MOST, "cpu", most)
        if most == 100:
            monkeypatch.setattr(recomputed, "LEAST_ROWS", 1)
            monkeypatch.setattr(dilations, "CHUNK", most)
            monkeypatch.setattr(dilations, "LEAST_ROWS", 1)
        value = loss(z, label, spacing=spacing)
        results.append((value.detach(), *torch.autograd.grad(value, z)))
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole)


def test_a_gradient_of_the_parts_keeps_no_copy_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recomputed.MOST, "cpu", 100)
    largest: list[int] = []
    kept: Callable[[Tensor], Tensor] = lambda x: largest.append(x.data_ptr()) or x  # noqa: E731
    p, w, _ = maps(False)
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda x: x):
        by_class(windows, 1, p, w, None)
    assert set(largest) <= {p.data_ptr(), w.data_ptr()}
