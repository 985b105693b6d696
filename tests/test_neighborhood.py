"""Dilation, on which losses of contours stand: SciPy's value, gradients of finite differences, in parts and as a whole."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from monai_segloss.kernels import dilation as kernel
from monai_segloss.kernels.dilation import dilation

SHAPES = [((2, 3, 5, 4, 6), (2, 1, 3)), ((1, 2, 1, 2, 3), (1, 1, 1)), ((2, 1, 7), (9,)), ((3, 2, 2, 8), (1, 0))]


@pytest.mark.parametrize(("shape", "radius"), SHAPES)
def test_dilation_is_that_of_scipy(shape: tuple[int, ...], radius: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    window = (1, 1, *(2 * r + 1 for r in radius))
    assert dilation(x, radius).tolist() == ndimage.grey_dilation(x.numpy(), window, mode="nearest").tolist()


@pytest.mark.parametrize(("shape", "radius"), SHAPES)
def test_gradients_of_dilation(
    shape: tuple[int, ...], radius: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dilation(x, radius), x)
    assert torch.autograd.gradgradcheck(lambda x: dilation(x, radius) ** 2, x)
    weight, ties = torch.rand_like(x), torch.randint(0, 3, shape).double().requires_grad_()
    for case in (x, ties):
        whole = torch.autograd.grad((weight * dilation(case, radius)).sum(), case)[0]
        torch.testing.assert_close(whole.sum(), weight.sum())
        monkeypatch.setattr(kernel, "CHUNK", 2 * x[0, 0].numel())  # parts of 2 and 1 of the maps
        value = dilation(case, radius)
        assert torch.equal(value, dilation(case.detach(), radius))
        assert torch.equal(torch.autograd.grad((weight * value).sum(), case)[0], whole)
        monkeypatch.setattr(kernel, "CHUNK", 1)  # parts of the rows
        monkeypatch.setattr(kernel, "LEAST_ROWS", 1)
        value = dilation(case, radius)
        assert torch.equal(value, dilation(case.detach(), radius))
        torch.testing.assert_close(torch.autograd.grad((weight * value).sum(), case)[0], whole)
        monkeypatch.undo()


def test_equal_values_share_the_gradient_alike_on_both_sides() -> None:
    x = torch.ones(1, 1, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(dilation(x, (1,))[0, 0, 2], x)
    assert slope.flatten().tolist() == [0, 0.25, 0.5, 0.25, 0]
