"""Losses of classes that must not touch: values that follow from the formula, and faults of published code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from boundary_shapes import READING
from torch import Tensor
from torch.nn import functional as F

import monai_segloss
from monai_segloss.kernels import pairs
from monai_segloss.kernels.pairs import adjacency
from monai_segloss.losses.topology.rules import critical_voxels
from monai_segloss.prior.adjacency import Adjacency, Contact, count_contacts, write_adjacency
from monai_segloss.prior.patches import Labels


def channels(labels: Tensor, classes: int = 3) -> Tensor:
    """One-hot (1, C, *S) of labels (*S)."""
    return F.one_hot(labels, classes).movedim(-1, 0)[None].double()


def half_planes(height: int, width: int) -> Tensor:
    """Two classes side by side."""
    return (torch.arange(width) >= width // 2).long().expand(height, width)


def interaction(labels: Tensor, logits: Tensor | None = None, **arguments: Any) -> Tensor:
    """The loss of a label map as its own prediction, or of logits."""
    p = 8 * channels(labels) if logits is None else logits
    found: Tensor = monai_segloss.TopologicalInteractionLoss(**READING, **arguments)(p, labels[None])
    return found


# -- non-adjacency ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 2), (9, 10)])
def test_two_half_planes(height: int, width: int) -> None:
    """A_01 = (3 H - 2) / (9 H W), and all entries add up to (3 H - 2)(3 W - 2) / (9 H W)."""
    p = channels(half_planes(height, width), 2)
    loss = monai_segloss.NonAdjacencyLoss(forbidden=[[0, 1]])(p, p)
    assert loss.item() == pytest.approx((3 * height - 2) / (9 * height * width))
    table = adjacency(p, 1) / (height * width)
    assert table.sum().item() == pytest.approx((3 * height - 2) * (3 * width - 2) / (9 * height * width))
    torch.testing.assert_close(table, table.mT)


def test_a_map_that_obeys_costs_nothing() -> None:
    apart = torch.zeros(8, 9).long()
    apart[1:3, 1:8], apart[5:7, 1:8] = 1, 2  # two voxels of background in between
    loss = monai_segloss.NonAdjacencyLoss(forbidden=[[1, 2]])
    assert loss(channels(apart), channels(apart)) == 0
    wide = monai_segloss.NonAdjacencyLoss(forbidden=[[1, 2]], radius=3)
    assert wide(channels(apart), channels(apart)) > 0
    default = monai_segloss.NonAdjacencyLoss(radius=3)(channels(apart), channels(apart))
    torch.testing.assert_close(wide(channels(apart), channels(apart)), default)


def test_absent_classes_may_be_predicted() -> None:
    """The authors' 1 - (counts > 0) forbids a class without a voxel to touch itself: predicting it costs."""
    p = torch.zeros(1, 3, 5, 5)
    p[:, 2] = 1
    assert monai_segloss.NonAdjacencyLoss(forbidden=[[0, 1], [1, 2], [0, 2]])(p, p) == 0
    found = Adjacency(1, 2, ("background", "a", "b", "c"), ("case",), (9, 4, 3, 0), (Contact((0, 1), 5, 1),))
    assert found.apart == ((0, 2), (1, 2)), "nothing is known of the last class"


def test_doubt_at_one_voxel() -> None:
    """p = 1/2 of both classes at one voxel alone: with the voxel in its box 1/4 * 1/9, without it nothing."""
    p = torch.zeros(1, 3, 5, 5, dtype=torch.float64)
    p[:, 0] = 1
    p[0, :, 2, 2] = torch.tensor([0, 0.5, 0.5])
    found = [
        monai_segloss.NonAdjacencyLoss(forbidden=[[1, 2]], include_center=each)(p, p).item() for each in (True, False)
    ]
    assert found == pytest.approx([0.25 / 9 / 25, 0])


def test_no_contact_across_an_ignored_voxel_or_the_border() -> None:
    p = channels(torch.tensor([[1, 0, 2]]))
    loss = monai_segloss.NonAdjacencyLoss(forbidden=[[0, 1], [0, 2]])
    assert loss(p, p) > 0
    assert loss(p, p, mask=torch.tensor([[[True, False, True]]])) == 0


