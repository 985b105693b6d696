"""However the same prediction and the same target are written down, the loss is the same."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import torch
from cases import Case
from harness import HARD, assert_close, gradient, make, supported, value

from monai_segloss.core.registry import LossInfo


def labels_equal_onehot(info: LossInfo) -> None:
    """Labels with `to_onehot_y` and the same target as channels of any type."""
    for case in supported(info, *HARD, "ignored"):
        if not case.labels:
            continue
        expected, slope = gradient(make(info, case), case)
        channels = replace(case, labels=False, ignore_index=None, mask=case.valid)
        for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64):
            onehot = replace(channels, target=case.onehot().to(dtype))
            found, other = gradient(make(info, onehot), onehot)
            assert_close(found, expected, f"{case.name} as {dtype}", rtol=1e-10)
            assert_close(other, slope, f"{case.name}: gradient as {dtype}", rtol=1e-9, atol=1e-12)


def label_types_and_shapes(info: LossInfo) -> None:
    """(B, 1, *S) or (B, *S) labels of any integer or floating type, in any memory order."""
    for case in supported(info, "labels_3d", "ignored"):
        if not case.labels:
            continue
        loss = make(info, case)
        expected = value(loss, case)
        for dtype in (torch.uint8, torch.int16, torch.int32, torch.float32, torch.float64):
            found = value(loss, replace(case, target=case.target.to(dtype)))
            assert_close(found, expected, f"{case.name}: labels of {dtype}", rtol=1e-12)
        assert_close(value(loss, replace(case, target=case.target[:, 0])), expected, "labels (B, *S)", rtol=1e-12)
        scattered = replace(case, target=case.target.transpose(2, 3).contiguous().transpose(2, 3))
        strided = case.input.movedim(1, -1).contiguous().movedim(-1, 1)
        found, slope = gradient(loss, scattered, strided)
        assert_close(found, expected, f"{case.name}: memory order", rtol=1e-12)
        assert_close(slope, gradient(loss, case)[1], f"{case.name}: gradient, memory order", rtol=1e-9, atol=1e-13)


def other_act_equals_activation(info: LossInfo) -> None:
    """The same activation, given as a function, for one class per voxel."""
    for case in supported(info, "labels_3d", "ignored", "soft_labels"):
        expected = value(make(info, case), case)
        found = value(make(info, case, softmax=False, other_act=softmax), case)
        assert_close(found, expected, case.name, rtol=1e-9)


def probabilities_need_no_activation(info: LossInfo) -> None:
    """Probabilities without activation give what their logits give, in any memory order, which no activation changes."""
    for case in supported(info, "labels_3d", "labels_2d", "ignored", "soft_labels"):
        expected = value(make(info, case), case)
        loss, p = make(info, case, softmax=False), softmax(case.input)
        found, slope = gradient(loss, case, p)
        assert_close(found, expected, case.name, rtol=1e-9)
        found, other = gradient(loss, case, p.movedim(1, -1).contiguous().movedim(-1, 1))
        assert_close(found, expected, f"{case.name}: memory order", rtol=1e-9)
        assert_close(other, slope, f"{case.name}: gradient, memory order", rtol=1e-9, atol=1e-12)


def logits_need_an_activation(info: LossInfo) -> None:
    """Logits read as probabilities give one warning, in the first call; probabilities, and losses that activate, none."""
    for case in supported(info, "labels_3d"):
        for input, wrong in ((3 * case.input, True), (softmax(case.input).half(), False)):
            loss = make(info, case, softmax=False)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _call in range(2):
                    loss(input, case.target, **case.call)
            found = [each.filename for each in caught if "no activation is given" in str(each.message)]
            silent = "probabilities_need_no_activation" in info.exempt or not wrong
            assert found == [__file__] * (not silent), f"{case.name}: warned at {found}"


def one_channel_needs_no_onehot(info: LossInfo) -> None:
    """For a single channel `to_onehot_y` and `include_background=False` mean nothing, which a warning says."""
    for case in supported(info, "one_class"):
        expected = value(make(info, case), case)
        meaningless = {"to_onehot_y": True, "include_background": False}
        for name in set(meaningless) & set(info.parameters):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = value(make(info, case, **{name: meaningless[name]}), case)
            assert any(name in str(w.message) for w in caught), f"no warning that {name} is ignored"
            assert_close(found, expected, f"{case.name}: {name}", rtol=1e-12)


def softmax(z: torch.Tensor) -> torch.Tensor:
    return torch.softmax(z, 1)


def batch_order(info: LossInfo) -> None:
    """The order of the samples does not matter."""
    for case in supported(info, *HARD, "ignored", "ignored_sample"):
        turned = _map(case, lambda x: x.flip(0))
        _same(info, case, turned, make(info, case), lambda slope: slope.flip(0), "samples in another order")


def class_order(info: LossInfo) -> None:
    """Renaming the foreground classes together with their arguments does not matter."""
    for case in supported(info, "labels_3d", "five_classes", "ignored", "regions", "soft_labels"):
        first = 0 if case.activation == "sigmoid" else 1  # behind the background, where there is one
        order = [*range(first), *reversed(range(first, case.classes))]
        back = torch.tensor(order).argsort()
        if case.labels:
            known = case.target.clamp(0, case.classes - 1)
            target = torch.where(case.target == known, back[known], case.target)
        else:
            target = case.target[:, order]
        renamed = replace(case, input=case.input[:, order], target=target)
        weight = [1.0 + 0.5 * c for c in range(case.classes)]
        weighted = "weight" in info.parameters
        straight = make(info, case, **({"weight": weight} if weighted else {}))
        turned = make(info, case, **({"weight": [weight[c] for c in order]} if weighted else {}))
        expected, slope = gradient(straight, case)
        found, other = gradient(turned, renamed)
        assert_close(found, expected, f"{case.name}: classes renamed", rtol=1e-10)
        assert_close(other[:, back], slope, f"{case.name}: gradient, classes renamed", rtol=1e-9, atol=1e-12)


def flips(info: LossInfo) -> None:
    """Mirroring does not matter."""
    for case in supported(info, "labels_3d", "labels_2d", "ignored", "regions_masked"):
        for axis in range(2, case.input.ndim):
            turned = _map(case, lambda x, axis=axis: x.flip(axis))
            _same(info, case, turned, make(info, case), lambda s, axis=axis: s.flip(axis), f"axis {axis} flipped")


def slice_equals_volume(info: LossInfo) -> None:
    """A 2-D image and the 3-D volume of this one slice."""
    for case in supported(info, "labels_2d", "one_class", "soft_labels", "ignored_2d"):
        volume = _map(case, lambda x: x.unsqueeze(2))
        _same(info, case, volume, make(info, case), lambda slope: slope.squeeze(2), "one slice")


def sent_maps_equal_computed_ones(info: LossInfo) -> None:
    """A map that the caller makes with the declared function, for all classes, changes neither value nor gradient."""
    for case in supported(info, "labels_3d", "five_classes", "ignored_2d", "regions", "regions_masked", "empty_class"):
        loss = make(info, case)
        valid = case.valid
        masks = case.onehot().bool() & valid
        spacing = torch.ones(case.input.ndim - 2) if case.spacing is None else torch.tensor(case.spacing)
        maps = {spec.key: spec.make(masks, spacing, valid) for spec in loss.needs}
        expected, slope = gradient(loss, case)
        found, other = gradient(partial(loss, **maps), case)
        assert_close(found, expected, f"{case.name}: sent {', '.join(maps)}", rtol=1e-12)
        assert_close(other, slope, f"{case.name}: gradient, sent {', '.join(maps)}", rtol=1e-9, atol=1e-13)


def _map(case: Case, change) -> Case:  # type: ignore[no-untyped-def]
    mask = None if case.mask is None else change(case.mask.reshape(case.valid.shape))
    return replace(case, input=change(case.input), target=change(case.target), mask=mask)


def _same(info: LossInfo, case: Case, changed: Case, loss, back, what: str) -> None:  # type: ignore[no-untyped-def]
    expected, slope = gradient(loss, case)
    found, other = gradient(loss, changed)
    assert_close(found, expected, f"{case.name}: {what}", rtol=1e-10)
    assert_close(back(other), slope, f"{case.name}: gradient, {what}", rtol=1e-9, atol=1e-12)
