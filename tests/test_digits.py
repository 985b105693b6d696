"""Digits of float32: long sums of voxels, and logarithms of probabilities near 0 and 1, against float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss.core.counts import Stat, plain_statistics, soft_statistics
from monai_segloss.core.registry import LossInfo
from monai_segloss.losses.boundary.intensities import homogeneity
from monai_segloss.testing.stand_in import prepared

LOSSES = monai_segloss.list_losses()
LENGTH = 2**20
"""Voxels of a long sum; what adds them up one after the other loses three digits."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def long(info: LossInfo, classes: int) -> tuple[Tensor, Tensor, dict[str, bool]]:
    """Logits and target of a line of voxels, whose pattern repeats, so that every sum is that of few numbers."""
    tile = torch.linspace(-1.3, 1.7, 64).view(1, 1, -1) + torch.arange(classes).view(1, -1, 1) * 0.3
    labels = (torch.arange(64) // (64 // (classes + (classes == 1)))).clamp_max(max(classes - 1, 1)).view(1, 1, -1)
    logits, labels = tile.repeat(1, 1, LENGTH // 64), labels.repeat(1, 1, LENGTH // 64)
    if classes == 1:
        return logits, labels.float(), {"sigmoid": True}
    if "labels" in info.support:
        return logits, labels, info.reading
    return logits, torch.cat([labels == c for c in range(classes)], 1).float(), {"sigmoid": True}


SHORT = ("boundary", "instance", "structural")
"""Families that look at neighborhoods: slow, and what they add up is a map of voxels, by the sum of torch.

So do soft skeletons, wherever there is an ``iter_``: here the prediction of two classes is flat, its skeleton rounding, as
is the perimeter of it alone.  Persistence (``every``) takes no image of that length at once.
"""


@pytest.mark.parametrize(
    "info",
    [
        pytest.param(info, marks=[pytest.mark.expensive] if info.family == "learned" else [])
        for info in LOSSES
        if info.family not in SHORT and not info.needs and not {"iter_", "min_size", "every"} & info.parameters.keys()
    ],
    ids=lambda info: info.key,
)
def test_long_sums(info: LossInfo) -> None:
    """Each family of sums, of one channel and of two classes."""
    for classes in (1, 2):
        if classes == 1 and "regions" not in info.support:
            continue
        logits, target, reading = long(info, classes)
        loss = prepared(info.cls(**info.example, **reading), logits)
        found = loss(logits, target, spacing=(1.0,))
        expected = loss(logits.double(), target, spacing=(1.0,))
        assert float(found) == pytest.approx(float(expected), rel=2e-6, abs=1e-7), f"{classes} classes"


def test_a_long_product_of_an_image() -> None:
    """One dot product over 256^3 voxels of one channel lost four digits."""
    u = torch.full((1, 1, LENGTH), 0.3)
    image = torch.linspace(0.1, 2.9, 64).repeat(LENGTH // 64).view(1, 1, -1)
    kept = torch.ones_like(u)
    found, expected = (homogeneity(u.to(t), image.to(t), kept.to(t), 1e-6) for t in (torch.float32, torch.float64))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    loss = monai_segloss.MumfordShahLoss(sigmoid=True)
    value = [loss(torch.zeros(1, 1, LENGTH, dtype=t), torch.zeros(1, 1, LENGTH), image=image.to(t)) for t in (
        torch.float32, torch.float64)]  # fmt: skip
    assert float(value[0]) == pytest.approx(float(value[1]), rel=1e-5)


def steps(classes: int) -> float:
    """What the sum of so many exponentials rounds away beside 1."""
    return 4e-7 * max(1.0, classes / 8)


def margins(classes: int, exact: bool) -> tuple[Tensor, Tensor]:
    """Logits of one voxel a sample, the true class ahead of (or behind) the others by -30 to 30; labels."""
    ahead = torch.linspace(-30, 30, 61)
    labels = torch.arange(61) % classes
    logits = 0.1 * torch.arange(classes, dtype=torch.float32).expand(61, classes).contiguous()
    if exact:
        logits = logits * 0
    logits[torch.arange(61), labels] += ahead
    return logits[..., None].contiguous(), labels[:, None]


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 20, 118])
@pytest.mark.parametrize("form", ["labels", "channels"])
@pytest.mark.parametrize(
    "which", [("ce",), ("ce_neg",), ("nlp",), ("focal",), ("focal_neg",), ("tp", "fp", "fn", "ce")]
)
def test_statistics_at_every_margin(classes: int, form: str, which: tuple[str, ...]) -> None:
    """The definition in float64 is right; float32 may miss it by some of its steps, of the value or of 1."""
    for level in (True, False):
        logits, labels = margins(classes, level)
        target = labels if form == "labels" else torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
        stats = tuple(Stat(name, 2.0) for name in which)
        found = soft_statistics(logits, target, stats)
        expected = plain_statistics(logits.double(), target, stats)
        wrong = (found - expected).abs() > 4e-6 * expected.abs() + steps(classes)
        assert not bool(wrong.any()), f"{found[wrong][:4].tolist()} instead of {expected[wrong][:4].tolist()}"


LIKELIHOODS = ["cross_entropy", "focal", "dice_ce", "label_smoothing_cross_entropy", "poly1_cross_entropy"]


@pytest.mark.parametrize("classes", [2, 5, 6, 20, 118])
@pytest.mark.parametrize("key", LIKELIHOODS)
def test_losses_at_every_margin(key: str, classes: int) -> None:
    loss: Any = monai_segloss.create(key, softmax=True, to_onehot_y=True)
    logits, labels = margins(classes, True)
    for b in range(0, 61, 3):
        one = slice(b, b + 1)
        found, expected = (float(loss(logits[one].to(t), labels[one][:, None])) for t in (torch.float32, torch.float64))
        assert found == pytest.approx(
            expected, rel=4e-6, abs=steps(classes) * (2 if key == "poly1_cross_entropy" else 1)
        ), f"margin {b - 30}"