def test_it_trains_without_labels() -> None:
    p = torch.randn(1, 3, 5, 5, requires_grad=True)
    loss = monai_segloss.NonAdjacencyLoss(**READING)
    values = [loss(p, torch.full((1, 1, 5, 5), label)) for label in (0, 2)]
    assert torch.equal(*values)
    assert torch.autograd.grad(values[0], p)[0].abs().sum() > 0


# -- topological interaction --------------------------------------------------------------------------------------------

ROW = torch.tensor([[0, 0, 1, 1, 2, 2, 0, 0]])


def test_what_obeys_costs_nothing() -> None:
    assert interaction(ROW, exclusion=[[1, 0]], inclusion=[[1, 2]]) > 0
    nested = torch.zeros(7, 7).long()
    nested[1:6, 1:6], nested[3, 3] = 2, 1
    assert interaction(nested, inclusion=[[1, 2]]) == 0
    assert interaction(nested, exclusion=[[1, 0]]) == 0
    assert interaction(nested, inclusion=[[1, 2]], radius=2) == 0
    assert interaction(nested, inclusion=[[1, 2]], radius=3) > 0, "within three voxels there is background"
    assert interaction(nested, inclusion=[[2, 1]]) > 0, "the order of a pair says which lies inside"


def test_the_critical_voxels_are_both_sides_of_a_contact() -> None:
    batch = monai_segloss.TopologicalInteractionLoss(softmax=True).reader.read(8 * channels(ROW), channels(ROW))

    def critical(*pairs: tuple[int, int], radius: int = 1) -> list[int]:
        apart = torch.zeros(3, 3, dtype=torch.bool)
        for a, b in pairs:
            apart[a, b] = apart[b, a] = True
        return critical_voxels(batch, apart, radius, False)[0, 0, 0].int().tolist()

    assert critical((1, 2)) == [0, 0, 0, 1, 1, 0, 0, 0]
    assert critical((1, 2), radius=2) == [0, 0, 1, 1, 1, 1, 0, 0]
    assert critical((0, 1), (0, 2)) == [0, 1, 1, 0, 0, 1, 1, 0]
    assert critical() == [0] * 8


def test_diagonals_and_faces() -> None:
    corner = torch.tensor([[1, 0], [0, 2]])
    assert interaction(corner, exclusion=[[1, 2]]) > 0
    assert interaction(corner, exclusion=[[1, 2]], faces=True) == 0
    assert interaction(corner, exclusion=[[1, 2]], faces=True, radius=2) > 0
    solid = torch.zeros(2, 2, 2).long()
    solid[0, 0, 0], solid[1, 1, 1] = 1, 2
    assert interaction(solid, exclusion=[[1, 2]]) > 0
    assert interaction(solid, exclusion=[[1, 2]], faces=True, radius=2) == 0


def test_a_structure_that_is_cut_off_breaks_no_rule() -> None:
    """Beyond the image, and at an ignored voxel, there is nothing, not even background."""
    cut = torch.tensor([[1, 1, 2, 2, 0]])
    assert interaction(cut, inclusion=[[1, 2]]) == 0
    loss = monai_segloss.TopologicalInteractionLoss(**READING, inclusion=[[1, 2]], ignore_index=9)
    open_ended = torch.tensor([[1, 1, 9, 2, 0]])
    logits = 8 * channels(torch.tensor([[1, 1, 0, 2, 0]]))
    assert loss(logits, open_ended[None]) == 0
    assert loss(logits, torch.tensor([[[1, 1, 0, 2, 0]]])) > 0


