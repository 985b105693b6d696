"""What a careless caller sends: words for flags, labels that their type cannot hold, NumPy where a tensor belongs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import monai_segloss
from monai_segloss.testing import cases
from monai_segloss.testing.harness import make, refused, supported

LOSSES = monai_segloss.list_losses()
COMMON = {"softmax": True, "to_onehot_y": True}


def weights_of_terms(info: monai_segloss.LossInfo) -> list[str]:
    return [name for name in info.parameters if name.startswith("lambda_") and name != "lambda_phi"]


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_a_word_is_no_flag_and_no_number(info: monai_segloss.LossInfo) -> None:
    """ "false" is true as a flag of Python; a JSON file says it easily."""
    for name, parameter in info.parameters.items():
        if isinstance(parameter.default, bool | int | float) and parameter.annotation != "TermWeight":
            words = (TypeError, rf"{name} must be (True or False|a number), got")
            for bad in ("false", None, [1], {}):
                refused(words, info.cls, **{**info.example, name: bad})
    refused((TypeError, "ignore_index must be a number"), info.cls, **{**info.example, "ignore_index": "255"})
    refused((ValueError, "ignore_index must be a whole number"), info.cls, **{**info.example, "ignore_index": 0.5})


@pytest.mark.parametrize("bad", ["abc", ["a"], [None], {"a": 1}, [[0, "1"], [1, 0]], 5], ids=repr)
def test_words_are_no_lists_of_numbers(bad: Any) -> None:
    for key, name in (
        ("generalized_wasserstein_dice", "dist_matrix"),
        ("marginal_dice", "labeled"),
        ("exclusion_cross_entropy", "labeled"),
        ("hausdorff_conv", "radii"),
    ):
        refused((ValueError, f"^{name} must "), monai_segloss.create, key, **{name: bad})


def test_flags_of_a_sum() -> None:
    terms = {"dice": 1, "focal": {"gamma": 2}}
    refused((TypeError, "softmax must be True or False"), monai_segloss.WeightedSum, terms, softmax="true")
    refused((TypeError, "include_background must be"), monai_segloss.WeightedSum, terms, include_background="no")
    refused((TypeError, "weight must be a number or one per class"), monai_segloss.DiceLoss, weight="abc")
    refused((TypeError, "alpha must be a number or one per class"), monai_segloss.FocalLoss, alpha="abc")


@pytest.mark.parametrize("info", [info for info in LOSSES if weights_of_terms(info)], ids=lambda info: info.key)
def test_a_compound_of_nothing_is_refused(info: monai_segloss.LossInfo) -> None:
    case = supported(info)[0]
    loss = make(info, case, **dict.fromkeys(weights_of_terms(info), 0.0))
    said = (ValueError, r"weights of \[.*\] are (all )?0.*nothing is left to minimize")
    refused(said, loss, case.input, case.target, **case.call)


@pytest.mark.parametrize("number", [np.float32(2), np.int64(2), np.float64(2), 2])
def test_numbers_of_numpy_are_numbers(number: Any) -> None:
    found = monai_segloss.FocalLoss(gamma=number, **COMMON)
    assert found.gamma == monai_segloss.FocalLoss(gamma=2.0, **COMMON).gamma
    assert monai_segloss.DiceLoss(smooth_nr=number, batch=np.bool_(True)).batch is True


@pytest.mark.parametrize(
    ("dtype", "ignored", "stored"),
    [(torch.uint8, 256, 0), (torch.uint8, -1, 255), (torch.int8, 255, -1), (torch.uint8, 300, 44)],
)
def test_a_label_that_the_type_cannot_hold_is_nowhere(dtype: torch.dtype, ignored: int, stored: int) -> None:
    """torch compares it modulo 256: 256 was the background."""
    case = cases.get("labels_3d")
    target = case.target.to(dtype)
    loss = monai_segloss.DiceLoss(ignore_index=ignored, **COMMON)
    assert torch.equal(loss(case.input, target), monai_segloss.DiceLoss(**COMMON)(case.input, target))
    target[0, 0, 0] = stored
    if stored not in range(case.classes):
        refused((ValueError, f"label {stored}.*ignored label {ignored}"), loss, case.input, target)
    one = torch.zeros(1, 1, 4, dtype=dtype)
    binary = monai_segloss.DiceLoss(sigmoid=True, ignore_index=ignored)
    assert binary(torch.zeros(1, 1, 4), one) > 0, "everything was ignored"


@pytest.mark.parametrize("info", LOSSES, ids=lambda info: info.key)
def test_unsigned_labels_of_any_width(info: monai_segloss.LossInfo) -> None:
    """NumPy, and so every reader of images, makes uint16; torch knows next to no operation of it."""
    for case in cases_of(info):
        expected = make(info, case)(case.input, case.target.long(), **case.call)
        for dtype in (torch.uint16, torch.uint32, torch.uint64):
            assert torch.equal(make(info, case)(case.input, case.target.to(dtype), **case.call), expected)
        refused((TypeError, "target.*complex64"), make(info, case), case.input, case.target.to(torch.complex64))


def cases_of(info: monai_segloss.LossInfo) -> list[cases.Case]:
    case = cases.enlarged(cases.get("labels_3d", info.size), info.min_error_width)
    return [case] if case.tags <= set(info.support) else []


def test_what_is_beside_the_label_is_a_tensor_and_a_mask_has_no_fractions() -> None:
    case = cases.get("labels_3d")
    x, y = case.input, case.target
    ones = np.ones(y.shape)
    refused((TypeError, "mask must be a tensor but is ndarray"), monai_segloss.DiceLoss(**COMMON), x, y, mask=ones)
    weighted = monai_segloss.CrossEntropyLoss(**COMMON)
    refused((TypeError, "weight_map must be a tensor but is ndarray"), weighted, x, y, weight_map=ones)
    boundary = monai_segloss.BoundaryLoss(**COMMON)
    refused((TypeError, "sdm must be a tensor but is ndarray"), boundary, x, y, sdm=np.ones(x.shape), spacing=(1, 1, 1))
    for bad in (0.3, float("nan")):  # as of a mask that was interpolated
        mask = torch.full(y.shape, bad)
        refused((ValueError, "mask holds (0.3|nan); expected 1"), weighted, x, y, mask=mask)
    assert torch.equal(weighted(x, y, mask=torch.full(y.shape, 255.0)), weighted(x, y))
    assert torch.equal(weighted(x, {"label": y, "mask": None, "weight_map": None}), weighted(x, y))


def test_a_share_of_the_ignored_channel_is_refused() -> None:
    """Smoothed labels have one everywhere: all voxels would be ignored, and the loss 0."""
    labels = torch.randint(0, 3, (2, 5, 5))
    hard = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).double()
    loss = monai_segloss.DiceLoss(softmax=True, ignore_index=2)
    logits = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    assert loss(logits, hard) > 0
    refused(
        (ValueError, "target gives 0.[09]3.* of a voxel to channel 2, which ignore_index"),
        loss,
        logits,
        0.9 * hard + 0.1 / 3,
    )
