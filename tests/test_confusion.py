"""The soft confusion matrix in chunks, against sums written in NumPy, with gradients of the first and second order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from monai_segloss.kernels import voxels
from monai_segloss.kernels.confusion import soft_confusion


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["int64", "uint8", "bool", "soft"])
@pytest.mark.parametrize("activation", ["softmax", "none", "callable"])
@pytest.mark.parametrize(("classes", "shape"), [(2, (9, 7)), (3, ()), (20, (5, 3, 4))])
def test_matrix_and_gradient(
    classes: int, shape: tuple[int, ...], activation: str, kind: str, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voxels, "CHUNK", {"cpu": 10 * classes})
    z = torch.randn(2, classes, *shape, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, *shape))
    hot = torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
    target = {"int64": labels, "uint8": labels.to(torch.uint8), "bool": hot > 0, "soft": hot * 0.7 + 0.1}[kind]
    mask = torch.rand(2, *shape) < 0.6 if masked else None
    if mask is not None and shape:
        z[0, 0][~mask[0]] = torch.nan
    valid = np.ones((2, 1, *shape)) if mask is None else mask.numpy()[:, None]
    x = np.where(valid > 0, z.numpy(), 0)
    p = {"softmax": softmax(x, axis=1), "none": x, "callable": np.tanh(x)}[activation]
    g = (target if kind == "soft" else hot).numpy() * valid
    flat = (2, classes, int(np.prod(shape)))
    expected = np.einsum("bln,bcn->blc", g.reshape(flat), p.reshape(flat))
    z.requires_grad_()
    found = soft_confusion(z, target, torch.tanh if activation == "callable" else activation, mask)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    factors = torch.randn(found.shape, dtype=torch.float64)
    (slope,) = torch.autograd.grad((found * factors).sum(), z, retain_graph=True)
    (again,) = torch.autograd.grad((found * factors).sum(), z)
    slopes = np.einsum("blc,bln->bcn", factors.numpy(), g.reshape(flat)).reshape(p.shape)
    if activation == "softmax":
        slopes = p * (slopes - (slopes * p).sum(1, keepdims=True))
    if activation == "callable":
        slopes = slopes * (1 - p**2)
    np.testing.assert_allclose(slope.numpy(), slopes * valid, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(again, slope)


def test_second_derivative() -> None:
    z = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0, 2, 1, 1]])
    assert torch.autograd.gradgradcheck(lambda x: soft_confusion(x, labels, "softmax").square(), z)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [3, 20])
def test_half_precision_is_only_that_of_the_logits(classes: int, dtype: torch.dtype) -> None:
    z = torch.randn(1, classes, 5000).to(dtype).requires_grad_()
    labels = torch.randint(0, classes, (1, 5000))
    found = soft_confusion(z, labels, "softmax")
    exact = soft_confusion(z.detach().double(), labels, "softmax")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
    found.square().sum().backward()
    assert z.grad.dtype == dtype
    assert z.grad.isfinite().all()
