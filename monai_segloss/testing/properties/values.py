"""What the number and its gradient are: finite, smallest where the prediction is right, the same however reduced."""

from __future__ import annotations

import torch

from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import cases
from monai_segloss.testing.cases import Case
from monai_segloss.testing.contract import on, on_every_case
from monai_segloss.testing.harness import HARD, Violation, assert_close, gradient, make, refused, require, value


@on_every_case
def finite(info: LossInfo, case: Case) -> None:
    """Value and gradient are finite on every case, everything ignored and one voxel included."""
    for made in (case, cases.everything_ignored(case), cases.perfect(case), case.with_input(0 * case.input)):
        found, slope = gradient(make(info, made), made, made.input.float())
        require(found.isfinite().all(), f"{made.name}: the value is {found}")
        require(slope.isfinite().all(), f"{made.name}: the gradient has {int((~slope.isfinite()).sum())} bad entries")


@on_every_case
def low_precision(info: LossInfo, case: Case) -> None:
    """Half and bfloat16 logits give what the same numbers give in float32, and a gradient of their own type."""
    for dtype in (torch.float16, torch.bfloat16):
        low = case.input.to(dtype)
        loss = make(info, case)
        found, slope = gradient(loss, case, low)
        expected, wide = gradient(loss, case, low.float())
        require(slope.dtype == dtype, f"the gradient of {dtype} logits is {slope.dtype}")
        assert_close(found, expected, f"the value in {dtype}", rtol=1e-5, atol=1e-6)
        assert_close(slope, wide.to(dtype), f"the gradient in {dtype}", rtol=2e-2, atol=1e-6)


@on("labels_3d", "ignored", "regions_masked")
def autocast_is_off(info: LossInfo, case: Case) -> None:
    """Under autocast the value is that of float32: matrix products in bfloat16 would lose it."""
    loss, input = make(info, case), case.input.float()
    expected, slope = gradient(loss, case, input)
    with torch.autocast("cpu", torch.bfloat16):
        leaf = input.clone().requires_grad_()
        found = value(loss, case, leaf)
    assert_close(found, expected, "the value", rtol=1e-6)
    assert_close(torch.autograd.grad(found, leaf)[0], slope, "the gradient", rtol=1e-5)


@on("labels_2d", "regions_masked", "ignored")
def gradcheck(info: LossInfo, case: Case) -> None:
    """The gradient is the derivative of the value (finite differences in float64)."""
    loss = make(info, case)
    direction = torch.randn(3, *case.input.shape, dtype=torch.float64)

    def along(t: torch.Tensor, loss=loss, case=case, direction=direction) -> torch.Tensor:  # type: ignore[no-untyped-def]
        return value(loss, case, case.input + (t.view(-1, *[1] * case.input.ndim) * direction).sum(0))

    start = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    try:
        torch.autograd.gradcheck(along, start, eps=1e-6, atol=1e-6, rtol=1e-4)
    except RuntimeError as error:
        raise Violation(str(error)) from error


@on(*HARD, "ignored", "regions_masked")
def perfect_prediction_is_the_minimum(info: LossInfo, case: Case) -> None:
    """No other prediction scores lower, and a step along the negative gradient from a wrong one helps."""
    loss = make(info, case)
    best = value(loss, cases.perfect(case))
    others = [case.input, 0 * case.input, -case.input, 0.2 * cases.perfect(case).input, *_damaged(case)]
    for other in others:
        require(value(loss, case, other) >= best - 1e-9, f"a worse prediction scores lower than {best}")
    start, slope = gradient(loss, case)
    step = 1e-3 * slope / slope.norm().clamp_min(1e-30)
    require(value(loss, case, case.input - step) < start, "a step downhill does not lower the loss")


@on(*HARD, "ignored", "regions_masked")
def perfect_prediction_is_zero(info: LossInfo, case: Case) -> None:
    """Where nothing is wrong the loss is 0."""
    found = value(make(info, case), cases.perfect(case))
    require(abs(found) < 1e-3, f"the perfect prediction gives {found}")


def _damaged(case: Case) -> list[torch.Tensor]:
    """The perfect prediction with the channels of a tenth of the voxels shuffled."""
    input = cases.perfect(case).input
    wrong = torch.rand(input[:, :1].shape, generator=torch.Generator().manual_seed(0)) < 0.1
    return [torch.where(wrong, input.roll(1, dims=1) if case.classes > 1 else -input, input)]


@on(
    *("labels_3d", "labels_2d", "one_class", "regions", "ignored", "ignored_sample"),
    about=lambda info: not info.cls.scalar_only,
)
def reductions_agree(info: LossInfo, case: Case) -> None:
    """`none` broadcasts against the input and adds up to `sum`; `mean` divides by what was summed."""
    parts = value(make(info, case, reduction="none"), case)
    require(parts.ndim == case.input.ndim, f"shape {tuple(parts.shape)} of `none`")
    scored = case.input[:, -parts.shape[1] :].shape
    fits = all(a in (1, b) for a, b in zip(parts.shape, scored, strict=True))
    require(fits, f"`none` has the shape {tuple(parts.shape)}, the scored classes have {tuple(scored)}")
    total = value(make(info, case, reduction="sum"), case)
    mean = value(make(info, case), case)
    require(total.ndim == mean.ndim == 0, "sum and mean must be scalars")
    assert_close(total, parts.sum(), "sum")
    assert_close(mean, total / counted(case, parts), "mean")


@on("labels_3d", "labels_2d", "one_class", "regions", "ignored", about=lambda info: info.cls.scalar_only)
def scalar_reductions(info: LossInfo, case: Case) -> None:
    """A loss that is one number for the batch refuses `none` and gives a scalar for the others."""
    for how in ("mean", "sum"):
        require(value(make(info, case, reduction=how), case).shape == (), f"{how} is not a scalar")
    refused((ValueError, "reduction"), make, info, case, reduction="none")


def counted(case: Case, parts: torch.Tensor) -> torch.Tensor:
    """Entries of `none` behind which there are voxels."""
    valid = case.valid
    if parts.shape[2:].numel() == 1 and case.input.shape[2:].numel() > 1:
        valid = valid.flatten(1).any(1).view(-1, *[1] * (parts.ndim - 1))
    if parts.shape[0] == 1:
        valid = valid.any(0, keepdim=True)
    return valid.expand(parts.shape[0], parts.shape[1], *valid.shape[2:]).sum()


@on("labels_3d", "labels_2d", "one_class", "regions")
def bad_predictions_are_not_hidden(info: LossInfo, case: Case) -> None:
    """NaN in a voxel that counts gives NaN; infinity gives NaN, infinity or what near certainty gives."""
    loss = make(info, case)
    found = {}
    for bad in (torch.nan, torch.inf, 500.0):
        input = case.input.clone()
        input.flatten(2)[0, :, 5] = bad
        found[bad] = value(loss, case, input)
    require(found[torch.nan].isnan(), f"NaN in the prediction gives {found[torch.nan]}")
    infinite = found[torch.inf]
    require(not infinite.isfinite() or torch.isclose(infinite, found[500.0]), f"infinity gives {infinite}")
