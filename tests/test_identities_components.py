"""CATMIL's losses of components: closed forms, connectivity, scales, and what code elsewhere gets wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss.engine import DeepSupervision
from monai_segloss.kernels.components import connected_components
from monai_segloss.testing import cases
from monai_segloss.testing.harness import assert_close, gradient, make, refused, value
from nnunet_trainers.deep_supervision import NnUNetLoss

KEYS = ("component_tversky", "component_mil")
READING: dict[str, Any] = {"softmax": True, "to_onehot_y": True}
UNSMOOTHED = {"smooth_nr": 0.0, "smooth_dr": 0.0}


def lesions(*sizes: int) -> Tensor:
    """(1, 1, n) labels: lesions of these lengths, two voxels apart."""
    return torch.tensor([[[x for size in sizes for x in (0, 0, *[1] * size)]]])


def found(label: Tensor, *keep: int, margin: float = 60.0) -> Tensor:
    """Logits that are sure of the lesions of these numbers, from 1, and miss the others."""
    ids = connected_components(label > 0)
    hit = sum((ids == k for k in keep), torch.zeros_like(ids, dtype=torch.bool))
    z = torch.where(hit, margin, -margin).double()
    return torch.cat((-z, z), 1) / 2


def test_lesions_of_any_size_weigh_the_same_without_an_offset() -> None:
    """One of two is missed: 1 - 1 / (1 + beta), whichever it is."""
    label = lesions(1, 9)
    loss = monai_segloss.create("component_tversky", offset=0.0, background=0.0, beta=0.7, **UNSMOOTHED, **READING)
    for hit in (1, 2):
        assert float(loss(found(label, hit), label)) == pytest.approx(1 - 1 / 1.7)
    plain = monai_segloss.create("tversky", alpha=0.3, beta=0.7, include_background=False, **READING)
    assert float(plain(found(label, 2), label)) < 0.1 < 0.8 < float(plain(found(label, 1), label))


def test_the_published_weights() -> None:
    """1 / (size + 5) in a lesion, 0.01 per voxel in the background."""
    label = lesions(3, 15)
    everything = torch.cat((torch.full_like(label, -30.0).double(), torch.full_like(label, 30.0).double()), 1)
    loss = monai_segloss.create("component_tversky", **UNSMOOTHED, **READING)
    hits, false = 3 / 8 + 15 / 20, 4 * 0.01
    assert float(loss(everything, label)) == pytest.approx(1 - hits / (hits + 0.3 * false))
    missed = 3 / 8
    assert float(loss(found(label, 2), label)) == pytest.approx(1 - 0.75 / (0.75 + 0.7 * missed))


def test_one_weight_for_all_voxels_is_the_tversky_loss() -> None:
    """A single component of 4 voxels, and a background of the same weight."""
    label = lesions(4)
    z = torch.randn(1, 2, label.shape[2], dtype=torch.float64)
    expected = monai_segloss.create("tversky", alpha=0.3, beta=0.7, include_background=False, **UNSMOOTHED, **READING)
    loss = monai_segloss.create("component_tversky", background=1 / 9, **UNSMOOTHED, **READING)
    assert_close(loss(z, label), expected(z, label), "value")


def test_multiple_instances_ask_for_the_surest_voxel_of_each() -> None:
    label = lesions(2, 3)
    p = torch.tensor([[[0.9, 0.9, 0.1, 0.6, 0.9, 0.9, 0.3, 0.2, 0.1]]], dtype=torch.float64, requires_grad=True)
    value = monai_segloss.create("component_mil")(p, label.double())
    assert float(value.detach()) == pytest.approx(-(math.log(0.6) + math.log(0.3)) / 2)
    (slope,) = torch.autograd.grad(value, p)
    assert slope.nonzero()[:, 2].tolist() == [3, 6]


def test_a_lesion_that_is_surely_missed_still_has_a_gradient() -> None:
    """A floor of p at 1e-6 takes it away just there."""
    label = lesions(2)
    z = found(label, margin=40.0).requires_grad_()
    value = monai_segloss.create("component_mil", **READING)(z, label)
    (slope,) = torch.autograd.grad(value, z)
    assert float(value.detach()) == pytest.approx(40.0)
    assert float(slope.abs().max()) == pytest.approx(1.0)


@pytest.mark.parametrize("key", KEYS)
def test_components_of_touching_classes_are_apart(key: str) -> None:
    """The union of the foreground would be one lesion."""
    label = torch.tensor([[[0, 1, 1, 2, 2, 2, 0]]])
    z = torch.randn(1, 3, 7, dtype=torch.float64)
    alone = [monai_segloss.create(key, sigmoid=True)(z[:, c : c + 1], (label == c).double()) for c in (1, 2)]
    together = monai_segloss.create(key, sigmoid=True)(z[:, 1:], torch.cat([label == 1, label == 2], 1).double())
    assert_close(together, torch.stack(alone).mean(), key)


@pytest.mark.parametrize("key", KEYS)
def test_diagonal_neighbors_are_connected_only_if_asked(key: str) -> None:
    label = torch.eye(4).long()[None, None]
    z = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    for faces, ids in ((True, torch.eye(4) * torch.arange(1, 5)), (False, torch.eye(4))):
        loss = monai_segloss.create(key, faces=faces, **READING)
        (spec,) = loss.needs
        assert_close(loss(z, label, **{spec.key: ids[None, None]}), loss(z, label), f"faces={faces}")
    assert loss(z, label) != monai_segloss.create(key, **READING)(z, label)


@pytest.mark.parametrize("key", KEYS)
def test_annotated_instances_take_the_place_of_components(key: str) -> None:
    """Two lesions that touch."""
    label = lesions(4)
    ids = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    z = torch.randn(1, 2, 6, dtype=torch.float64)
    loss = monai_segloss.create(key, **READING)
    assert loss(z, label, components=ids) != loss(z, label)
    for bad in (ids + 0.5, -ids, ids * 0):
        refused((ValueError, "components (holds ids that are not whole|is 0 at)"), loss, z, label, components=bad)


@pytest.mark.parametrize("key", KEYS)
def test_without_components_there_is_nothing_to_lose(key: str) -> None:
    case = cases.get("labels_3d")
    loss = make(monai_segloss.find(key), case)
    empty = torch.zeros_like(case.target)
    z = case.input.clone().requires_grad_()
    value = loss(z, empty)
    assert value == 0
    assert not torch.autograd.grad(value, z)[0].any()
    both = loss(torch.cat((case.input, case.input)), torch.cat((case.target, empty)))
    assert_close(both, loss(case.input, case.target), "samples without components leave the mean")


@pytest.mark.parametrize("key", KEYS)
def test_a_voxel_is_in_a_component_or_not(key: str) -> None:
    case = cases.get("soft_regions")
    refused((ValueError, "target holds fractions"), value, make(monai_segloss.find(key), case), case)


@pytest.mark.parametrize("key", KEYS)
def test_coarser_scales_are_left_out(key: str) -> None:
    """Sizes mean something else there, and small lesions fall between the voxels."""
    case = cases.get("labels_3d", 8)
    loss = make(monai_segloss.find(key), case)
    fine = value(loss, case)
    z, y = case.input, case.target
    small, coarse = z[:, :, ::2, ::2, ::2], y[:, :, ::2, ::2, ::2]
    assert loss(small, coarse, full_resolution=False) == 0
    assert loss(small, coarse) > 0
    scales = NnUNetLoss(loss, spacings=[(1.0,) * 3, (2.0,) * 3], weights=[0.5, 0.5])
    assert_close(scales([z, small], [y, coarse]), 0.5 * fine, "nnU-Net")
    assert_close(DeepSupervision(loss)([z, small], y).double(), fine, "MONAI", rtol=1e-6)


def test_catmil_has_dice_and_cross_entropy_at_every_scale() -> None:
    case = cases.get("labels_3d")
    loss: Any = monai_segloss.recipe("catmil").build(**case.reading)
    plain = monai_segloss.create("dice_ce", **case.reading)
    loss.set_epoch(50)
    parts = {key: value(make(monai_segloss.find(key), case), case) for key in KEYS}
    expected = value(plain, case) + 0.1 * parts["component_tversky"] + 0.2 * parts["component_mil"]
    assert_close(value(loss, case), expected, "full resolution")
    found, slope = gradient(lambda *x: loss(*x, full_resolution=False), case)
    assert_close(found, value(plain, case), "coarser")
    assert_close(slope, gradient(plain, case)[1], "gradient, coarser")
    assert [spec.key for spec in loss.needs] == ["components_faces"], "one map serves both"
