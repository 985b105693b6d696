"""Every statistic by hand against its definition in float64: about as exact as the definition in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import monai_segloss.kernels  # noqa: F401  (registers the fast backends)
from monai_segloss.core.counts import FORMULAS, Stat, plain_statistics, soft_statistics

POWERS = {
    "focal": (0.0, 0.5, 0.75, 1.0, 2.0, 2.5, 3.0, 4.0),
    "ae": (1.0, 1.3, 1.5, 2.0),
    "ce_power": (0.3, 0.5, 1.0, 1.5, 2.0),
    "fp_power": (1.0, 1.5, 2.0, 3.0),
}
POWERS |= {"focal_neg": POWERS["focal"], "ce_neg_power": POWERS["ce_power"], "fn_power": POWERS["fp_power"]}
EVERY = [Stat(name, power) for name in FORMULAS for power in POWERS.get(name, (0.0,))]
COMPLEMENT = ("ce_neg", "focal_neg", "ce_neg_power")
"""What takes log(1 - p), minus infinity with one class after a softmax."""
TRUE_CLASS = (
    "g",
    "g_sq",
    "tp",
    "fn",
    "tp_l1",
    "fn_l1",
    "se_g",
    "ae_tp",
    "ce",
    "log1p",
    "focal",
    "ce_power",
    "fn_power",
)
CLASSES = (1, 2, 3, 4, 5, 6, 7, 20)


def case(kind: str, classes: int, margin: float, weighted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits in float32, target, weights; some voxels are as sure as ``margin``, rightly or wrongly."""
    logits = 2 * torch.randn(2, classes, 40)
    labels = torch.randint(0, classes, (2, 40))
    sure = torch.nn.functional.one_hot(torch.randint(0, classes, (2, 20)), classes).movedim(-1, 1)
    logits[..., :20] += margin * (2 * sure - 1)
    target = {
        "labels": labels,
        "soft": torch.softmax(torch.randn(logits.shape), 1),
        "regions": torch.rand(logits.shape) < 0.4,
    }[kind]
    return logits, target, torch.rand(2, 40) * (torch.rand(2, 40) < 0.7) if weighted else None


def both(function, logits: Tensor, *rest) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """Sums, and gradient of a combination of them, in float64."""
    leaf = logits.clone().requires_grad_()
    sums = function(leaf, *rest)
    factors = torch.linspace(0.5, 1.5, sums.numel(), dtype=sums.dtype).view(sums.shape)
    if not sums.requires_grad:
        return sums.double(), torch.zeros_like(logits).double()
    return sums.detach().double(), torch.autograd.grad((sums * factors).sum(), leaf)[0].double()


def off(found: Tensor, exact: Tensor) -> float:
    """Largest error next to the largest value."""
    assert found.isfinite().all()
    return ((found - exact).abs().amax() / exact.abs().amax().clamp_min(1e-30)).item() if exact.any() else 0.0


@pytest.mark.parametrize("kind", ["labels", "soft", "regions"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("stat", EVERY, ids=lambda s: f"{s.name}-{s.power:g}")
def test_every_statistic(stat: Stat, activation: str, kind: str) -> None:
    for number, classes in enumerate(CLASSES):
        if classes == 1 and activation == "softmax" and stat.name in COMPLEMENT:
            continue
        for margin in (0.0, 8.0, 60.0):
            logits, target, weight = case(kind, classes, margin, weighted=number % 2 == 0)
            rest = (target, (stat,), activation, weight)
            exact = both(plain_statistics, logits.double(), *rest)
            plain, fast = both(plain_statistics, logits, *rest), both(soft_statistics, logits, *rest)
            wide = both(soft_statistics, logits.double(), *rest)
            for x, y, z, w in zip(fast, plain, exact, wide, strict=True):
                allowed = max(1e-5, 4 * off(y, z))
                assert off(x, z) <= allowed, (classes, margin, off(x, z), allowed)
                assert off(w, z) <= 1e-7, (classes, margin, off(w, z))


@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_only_that_of_the_logits(dtype: torch.dtype, activation: str, kind: str) -> None:
    """Sums of half precision logits are those of the same logits in float32; the gradient is rounded once."""
    for classes in (2, 3, 5):
        logits, target, weight = case(kind, classes, 8.0, weighted=True)
        logits = logits.to(dtype)
        for stat in EVERY:
            rest = (target, (stat,), activation, weight)
            sums, slope = both(soft_statistics, logits, *rest)
            wide, wide_slope = both(soft_statistics, logits.float(), *rest)
            torch.testing.assert_close(sums, wide, rtol=1e-6, atol=0)
            rounding = torch.finfo(dtype).eps
            torch.testing.assert_close(slope, wide_slope, rtol=rounding, atol=rounding / 1000)


@pytest.mark.parametrize("kind", ["labels", "soft", "regions"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_together_as_one_by_one(activation: str, kind: str) -> None:
    """Statistics of one pass share what they are made of; each is what it is alone, and the gradient is the sum."""
    some = tuple(stat for stat in EVERY if stat.power in (0.0, 0.5, 1.5, 2.0))
    # with labels some have a part at the true class only
    for which in (some, tuple(stat for stat in some if stat.name in TRUE_CLASS)):
        for classes in (2, 3, 7):
            logits, target, weight = case(kind, classes, 8.0, weighted=True)
            leaf = logits.double().requires_grad_()
            together = soft_statistics(leaf, target, which, activation, weight)
            alone = [soft_statistics(leaf, target, (stat,), activation, weight) for stat in which]
            torch.testing.assert_close(together, torch.cat(alone, 2))
            slope = torch.autograd.grad(together.sum(), leaf)[0]
            torch.testing.assert_close(slope, sum(torch.autograd.grad(one.sum(), leaf)[0] for one in alone))
