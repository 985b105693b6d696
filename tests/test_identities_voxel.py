"""Voxel losses: where they meet, what they refuse, and faults of other implementations that they do not have."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from harness import both, same
from references import REFERENCES
from torch.nn import functional as F

import monai_segloss
from monai_segloss import SeesawLoss
from monai_segloss.kernels import voxels
from monai_segloss.losses.voxel.seesaw import seesaw
from monai_segloss.testing import cases
from monai_segloss.testing.harness import refused, value

LABELS = ("labels_3d", "five_classes", "ignored", "ignored_2d", "empty_class", "many_classes")
REGIONS = ("one_class", "regions", "regions_masked", "soft_regions")


@pytest.mark.parametrize("name", LABELS)
def test_special_arguments_give_the_cross_entropy(name: str) -> None:
    case = cases.get(name)
    ce = both("cross_entropy", case)
    for key, arguments in {
        "label_smoothing_cross_entropy": {"label_smoothing": 0.0},
        "weighted_cross_entropy": {},
        "poly1_cross_entropy": {"epsilon": 0.0},
        "focal": {"gamma": 0.0},
        "seesaw": {"p": 0.0, "q": 0.0},
    }.items():
        same(both(key, case, **arguments), ce)
    same(both("bootstrapped_cross_entropy", case, threshold=1.0), ce)
    same(both("bootstrapped_cross_entropy", case, k=100.0), ce)
    same(
        both("bootstrapped_cross_entropy", case, threshold=1e-9),
        both("topk_cross_entropy", case, k=10.0),
    )


@pytest.mark.parametrize("name", REGIONS)
def test_special_arguments_give_the_binary_cross_entropy(name: str) -> None:
    case = cases.get(name)
    bce = both("binary_cross_entropy", case)
    same(both("cross_entropy", case), bce)
    same(both("cross_entropy", case, weight=3.0), both("binary_cross_entropy", case, pos_weight=3.0))
    same(
        both("weighted_cross_entropy", case, weight=3.0, normalize="voxels"),
        both("cross_entropy", case, weight=3.0),
    )
    for key, arguments in {
        "weighted_cross_entropy": {},
        "poly1_cross_entropy": {"epsilon": 0.0},
        "focal": {"gamma": 0.0},
        "bootstrapped_cross_entropy": {"k": 100.0},
    }.items():
        same(both(key, case, **arguments), bce)


def test_binary_cross_entropy_reads_labels_one_against_the_rest() -> None:
    case = cases.get("ignored")
    reading = {"sigmoid": True, "to_onehot_y": True, "ignore_index": cases.IGNORE}
    loss = monai_segloss.create("binary_cross_entropy", pos_weight=[1.0, 2.0, 3.0], **reading)
    peer = F.binary_cross_entropy_with_logits(
        case.input, case.onehot(), pos_weight=torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1), reduction="none"
    )
    expected = peer[case.valid.expand_as(peer)].mean()
    torch.testing.assert_close(loss(case.input, case.target), expected, rtol=1e-9, atol=0)


def test_binary_cross_entropy_takes_probabilities_of_several_channels() -> None:
    """Without an activation channels stay independent; cross-entropy would take them for one class per voxel."""
    case = cases.get("regions")
    found = monai_segloss.create("binary_cross_entropy")(torch.sigmoid(case.input), case.target)
    torch.testing.assert_close(found, both("binary_cross_entropy", case)[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["five_classes", "ignored_2d", "soft_labels"])
def test_label_smoothing_and_weights_equal_torch(name: str) -> None:
    case = cases.get(name)
    weight = torch.linspace(0.5, 2.0, case.classes, dtype=torch.float64)
    target = case.target[:, 0] if case.labels else case.target
    if case.labels:
        target = torch.where(case.valid[:, 0], target, -100)
    for e in (0.0, 0.1, 0.4):
        expected = F.cross_entropy(case.input, target, label_smoothing=e)
        found = both("label_smoothing_cross_entropy", case, label_smoothing=e)[0]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
        if case.labels:
            expected = F.cross_entropy(case.input, target, weight=weight, label_smoothing=e)
            found = both("label_smoothing_cross_entropy", case, label_smoothing=e, weight=weight)[0]
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_the_smoothed_minimum_is_the_entropy_of_the_smoothed_labels() -> None:
    e, c = 0.1, 3
    case = cases.get("labels_3d")
    q = (1 - e) * case.onehot() + e / c
    a = 1 - e + e / c
    entropy = -(a * math.log(a) + (c - 1) * (e / c) * math.log(e / c))
    found, slope = both("label_smoothing_cross_entropy", case.with_input(q.log()))
    assert float(found) == pytest.approx(entropy, rel=1e-9)
    assert float(slope.abs().max()) < 1e-12
    assert both("label_smoothing_cross_entropy", cases.perfect(case))[0] > found


@pytest.mark.parametrize("name", ["five_classes", "ignored", "ignored_sample", "regions_masked", "soft_regions"])
@pytest.mark.parametrize("normalize", ["weights", "voxels"])
def test_weights_and_maps_equal_the_reference(name: str, normalize: str) -> None:
    case = cases.get(name)
    weight = [0.5 + c for c in range(case.classes)]
    sent = torch.rand(case.valid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    arguments = {"weight": weight, "normalize": normalize}
    loss = monai_segloss.create("weighted_cross_entropy", **case.reading, **arguments)
    mask = None if case.mask is None else case.mask.numpy()
    common = {"labels": case.labels, "ignore_index": case.ignore_index, **arguments}
    reference = REFERENCES["weighted_cross_entropy"]
    read = (case.input.numpy(), case.target.numpy(), case.activation, mask)
    assert float(value(loss, case)) == pytest.approx(float(reference(*read, **common)), rel=1e-9)
    found = loss(case.input, case.target, **case.call, weight_map=sent)
    assert float(found) == pytest.approx(float(reference(*read, weight_map=sent.numpy(), **common)), rel=1e-9)


def test_a_weight_map_weighs_binary_cross_entropy() -> None:
    case = cases.get("regions_masked")
    sent = torch.rand(case.valid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = monai_segloss.create("binary_cross_entropy", pos_weight=2.0, sigmoid=True)
    found = loss(case.input, case.target, **case.call, weight_map=sent)
    assert case.mask is not None
    expected = REFERENCES["binary_cross_entropy"](
        case.input.numpy(), case.target.numpy(), "sigmoid", case.mask.numpy(), pos_weight=2.0, weight_map=sent.numpy()
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_weight_zero_for_all_present_classes_gives_zero() -> None:
    """torch divides 0 by 0 here."""
    case = replace(cases.get("two_classes"), target=torch.zeros_like(cases.get("two_classes").target))
    found, slope = both("weighted_cross_entropy", case, weight=[0.0, 1.0])
    assert found == 0
    assert not slope.any()


def test_balanced_weights_of_two_classes_are_those_of_one_channel() -> None:
    """log p_0 of a softmax over (0, z) is log(1 - p) of the sigmoid of z: the paper's binary form."""
    case = cases.get("two_classes")
    z = case.input[:, 1:] - case.input[:, :1]
    for batch in (False, True):
        two = monai_segloss.create("balanced_cross_entropy", batch=batch, **case.reading)(case.input, case.target)
        one = monai_segloss.create("balanced_cross_entropy", batch=batch, sigmoid=True)(z, case.target.double())
        torch.testing.assert_close(two, one, rtol=1e-9, atol=0)


