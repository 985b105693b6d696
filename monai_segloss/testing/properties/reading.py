"""However the same prediction and the same target are written down, the loss is the same."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import torch

from monai_segloss.core.registry import LossInfo
from monai_segloss.testing.cases import Case
from monai_segloss.testing.contract import on
from monai_segloss.testing.harness import HARD, assert_close, fed, gradient, make, require, value


@on("labels_3d", "labels_2d", "two_classes", "five_classes", "empty_class", "ignored", support="labels")
def labels_equal_onehot(info: LossInfo, case: Case) -> None:
    """Labels with `to_onehot_y` and the same target as channels of any type."""
    expected, slope = gradient(make(info, case), case)
    channels = replace(case, labels=False, ignore_index=None, mask=case.valid)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64):
        onehot = replace(channels, target=case.onehot().to(dtype))
        found, other = gradient(make(info, onehot), onehot)
        assert_close(found, expected, f"the value as {dtype}", rtol=1e-10)
        assert_close(other, slope, f"gradient as {dtype}", rtol=1e-9, atol=1e-12)


@on("labels_3d", "ignored", support="labels 3-D")
def label_types_and_shapes(info: LossInfo, case: Case) -> None:
    """(B, 1, *S) or (B, *S) labels of any integer or floating type, in any memory order."""
    loss = make(info, case)
    expected = value(loss, case)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.float32, torch.float64):
        found = value(loss, replace(case, target=case.target.to(dtype)))
        assert_close(found, expected, f"labels of {dtype}", rtol=1e-12)
    assert_close(value(loss, replace(case, target=case.target[:, 0])), expected, "labels (B, *S)", rtol=1e-12)
    scattered = replace(case, target=case.target.transpose(2, 3).contiguous().transpose(2, 3))
    strided = case.input.movedim(1, -1).contiguous().movedim(-1, 1)
    found, slope = gradient(loss, scattered, strided)
    assert_close(found, expected, "memory order", rtol=1e-12)
    assert_close(slope, gradient(loss, case)[1], "gradient, memory order", rtol=1e-9, atol=1e-13)


@on("labels_3d", "labels_2d", "ignored", "soft_labels", support="labels")
def other_act_equals_activation(info: LossInfo, case: Case) -> None:
    """The same activation, given as a function, for one class per voxel."""
    expected = value(make(info, case), case)
    found = value(make(info, case, softmax=False, other_act=softmax), case)
    assert_close(found, expected, "the value", rtol=1e-9)


@on(
    *("labels_3d", "labels_2d", "ignored", "soft_labels"),
    support="labels",
    about=lambda info: not fed(info),
)
def probabilities_need_no_activation(info: LossInfo, case: Case) -> None:
    """Probabilities without activation give what their logits give, in any memory order, which no activation changes."""
    expected = value(make(info, case), case)
    loss, p = make(info, case, softmax=False), softmax(case.input)
    found, slope = gradient(loss, case, p)
    assert_close(found, expected, "the value", rtol=1e-9)
    found, other = gradient(loss, case, p.movedim(1, -1).contiguous().movedim(-1, 1))
    assert_close(found, expected, "memory order", rtol=1e-9)
    assert_close(other, slope, "gradient, memory order", rtol=1e-9, atol=1e-12)


@on("labels_3d", "labels_2d", support="labels")
def logits_need_an_activation(info: LossInfo, case: Case) -> None:
    """Logits read as probabilities give one warning, in the first call; probabilities, and losses that activate, none."""
    for input, wrong in ((3 * case.input, True), (softmax(case.input).half(), False)):
        loss = make(info, case, softmax=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _call in range(2):
                loss(input, case.target, **case.call)
        found = [each.filename for each in caught if "no activation is given" in str(each.message)]
        silent = "probabilities_need_no_activation" in info.exempt or not wrong
        place = (
            torch.nn.modules.module.__file__ if loss.brings else __file__
        )  # the hook of the stand-in is a frame more
        require(found == [place] * (not silent), f"warned at {found}")


@on("one_class", support="regions 2-D")
def one_channel_needs_no_onehot(info: LossInfo, case: Case) -> None:
    """For a single channel `to_onehot_y` and `include_background=False` mean nothing, which a warning says."""
    expected = value(make(info, case), case)
    meaningless = {"to_onehot_y": True, "include_background": False}
    for name in set(meaningless) & set(info.parameters):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = value(make(info, case, **{name: meaningless[name]}), case)
        require(any(name in str(w.message) for w in caught), f"no warning that {name} is ignored")
        assert_close(found, expected, f"{name}", rtol=1e-12)


def softmax(z: torch.Tensor) -> torch.Tensor:
    return torch.softmax(z, 1)


@on(*HARD, "ignored", "ignored_sample")
def batch_order(info: LossInfo, case: Case) -> None:
    """The order of the samples does not matter."""
    turned = _map(case, lambda x: x.flip(0))
    _same(info, case, turned, make(info, case), lambda slope: slope.flip(0), "samples in another order")


@on("labels_3d", "labels_2d", "five_classes", "ignored", "regions", "soft_labels")
def class_order(info: LossInfo, case: Case) -> None:
    """Renaming the foreground classes together with their arguments does not matter."""
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
    assert_close(found, expected, "classes renamed", rtol=1e-10)
    assert_close(other[:, back], slope, "gradient, classes renamed", rtol=1e-9, atol=1e-12)


@on("labels_3d", "labels_2d", "one_class", "ignored", "regions", "regions_masked")
def flips(info: LossInfo, case: Case) -> None:
    """Mirroring does not matter."""
    for axis in range(2, case.input.ndim):
        turned = _map(case, lambda x, axis=axis: x.flip(axis))
        _same(info, case, turned, make(info, case), lambda s, axis=axis: s.flip(axis), f"axis {axis} flipped")


@on(
    *("labels_2d", "one_class", "soft_labels", "ignored_2d"),
    support="2-D",
    about=lambda info: not info.cls(**info.example).brings,  # it is made for a number of axes
)
def slice_equals_volume(info: LossInfo, case: Case) -> None:
    """A 2-D image and the 3-D volume of this one slice."""
    volume = _map(case, lambda x: x.unsqueeze(2))
    _same(info, case, volume, make(info, case), lambda slope: slope.squeeze(2), "one slice")


@on(
    "labels_3d",
    "five_classes",
    "ignored_2d",
    "regions",
    "regions_masked",
    "empty_class",
    about=lambda info: bool(info.needs),
)
def sent_maps_equal_computed_ones(info: LossInfo, case: Case) -> None:
    """A map that the caller makes with the declared function, for all classes, changes neither value nor gradient."""
    loss = make(info, case)
    valid = case.valid
    masks = case.onehot().bool() & valid
    spacing = torch.ones(case.input.ndim - 2) if case.spacing is None else torch.tensor(case.spacing)
    maps = {spec.key: spec.make(masks, spacing, valid) for spec in loss.needs}
    expected, slope = gradient(loss, case)
    found, other = gradient(partial(loss, **maps), case)
    assert_close(found, expected, f"sent {', '.join(maps)}", rtol=1e-12)
    assert_close(other, slope, f"gradient, sent {', '.join(maps)}", rtol=1e-9, atol=1e-13)


def _map(case: Case, change) -> Case:  # type: ignore[no-untyped-def]
    mask = None if case.mask is None else change(case.mask.reshape(case.valid.shape))
    return replace(case, input=change(case.input), target=change(case.target), mask=mask)


def _same(info: LossInfo, case: Case, changed: Case, loss, back, what: str) -> None:  # type: ignore[no-untyped-def]
    expected, slope = gradient(loss, case)
    found, other = gradient(loss, changed)
    assert_close(found, expected, f"{what}", rtol=1e-10)
    assert_close(back(other), slope, f"gradient, {what}", rtol=1e-9, atol=1e-12)
