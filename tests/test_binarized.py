"""Statistics of b = sigmoid(k (p - T)) in chunks, against the formula, with gradients of logits and thresholds."""

from __future__ import annotations

import pytest
import torch

from monai_segloss.core.counts import Stat
from monai_segloss.kernels import statistics_cpu
from monai_segloss.kernels.binarized import binarized_statistics

WHICH = (Stat("tp"), Stat("fp"), Stat("focal", 2.0), Stat("g"))


def formula(p: torch.Tensor, g: torch.Tensor, level: torch.Tensor | float, counted: torch.Tensor) -> torch.Tensor:
    """(B, C, 4) of `WHICH`, from probabilities and targets (B, C, *S)."""
    b = (7.5 * (p - level)).sigmoid()
    each = torch.stack([b * g, b * (1 - g), -g * (1 - b) ** 2 * b.log(), g])
    return (each * counted).reshape(*each.shape[:3], -1).sum(3).permute(1, 2, 0)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["int64", "uint8", "bool", "soft"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none", "callable"])
@pytest.mark.parametrize(("classes", "shape"), [(2, (9, 7)), (3, ()), (20, (5, 3, 4))])
def test_sums_and_gradients(
    classes: int,
    shape: tuple[int, ...],
    activation: str,
    kind: str,
    mapped: bool,
    masked: bool,
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics_cpu, "CHUNK", {"cpu": 20 * classes})
    if not compiled:
        monkeypatch.setattr(statistics_cpu, "_way", lambda form, *_: statistics_cpu.Chunks(form))
    torch.manual_seed(0)
    labels = torch.randint(0, classes, (2, *shape))
    hot = torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
    target = {"int64": labels, "uint8": labels.to(torch.uint8), "bool": hot > 0, "soft": hot * 0.7 + 0.1}[kind]
    mask = torch.rand(2, *shape) < 0.6 if masked else None
    counted = torch.ones(2, 1, *shape) if mask is None else mask[:, None]
    x = torch.randn(2, classes, *shape, dtype=torch.float64)
    t = torch.randn(2, *shape, dtype=torch.float64) if mapped else None
    inputs = [v.clone().requires_grad_() for v in (x, t) if v is not None]
    act = {"softmax": lambda z: z.softmax(1), "sigmoid": torch.sigmoid, "none": lambda z: z, "callable": torch.tanh}[
        activation
    ]
    level = inputs[1].sigmoid()[:, None] if mapped else 0.5
    expected = formula(act(inputs[0]), (target if kind == "soft" else hot).double(), level, counted)
    factors = torch.randn(expected.shape, dtype=torch.float64)
    slopes = torch.autograd.grad((expected * factors).sum(), inputs)

    nothing = counted == 0
    sent = [x.masked_fill(nothing, torch.nan)] + ([t.masked_fill(nothing[:, 0], torch.nan)] if t is not None else [])
    sent = [v.requires_grad_() for v in sent]
    form = WHICH, torch.tanh if activation == "callable" else activation, 7.5, sent[1] if mapped else None, mask
    found = binarized_statistics(sent[0], target, *form)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    for _ in range(2):  # the second time without what the first one kept
        again = torch.autograd.grad((found * factors).sum(), sent, retain_graph=True)
        torch.testing.assert_close(again, slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mapped", [False, True])
def test_second_derivatives(mapped: bool) -> None:
    z, t = torch.randn(1, 9, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    labels = torch.tensor([[0, 2, 1, 8]])
    inputs = [x.requires_grad_() for x in ((z, t) if mapped else (z,))]
    assert torch.autograd.gradgradcheck(
        lambda z, t=None: binarized_statistics(z, labels, WHICH, "softmax", 3.0, t).square(), inputs
    )


@pytest.mark.parametrize("classes", [3, 9])
@pytest.mark.parametrize("trained", ["logits", "threshold", "nothing"])
def test_only_what_is_trained_gets_a_gradient(classes: int, trained: str) -> None:
    z = torch.randn(1, classes, 4, requires_grad=trained == "logits")
    t = torch.randn(1, 4, requires_grad=trained == "threshold")
    found = binarized_statistics(z, torch.tensor([[0, 2, 1, 1]]), WHICH, "softmax", 3.0, t)
    assert found.requires_grad == (trained != "nothing")
    if found.requires_grad:
        found.sum().backward()
        assert (z.grad is None) == (trained != "logits")
        assert (t.grad is None) == (trained != "threshold")


@pytest.mark.parametrize("classes", [3, 9])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_only_that_of_the_inputs(classes: int, dtype: torch.dtype) -> None:
    z, t = (torch.randn(shape).to(dtype).requires_grad_() for shape in ((1, classes, 5000), (1, 5000)))
    labels = torch.randint(0, classes, (1, 5000))
    found = binarized_statistics(z, labels, WHICH, "softmax", 50.0, t)
    assert found.dtype == torch.float32
    slopes = torch.autograd.grad(found.sum(), (z, t))
    wide = [x.detach().double().requires_grad_() for x in (z, t)]
    expected = binarized_statistics(wide[0], labels, WHICH, "softmax", 50.0, wide[1])
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=0)
    eps = torch.finfo(dtype).eps
    for slope, exact in zip(slopes, torch.autograd.grad(expected.sum(), wide), strict=True):
        assert slope.dtype == dtype
        torch.testing.assert_close(slope.double(), exact, rtol=4 * eps, atol=eps)