def test_an_image_of_one_class_teaches_the_balanced_loss_nothing_unless_it_counts_the_batch() -> None:
    case = cases.get("empty_class")
    assert not both("balanced_cross_entropy", case)[1][1].any()
    assert both("balanced_cross_entropy", case, batch=True)[1][1].any()


def test_poly1_weights_both_terms() -> None:
    """Some code weighs the logarithm only: then a factor for all classes would not cancel in the mean."""
    case = cases.get("five_classes")
    same(both("poly1_cross_entropy", case, weight=7.0), both("poly1_cross_entropy", case))


def test_bootstrapping_keeps_the_hard_voxels() -> None:
    case = cases.get("ignored")
    nll = F.cross_entropy(case.input, case.target[:, 0], ignore_index=cases.IGNORE, reduction="none")[case.valid[:, 0]]
    hard = nll[torch.exp(-nll) < 0.5]
    assert len(nll) > len(hard) > 0.1 * len(nll)
    found = both("bootstrapped_cross_entropy", case, threshold=0.5)[0]
    torch.testing.assert_close(found, hard.mean(), rtol=1e-9, atol=0)


def test_seesaw_counts_in_training_only_and_remembers() -> None:
    case = cases.get("ignored")
    volumes = (case.onehot() * case.valid).sum((0, 2, 3, 4)).long()
    loss = SeesawLoss(**case.reading)
    for calls in (1, 2):
        value_of = loss(case.input, case.target)
        assert loss.counts.dtype == torch.int64
        assert loss.counts.tolist() == (calls * volumes).tolist()
    with torch.no_grad():
        loss(case.input, case.target)
    loss.eval()(case.input, case.target)
    assert loss.counts.tolist() == (2 * volumes).tolist()
    assert loss.half().counts.dtype == torch.int64, "half() would stop the count of a float buffer"
    other = SeesawLoss(**case.reading).eval()
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(case.input, case.target), value_of)
    assert torch.equal(copy.deepcopy(other).counts, loss.counts)


