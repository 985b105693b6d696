"""Losses of partial labels: labeled classes per sample, identities, refusals, and what popular code gets wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from references import REFERENCES

import monai_segloss
from monai_segloss.testing import cases
from monai_segloss.testing.harness import gradient, make, value

KEYS = ("marginal_cross_entropy", "marginal_dice", "exclusion_dice", "exclusion_cross_entropy")
SETTINGS: dict[str, dict[str, Any]] = {
    "marginal_cross_entropy": {"weight": [1.0, 2.0, 0.5, 3.0, 1.5]},
    "marginal_dice": {"batch": True, "include_background": False},
    "exclusion_dice": {"batch": True},
    "exclusion_cross_entropy": {"weight": [1.0, 2.0, 0.5, 3.0, 1.5]},
}


def table(samples: int, classes: int) -> torch.Tensor:
    """Other classes labeled in each sample; one has labels of the background only."""
    found = torch.rand(samples, classes, generator=torch.Generator().manual_seed(1)) < 0.6
    found[0, 1:] = False
    return found


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "name", ["labels_3d", "labels_2d", "five_classes", "many_classes", "soft_labels", "ignored_sample"]
)
def test_labeled_classes_of_each_sample(key: str, name: str) -> None:
    case, info = cases.get(name), monai_segloss.find(key)
    labeled = table(len(case.input), case.classes)
    more = SETTINGS[key] if name == "five_classes" else {}
    for arguments in ({}, more):
        expected = REFERENCES[key](
            case.input.numpy(),
            case.target.numpy(),
            case.activation,
            labels=case.labels,
            ignore_index=case.ignore_index,
            labeled=labeled.numpy(),
            **arguments,
        )
        loss = make(info, case, **arguments)
        for sent in (labeled, labeled.float(), labeled.long()):
            found = loss(case.input, case.target, labeled=sent)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
        packed = {"label": case.target, "labeled": labeled}
        torch.testing.assert_close(loss(case.input, packed), found)


@pytest.mark.parametrize("key", KEYS)
def test_all_classes_labeled(key: str) -> None:
    case = cases.get("five_classes")
    plain = value(make(monai_segloss.find(key), case), case)
    every = value(make(monai_segloss.find(key), case, labeled=range(5)), case)
    torch.testing.assert_close(every, plain)
    of = {"marginal_cross_entropy": "cross_entropy", "marginal_dice": "dice"}.get(key)
    if of is not None:
        torch.testing.assert_close(plain, value(make(monai_segloss.find(of), case), case))


def test_a_sample_of_the_call_comes_before_the_argument() -> None:
    case = cases.get("five_classes")
    loss = make(monai_segloss.find("marginal_dice"), case, labeled=[1])
    other = make(monai_segloss.find("marginal_dice"), case, labeled=[2, 3])
    sent = torch.tensor([[0, 0, 1, 1, 0]]).expand(2, -1)
    torch.testing.assert_close(loss(case.input, case.target, labeled=sent), value(other, case))


@pytest.mark.parametrize("key", KEYS)
def test_labels_of_a_class_that_is_not_labeled_are_background(key: str) -> None:
    case = cases.get("five_classes")
    loss = make(monai_segloss.find(key), case, labeled=[1, 3])
    hidden = torch.where((case.target == 2) | (case.target == 4), 0, case.target)
    torch.testing.assert_close(value(loss, case), loss(case.input, hidden))


def test_merging_adds_probabilities_and_not_their_mean() -> None:
    """Label-set code takes the mean of the merged probabilities; some takes the sum of logits."""
    z = torch.zeros(1, 4, 8)
    label = torch.zeros(1, 1, 8, dtype=torch.long)
    found = monai_segloss.create("marginal_cross_entropy", softmax=True, to_onehot_y=True, labeled=[1])(z, label)
    assert found.item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    raised = z + 5  # a shift of all logits says nothing; their sum would move
    shifted = monai_segloss.create("marginal_cross_entropy", softmax=True, to_onehot_y=True, labeled=[1])(raised, label)
    torch.testing.assert_close(shifted, found)


def test_confident_mistakes_keep_their_gradient() -> None:
    """log of the sum of probabilities would be log 0: here the merged logits are 90 below the wrong one."""
    z = torch.tensor([[[-90.0], [0.0], [-90.0]]])
    case = cases.Case("wrong", z, torch.zeros(1, 1, 1, dtype=torch.long))
    loss = make(monai_segloss.find("marginal_cross_entropy"), case, labeled=[1])
    found, slope = gradient(loss, case)
    assert found.item() == pytest.approx(90 - math.log(2), rel=1e-5)
    torch.testing.assert_close(slope.flatten(), torch.tensor([-0.5, 1.0, -0.5]))


def test_a_class_without_labels_learns_only_where_it_is_not() -> None:
    case = cases.get("five_classes")
    sent = {"labeled": torch.tensor([[1, 1, 0, 0, 0]] * 2)}
    leaf = case.input.clone().requires_grad_()
    loss = make(monai_segloss.find("marginal_dice"), case, include_background=False)
    (slope,) = torch.autograd.grad(loss(leaf, case.target, **sent), leaf)
    p = torch.softmax(case.input, 1)
    share = slope[:, [0, 2, 3, 4]] / p[:, [0, 2, 3, 4]]
    torch.testing.assert_close(share, share[:, :1].expand_as(share))  # pushed as the background they may be


@pytest.mark.parametrize("key", KEYS)
def test_refusals(key: str) -> None:
    case = cases.get("five_classes")
    info = monai_segloss.find(key)
    with pytest.raises(ValueError, match=r"sigmoid=True.*one class per voxel"):
        monai_segloss.create(key, sigmoid=True)
    for bad in ([-1], [1.5]):
        with pytest.raises(ValueError, match="labeled must hold indices"):
            monai_segloss.create(key, labeled=bad)
    with pytest.raises(ValueError, match="labeled names the class 5; input has the classes 0 to 4"):
        value(make(info, case, labeled=[1, 5]), case)
    for sent, message in {
        (2, 4): r"labeled has shape \(2, 4\); expected \(2, 5\)",
        (2, 5): "other values than 0 and 1",
    }.items():
        with pytest.raises(ValueError, match=message):
            make(info, case)(case.input, case.target, labeled=torch.full(sent, 2))
    with pytest.raises(ValueError, match="single channel"):
        monai_segloss.create(key)(torch.rand(1, 1, 4), torch.zeros(1, 1, 4))


@pytest.mark.parametrize("key", KEYS)
def test_compiles_with_labeled_classes(key: str) -> None:
    case = cases.get("ignored_2d")
    labeled = table(len(case.input), case.classes)
    loss = make(monai_segloss.find(key), case)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    expected = loss(case.input, case.target, labeled=labeled, **case.call)
    torch.testing.assert_close(compiled(case.input, case.target, labeled=labeled, **case.call), expected)


@pytest.mark.parametrize("key", ["marginal_dice", "exclusion_dice"])
def test_without_smoothing_what_is_not_there_gives_no_nan(key: str) -> None:
    """A merged class is empty in prediction and target, an ignored sample in all classes: 0 / 0."""
    case, info = cases.get("ignored_sample"), monai_segloss.find(key)
    none = {name: 0.0 for name in ("smooth_nr", "smooth_dr") if name in info.parameters}
    for arguments in ({}, {"batch": True}, {"labeled": [1]}, {"labeled": [1], "batch": True}):
        found, slope = gradient(make(info, case, **none, **arguments), case)
        torch.testing.assert_close(found, value(make(info, case, **arguments), case), rtol=1e-4, atol=0)
        assert slope.isfinite().all()
        assert not slope[1].any()


def test_the_sum_of_the_paper() -> None:
    """Marginal and exclusion Dice + cross-entropy, weights 1, share one reading and one map of labeled classes."""
    case = cases.get("five_classes")
    labeled = table(2, 5)
    total = monai_segloss.WeightedSum(dict.fromkeys(KEYS, 1), softmax=True, to_onehot_y=True)
    parts = [make(monai_segloss.find(key), case)(case.input, case.target, labeled=labeled) for key in KEYS]
    torch.testing.assert_close(total(case.input, case.target, labeled=labeled), sum(parts))
