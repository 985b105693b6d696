"""A voxel that does not count has no influence of any kind."""

from __future__ import annotations

from dataclasses import replace

import torch

from monai_segloss.core.registry import LossInfo
from monai_segloss.testing import cases
from monai_segloss.testing.cases import BUILDERS, Case
from monai_segloss.testing.contract import on
from monai_segloss.testing.harness import HARD, assert_close, gradient, make, require, value

MASKED = ("ignored", "ignored_2d", "ignored_sample", "regions_masked")


@on(*MASKED, support="ignore", about=lambda info: bool({"labels", "3-D"} & set(info.support)))
def ignored_voxels_change_nothing(info: LossInfo, case: Case) -> None:
    """Scrambled logits and targets, NaN and infinity included, change neither value nor gradient there or elsewhere."""
    loss = make(info, case)
    expected, slope = gradient(loss, case)
    void = ~case.valid
    require(not slope[void.expand_as(slope)].any(), "an ignored voxel has a gradient")
    for junk in (1e3 * torch.randn_like(case.input), torch.full_like(case.input, torch.nan), 0 / case.input / 0):
        found, other = gradient(loss, case, torch.where(void, junk, case.input))
        assert_close(found, expected, "the value depends on ignored logits", rtol=1e-12, atol=1e-13)
        assert_close(other, slope, "the gradient depends on ignored logits", rtol=1e-9, atol=1e-13)
    if case.mask is not None:
        hidden = void.expand_as(case.target) & (case.mask.reshape(void.shape) == 0)
        junk = torch.ones_like(case.target) if case.labels else ~case.target
        changed = replace(case, target=torch.where(hidden, junk, case.target))
        assert_close(value(loss, changed), expected, "the value depends on ignored targets", rtol=1e-12)


@on("labels_3d", "labels_2d", "soft_labels", support="labels ignore")
def ignored_target_values_are_not_read(info: LossInfo, case: Case) -> None:
    """NaN and labels out of range are no error where the mask hides them."""
    mask = torch.rand(case.valid.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    masked = replace(case, mask=mask)
    expected, slope = gradient(make(info, case), masked)
    junk = 99 if case.labels else torch.nan
    spoilt = replace(masked, target=torch.where(mask, case.target, torch.full_like(case.target, junk)))
    found, other = gradient(make(info, case), spoilt)
    assert_close(found, expected, "the value", rtol=1e-12)
    assert_close(other, slope, "the gradient", rtol=1e-9)


@on(*HARD, "soft_labels", support="ignore")
def ignoring_nothing_changes_nothing(info: LossInfo, case: Case) -> None:
    """An `ignore_index` that no voxel has, or a mask that keeps all, gives the same value and gradient."""
    expected, slope = gradient(make(info, case), case)
    everything = replace(case, mask=torch.ones_like(case.valid))
    indexed = (make(info, case, ignore_index=cases.IGNORE), case)
    for name, (loss, read) in {"mask": (make(info, case), everything), "ignore_index": indexed}.items():
        found, other = gradient(loss, read)
        assert_close(found, expected, f"{name}", rtol=1e-12)
        assert_close(other, slope, f"gradient, {name}", rtol=1e-9, atol=1e-13)


@on(*BUILDERS, support="ignore")
def everything_ignored_gives_zero(info: LossInfo, case: Case) -> None:
    """Nothing counts: the loss is 0, connected to the input, with a gradient of zeros, even for NaN logits."""
    empty = cases.everything_ignored(case)
    for input in (empty.input, torch.full_like(empty.input, torch.nan)):
        found, slope = gradient(make(info, empty), empty, input)
        require(found == 0, f"{found}")
        require(not slope.any(), "the gradient is not zero")


@on("ignored_sample", support="labels ignore 2-D")
def ignored_sample_leaves_the_mean(info: LossInfo, case: Case) -> None:
    """A sample of which nothing counts leaves the value of the others as if it were not in the batch."""
    kept = [0, 2]
    fewer = replace(case, input=case.input[kept], target=case.target[kept])
    assert_close(value(make(info, case), case), value(make(info, case), fewer), "the value", rtol=1e-10)


@on("ignored", support="labels ignore 3-D")
def mask_equals_ignore_index(info: LossInfo, case: Case) -> None:
    """The same voxels left out by label, by mask in each shape, and by a mask inside of the target."""
    expected, slope = gradient(make(info, case), case)
    target = torch.where(case.valid, case.target, 0)
    plain = make(info, replace(case, ignore_index=None))
    for mask in (case.valid, case.valid[:, 0], case.valid.float(), case.valid.to(torch.uint8)):
        found, other = gradient(plain, replace(case, target=target, ignore_index=None, mask=mask))
        assert_close(found, expected, f"mask {tuple(mask.shape)} of {mask.dtype}", rtol=1e-12)
        assert_close(other, slope, "gradient", rtol=1e-9)
    packed = plain(case.input, {"label": target, "mask": case.valid})
    assert_close(packed, expected, "mask inside of the target", rtol=1e-12)