def test_only_critical_voxels_have_a_gradient() -> None:
    labels = ROW.expand(3, 8)
    logits = (4 * channels(labels) + torch.rand(1, 3, 3, 8, dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(interaction(labels, logits, exclusion=[[1, 2]]), logits)
    there = torch.zeros(8, dtype=torch.bool)
    there[3:5] = True
    assert torch.equal((slope.abs().sum((0, 1)) > 0), there.expand(3, 8))
    elsewhere = logits.detach() + torch.where(there, 0.0, torch.rand(3, 8, dtype=torch.float64))
    assert interaction(labels, elsewhere, exclusion=[[1, 2]]) == interaction(labels, logits, exclusion=[[1, 2]])


def test_a_mean_that_does_not_grow_with_the_image() -> None:
    """The authors' code sums over the critical voxels, and so has another weight for each size of image."""
    once, twice = ROW.expand(4, 8), ROW.expand(8, 8)
    wrong = [8 * channels(x.flip(1)) for x in (once, twice)]
    values = [interaction(x, z, exclusion=[[1, 2]]) for x, z in zip((once, twice), wrong, strict=True)]
    torch.testing.assert_close(*values)
    ce = monai_segloss.CrossEntropyLoss(**READING, reduction="none")(wrong[0], once[None])[0, 0, 0]
    assert values[0].item() == pytest.approx(ce[3:5].mean().item())
    share = interaction(once, wrong[0], exclusion=[[1, 2]], normalize=False)
    assert share.item() == pytest.approx(ce[3:5].sum().item() / 8)


def test_an_unknown_activation_is_asked_for_the_class() -> None:
    logits = torch.randn(1, 3, 4, 8, dtype=torch.float64)
    labels = ROW.expand(4, 8)
    turned = monai_segloss.TopologicalInteractionLoss(other_act=lambda z: (-z).softmax(1), to_onehot_y=True)
    torch.testing.assert_close(turned(-logits, labels[None]), interaction(labels, logits))


# -- arguments ----------------------------------------------------------------------------------------------------------

KEYS = {"non_adjacency": ("forbidden",), "topological_interaction": ("inclusion", "exclusion")}
ARGUMENTS = [(key, name) for key, names in KEYS.items() for name in names]


@pytest.mark.parametrize(("key", "name"), ARGUMENTS)
@pytest.mark.parametrize("bad", [[[1, 1]], [[1]], [[1, 2, 3]], [[0, -1]], [[0, 1.5]], [1, 2], []])
def test_rules_are_pairs_of_two_classes(key: str, name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be a list of pairs of two different classes"):
        monai_segloss.create(key, **{name: bad})


@pytest.mark.parametrize(("key", "name"), ARGUMENTS)
def test_rules_are_about_classes_with_a_channel(key: str, name: str) -> None:
    loss = monai_segloss.create(key, **{name: [[1, 3]]}, **READING)
    with pytest.raises(ValueError, match=rf"^{name} names class 3, but input has 3 channels"):
        loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("key", KEYS)
def test_regions_and_radii_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"^sigmoid=True: regions overlap"):
        monai_segloss.create(key, sigmoid=True)
    for bad in (0, 1.5, 101):
        with pytest.raises(ValueError, match=r"^radius must be"):
            monai_segloss.create(key, radius=bad)


def test_a_file_of_contacts(tmp_path: Path) -> None:
    """It must be of the same radius and of as many classes, and forbid something."""
    file = tmp_path / "adjacency.json"
    found = Adjacency(
        2, 2, ("background", "a", "b"), ("one",), (9, 4, 3), (Contact((0, 1), 5, 1), Contact((0, 2), 5, 1))
    )
    write_adjacency(found, file)
    loss = monai_segloss.NonAdjacencyLoss(forbidden=str(file), radius=2, **READING)
    p, labels = torch.randn(1, 3, 5, 5), torch.zeros(1, 1, 5, 5)
    torch.testing.assert_close(
        loss(p, labels), monai_segloss.NonAdjacencyLoss(forbidden=[[1, 2]], radius=2, **READING)(p, labels)
    )
    with pytest.raises(ValueError, match=r"counted with radius 2 and the loss has radius=1"):
        monai_segloss.NonAdjacencyLoss(forbidden=str(file))
    with pytest.raises(ValueError, match=r"^forbidden is a file about 3 classes, but input has 4 channels"):
        loss(torch.zeros(1, 4, 5, 5), labels)
    with pytest.raises(ValueError, match=r"^forbidden: there is no file"):
        monai_segloss.NonAdjacencyLoss(forbidden=str(tmp_path / "none.json"))
    for text in ("{}", "[1]", "no JSON", '{"kind": "adjacency"}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"^forbidden: .* is no file of `segloss prior adjacency`"):
            monai_segloss.NonAdjacencyLoss(forbidden=str(file))
    write_adjacency(Adjacency(1, 2, ("background", "a"), ("one",), (9, 4), (Contact((0, 1), 5, 1),)), file)
    with pytest.raises(ValueError, match=r"^forbidden: .* every two classes touch"):
        monai_segloss.NonAdjacencyLoss(forbidden=str(file))
    assert np.array_equal(found.voxels, (9, 4, 3))


# -- contacts in labels -------------------------------------------------------------------------------------------------


def brute_force(volume: np.ndarray, a: int, b: int, radius: int, axes: int) -> int:
    """Pairs of a voxel of one class and one of the other whose places differ by the radius at most."""
    one, other = np.argwhere(volume == a), np.argwhere(volume == b)
    apart = np.abs(one[:, None] - other[None])
    reach = np.array([0] * (volume.ndim - axes) + [radius] * axes)
    return int((apart <= reach).all(2).sum())


@pytest.mark.parametrize(("radius", "axes"), [(1, 3), (2, 3), (9, 3), (1, 2)])
def test_contacts_are_counted_in_whole_volumes(radius: int, axes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    volumes = {name: rng.choice([0, 0, 0, 1, 2, 7], (4, 5, 6)).astype(np.int16) for name in ("first", "second")}
    volumes["first"][volumes["first"] == 2] = 0
    labels = Labels(("first", "second"), volumes.__getitem__, ((0,), (1,), (2,), (3,)), ignored=(7,))
    monkeypatch.setattr(pairs, "SLAB", 30)
    found = count_contacts(labels, ("background", "a", "b", "absent"), radius, axes)
    assert found.voxels == tuple(sum(int((x == k).sum()) for x in volumes.values()) for k in range(4))
    contacts = {each.classes: each for each in found.contacts}
    for a, b in ((0, 1), (0, 2), (1, 2)):
        counts = [brute_force(x, a, b, radius, axes) for x in volumes.values()]
        assert contacts[a, b].voxel_pairs == sum(counts)
        assert contacts[a, b].cases == sum(count > 0 for count in counts)
    assert found.apart == (), "the absent class is not forbidden"
    assert found.lines()[-1] == "absent: in no label"


def test_what_is_forbidden_is_what_the_labels_never_do() -> None:
    """The loss of each label is 0 with the pairs that were found: the same radius, the same box."""
    rng = np.random.default_rng(1)
    volumes = {str(i): np.zeros((6, 7, 8), np.uint8) for i in range(3)}
    for volume in volumes.values():
        volume[1:3, 2:5, 1:4], volume[4:6, 2:5, 1:4] = 1, 2  # a slice apart
        volume[1:3, 2:5, 4:6] = 3
        volume[0] = rng.choice([0, 1], (7, 8))
    labels = Labels(tuple(volumes), volumes.__getitem__, ((0,), (1,), (2,), (3,)))
    found = {radius: count_contacts(labels, "obca", radius, 3).apart for radius in (1, 2)}
    assert found == {1: ((1, 2), (2, 3)), 2: ()}
    for volume in volumes.values():
        p = channels(torch.from_numpy(volume).long(), 4)
        assert monai_segloss.NonAdjacencyLoss(forbidden=found[1])(p, p) == 0
        assert monai_segloss.NonAdjacencyLoss(forbidden=found[1], radius=2)(p, p) > 0, "a mismatch of the radius"


def test_contacts_of_regions_or_of_nothing_are_refused() -> None:
    one = Labels(("a",), lambda case: np.zeros((2, 2, 2), int), ((0,), (1,)))
    for bad, words in {
        replace(one, regions=True): "regions, which overlap",
        replace(one, cases=()): "there are no training cases",
    }.items():
        with pytest.raises(ValueError, match=words):
            count_contacts(bad, ("background", "a"), 1, 3)
    with pytest.raises(ValueError, match="radius must be"):
        count_contacts(one, ("background", "a"), 0, 3)
