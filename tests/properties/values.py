"""What the number and its gradient are: finite, smallest where the prediction is right, the same however reduced."""

from __future__ import annotations

import cases
import torch
from cases import Case
from harness import HARD, assert_close, gradient, make, refused, supported, value

from monai_segloss.core.registry import LossInfo


def finite(info: LossInfo) -> None:
    """Value and gradient are finite on every case, everything ignored and one voxel included."""
    for case in supported(info):
        for made in (case, cases.everything_ignored(case), cases.perfect(case), case.with_input(0 * case.input)):
            found, slope = gradient(make(info, made), made, made.input.float())
            assert found.isfinite().all(), f"{made.name}: the value is {found}"
            assert slope.isfinite().all(), f"{made.name}: the gradient has {int((~slope.isfinite()).sum())} bad entries"


def low_precision(info: LossInfo) -> None:
    """Half and bfloat16 logits give what the same numbers give in float32, and a gradient of their own type."""
    for dtype in (torch.float16, torch.bfloat16):
        for case in supported(info):
            low = case.input.to(dtype)
            loss = make(info, case)
            found, slope = gradient(loss, case, low)
            expected, wide = gradient(loss, case, low.float())
            assert slope.dtype == dtype, f"{case.name}: the gradient of {dtype} logits is {slope.dtype}"
            assert_close(found, expected, f"{case.name} in {dtype}", rtol=1e-5, atol=1e-6)
            assert_close(slope, wide.to(dtype), f"{case.name}, gradient in {dtype}", rtol=2e-2, atol=1e-6)


def autocast_is_off(info: LossInfo) -> None:
    """Under autocast the value is that of float32: matrix products in bfloat16 would lose it."""
    for case in supported(info, "labels_3d", "ignored", "regions_masked"):
        loss, input = make(info, case), case.input.float()
        expected, slope = gradient(loss, case, input)
        with torch.autocast("cpu", torch.bfloat16):
            leaf = input.clone().requires_grad_()
            found = value(loss, case, leaf)
        assert_close(found, expected, case.name, rtol=1e-6)
        assert_close(torch.autograd.grad(found, leaf)[0], slope, f"{case.name}, gradient", rtol=1e-5)


def gradcheck(info: LossInfo) -> None:
    """The gradient is the derivative of the value (finite differences in float64)."""
    for case in supported(info, "labels_2d", "regions_masked", "ignored"):
        loss = make(info, case)
        direction = torch.randn(3, *case.input.shape, dtype=torch.float64)

        def along(t: torch.Tensor, loss=loss, case=case, direction=direction) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return value(loss, case, case.input + (t.view(-1, *[1] * case.input.ndim) * direction).sum(0))

        start = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        try:
            torch.autograd.gradcheck(along, start, eps=1e-6, atol=1e-6, rtol=1e-4)
        except RuntimeError as error:
            raise AssertionError(f"{case.name}: {error}") from error


def perfect_prediction_is_the_minimum(info: LossInfo) -> None:
    """No other prediction scores lower, and a step along the negative gradient from a wrong one helps."""
    for case in supported(info, *HARD, "ignored", "regions_masked"):
        loss = make(info, case)
        best = value(loss, cases.perfect(case))
        others = [case.input, 0 * case.input, -case.input, 0.2 * cases.perfect(case).input, *_damaged(case)]
        for other in others:
            assert value(loss, case, other) >= best - 1e-9, f"{case.name}: a worse prediction scores lower than {best}"
        start, slope = gradient(loss, case)
        step = 1e-3 * slope / slope.norm().clamp_min(1e-30)
        assert value(loss, case, case.input - step) < start, f"{case.name}: a step downhill does not lower the loss"


def perfect_prediction_is_zero(info: LossInfo) -> None:
    """Where nothing is wrong the loss is 0."""
    for case in supported(info, *HARD, "ignored", "regions_masked"):
        found = value(make(info, case), cases.perfect(case))
        assert abs(found) < 1e-3, f"{case.name}: the perfect prediction gives {found}"


def _damaged(case: Case) -> list[torch.Tensor]:
    """The perfect prediction with the channels of a tenth of the voxels shuffled."""
    input = cases.perfect(case).input
    wrong = torch.rand(input[:, :1].shape, generator=torch.Generator().manual_seed(0)) < 0.1
    return [torch.where(wrong, input.roll(1, dims=1) if case.classes > 1 else -input, input)]


def reductions_agree(info: LossInfo) -> None:
    """`none` broadcasts against the input and adds up to `sum`; `mean` divides by what was summed."""
    for case in supported(info, "labels_3d", "one_class", "regions", "ignored", "ignored_sample"):
        parts = value(make(info, case, reduction="none"), case)
        assert parts.ndim == case.input.ndim, f"{case.name}: shape {tuple(parts.shape)} of `none`"
        torch.broadcast_shapes(parts.shape, case.input[:, -parts.shape[1] :].shape)  # of the scored classes
        total = value(make(info, case, reduction="sum"), case)
        mean = value(make(info, case), case)
        assert total.ndim == mean.ndim == 0
        assert_close(total, parts.sum(), f"{case.name}: sum")
        assert_close(mean, total / counted(case, parts), f"{case.name}: mean")


def scalar_reductions(info: LossInfo) -> None:
    """A loss that is one number for the batch refuses `none` and gives a scalar for the others."""
    for case in supported(info, "labels_3d", "regions", "ignored"):
        for how in ("mean", "sum"):
            assert value(make(info, case, reduction=how), case).shape == ()
        refused((ValueError, "reduction"), make, info, case, reduction="none")


def counted(case: Case, parts: torch.Tensor) -> torch.Tensor:
    """Entries of `none` behind which there are voxels."""
    valid = case.valid
    if parts.shape[2:].numel() == 1 and case.input.shape[2:].numel() > 1:
        valid = valid.flatten(1).any(1).view(-1, *[1] * (parts.ndim - 1))
    if parts.shape[0] == 1:
        valid = valid.any(0, keepdim=True)
    return valid.expand(parts.shape[0], parts.shape[1], *valid.shape[2:]).sum()


def bad_predictions_are_not_hidden(info: LossInfo) -> None:
    """NaN in a voxel that counts gives NaN; infinity gives NaN, infinity or what near certainty gives."""
    for case in supported(info, "labels_3d", "regions"):
        loss = make(info, case)
        found = {}
        for bad in (torch.nan, torch.inf, 500.0):
            input = case.input.clone()
            input.flatten(2)[0, :, 5] = bad
            found[bad] = value(loss, case, input)
        assert found[torch.nan].isnan(), f"{case.name}: NaN in the prediction gives {found[torch.nan]}"
        infinite = found[torch.inf]
        assert not infinite.isfinite() or torch.isclose(infinite, found[500.0]), (
            f"{case.name}: infinity gives {infinite}"
        )