def test_seesaw_uses_what_it_has_seen() -> None:
    case = cases.get("labels_3d")
    loss = SeesawLoss(**case.reading)
    seen = [5, 10**9, 0]
    loss.counts = torch.tensor(seen)
    expected = REFERENCES["seesaw"](case.input.numpy(), case.target.numpy(), "softmax", labels=True, counts=seen)
    assert float(loss(case.input, case.target)) == pytest.approx(float(expected), rel=1e-9)
    assert int(loss.counts[1]) > 10**9, "a float32 count stops at 2^24"
    refused((ValueError, "input has 2 channels.*3 classes"), loss, case.input[:, :2], case.target.clamp_max(1))


def test_seesaw_equals_cross_entropy_of_shifted_logits() -> None:
    case = cases.get("five_classes")
    counts = np.bincount(case.target.numpy().ravel(), minlength=5)
    y = case.target[:, 0]
    n = torch.from_numpy(counts).double()
    p = torch.softmax(case.input, 1)
    own = p.gather(1, y[:, None]).clamp_min(1e-2)
    m = torch.minimum(n[None, :] / n[:, None], torch.ones(())).pow(0.8)[y].movedim(-1, 1)
    s = m * torch.where(p > own, p / own, 1.0).pow(2.0)
    shift = torch.where(torch.arange(5).view(1, 5, 1, 1, 1) == y[:, None], 0.0, s.log())
    expected = F.cross_entropy(case.input + shift, y)
    torch.testing.assert_close(both("seesaw", case)[0], expected, rtol=1e-9, atol=0)


def test_what_is_refused() -> None:
    create = monai_segloss.create
    refused((ValueError, "softmax=True.*sigmoid=True"), create, "binary_cross_entropy", softmax=True)
    refused((ValueError, "`pos_weight`"), create, "binary_cross_entropy", pos_weight=-1.0)
    case = cases.get("regions")
    refused((ValueError, "pos_weight has 2 values for 3"), both, "binary_cross_entropy", case, pos_weight=[1.0, 2.0])
    one = cases.get("one_class")
    soft = cases.get("soft_labels")
    refused((ValueError, "fractions"), create("seesaw", softmax=True), soft.input, soft.target)
    for key, words in {"label_smoothing_cross_entropy": "label_smoothing=0.1", "seesaw": "SeesawLoss"}.items():
        refused((ValueError, f"{words}.*sigmoid=True or a single channel"), create, key, sigmoid=True)
        refused((ValueError, f"{words}.*single channel"), create(key), torch.sigmoid(one.input), one.target)
    refused(
        (ValueError, "normalize must be 'weights' or 'voxels', got 'mean'"),
        create,
        "weighted_cross_entropy",
        normalize="mean",
    )
    refused((ValueError, "epsilon.*at least -1"), create, "poly1_cross_entropy", epsilon=-1.01)
    create("poly1_cross_entropy", epsilon=-1.0)
    for bad in (0.0, 1.5, math.nan):
        refused((ValueError, "threshold"), create, "bootstrapped_cross_entropy", threshold=bad)
        refused((ValueError, "eps"), create, "seesaw", eps=bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 9), (5, 4, 6), ()])
def test_seesaw_in_parts_is_its_definition(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Some voxels at a time, ignored ones with NaN in it; also a second pass through the same graph."""
    monkeypatch.setattr(voxels, "CHUNK", {"cpu": 60})
    logits, labels = torch.randn(2, 6, *shape), torch.randint(0, 6, (2, *shape))
    mask = torch.rand(2, *shape) < 0.7 if shape else torch.tensor([True, False])
    logits = torch.where(mask[:, None], logits, torch.nan).to(dtype).requires_grad_()
    counts = torch.tensor([500, 3, 0, 90, 1, 40])
    loss = monai_segloss.SeesawLoss(softmax=True, to_onehot_y=True, reduction="none").eval()
    loss.counts = counts
    found = loss(logits, labels, mask=mask)
    clean = torch.where(mask[:, None], logits.detach(), 0).float().requires_grad_()
    expected = seesaw(clean.log_softmax(1), labels, counts, 0.8, 2.0, 1e-2) * mask[:, None]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
    weights = torch.rand_like(found)
    (slope,) = torch.autograd.grad((found * weights).sum(), logits, retain_graph=True)
    (again,) = torch.autograd.grad((found * weights).sum(), logits)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), clean)
    torch.testing.assert_close(slope.float(), wanted, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-6)
    torch.testing.assert_close(again, slope)
