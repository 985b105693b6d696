"""Losses of components: the catalog's identities, precomputed components, and what popular code gets wrong."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import monai_segloss
from monai_segloss.kernels.components import connected_components, nearest_component
from monai_segloss.maps import component_cell_map
from monai_segloss.testing import cases
from monai_segloss.testing.harness import make, refused, value

KEYS = ("blob", "cc_dice_ce", "inverse_weighted_cross_entropy", "inverse_weighted_dice")


def two_lesions(shape: tuple[int, ...] = (8, 9, 7)) -> Tensor:
    """(1, 1, *S) labels: a large and a small lesion."""
    label = torch.zeros(1, 1, *shape, dtype=torch.long)
    label[0, 0, :4, :4], label[0, 0, -1, -1] = 1, 1
    return label


def logits(label: Tensor, classes: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(label), classes, *label.shape[2:], generator=generator, dtype=torch.float64)


def test_one_component_is_the_volume() -> None:
    """With one component and no smoothing, both instance terms are Dice + binary cross-entropy on the volume."""
    target = (two_lesions() * 0).double()
    target[0, 0, 2:5, 3:6, 1:4] = 1
    z = logits(target, 1)
    common: dict[str, Any] = {"sigmoid": True, "smooth_nr": 0.0, "smooth_dr": 0.0}
    expected = monai_segloss.create("dice_ce", **common)(z, target)
    for key in ("blob", "cc_dice_ce"):
        torch.testing.assert_close(monai_segloss.create(key, lambda_global=0.0, **common)(z, target), expected)


@pytest.mark.parametrize("name", ["labels_3d", "ignored", "regions_masked"])
def test_without_instances_dice_ce_is_left(name: str) -> None:
    case = cases.get(name)
    expected = value(monai_segloss.create("dice_ce", **case.reading), case)
    blob = monai_segloss.create("blob", lambda_global=1.0, lambda_blob=0.0, **case.reading)
    cells = monai_segloss.create("cc_dice_ce", lambda_cc=0.0, **case.reading)
    torch.testing.assert_close(value(blob, case), expected)
    torch.testing.assert_close(value(cells, case), expected)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["labels_3d", "five_classes", "one_class", "regions", "empty_class", "ignored"])
def test_precomputed_components_are_the_computed_ones(key: str, name: str) -> None:
    case = cases.get(name)
    loss, expected = make(monai_segloss.find(key), case), value(make(monai_segloss.find(key), case), case)
    inside = case.onehot() > 0
    ids = connected_components(inside)
    sent = [ids, ids.to(torch.int16), ids.float()]
    if case.labels:  # the id of a voxel within its class
        own = (ids * inside).sum(1, keepdim=True)
        sent += [own, own[:, 0]]
    if name == "one_class":
        sent += [ids[:, 0]]
    for each in sent:
        found = loss(case.input, case.target, components=each, **case.call)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    packed = {"label": case.target, "components": ids}
    torch.testing.assert_close(loss(case.input, packed, **case.call), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("key", KEYS)
def test_ids_may_be_far_apart(key: str) -> None:
    """A coarse grid of deep supervision can have the ids of more components than it has voxels."""
    case = cases.get("five_classes")
    loss = make(monai_segloss.find(key), case)
    ids = connected_components(case.onehot() > 0) * 9_999_991
    torch.testing.assert_close(loss(case.input, case.target, components=ids, **case.call), value(loss, case))


@pytest.mark.parametrize("name", ["labels_3d", "five_classes", "one_class", "regions", "ignored"])
def test_precomputed_cells_are_the_computed_ones(name: str) -> None:
    case = cases.get(name)
    loss = make(monai_segloss.find("cc_dice_ce"), case)
    spacing = None if case.spacing is None else torch.tensor(case.spacing)
    cells = nearest_component(connected_components((case.onehot() > 0) & case.valid), spacing)
    for each in (cells, cells.int(), cells.float(), cells * 9_999_991):
        found = loss(case.input, case.target, cells=each, **case.call)
        torch.testing.assert_close(found, value(loss, case), rtol=1e-12, atol=0)


def test_a_cell_that_lost_its_component_is_left_out() -> None:
    """As at a coarse scale: the cell of a lesion that fell between the voxels has no Dice."""
    label = two_lesions()
    z = logits(label)
    cells = nearest_component(connected_components(label))
    lost = torch.where(connected_components(label) == 2, 0, label)
    loss = monai_segloss.create("cc_dice_ce", softmax=True, to_onehot_y=True, lambda_global=0.0)
    found = loss(z, lost, cells=cells)
    kept = loss(z, lost, components=lost, mask=(cells == 1)[:, 0])
    torch.testing.assert_close(found, kept)


def test_in_a_sum_each_term_takes_its_own_components() -> None:
    """Instances of the border map are connected over faces: those of the other terms, sent too, would join two of them."""
    label = torch.zeros(1, 1, 12, 12, dtype=torch.long)
    label[0, 0, 2:5, 2:5], label[0, 0, 5:8, 5:8], label[0, 0, 9:11, 1:4] = 1, 1, 1
    z = logits(label)
    total = monai_segloss.WeightedSum({"blob": 1, "border_weighted_ce": 1}, softmax=True, to_onehot_y=True)
    masks = torch.cat((label == 0, label == 1), 1)
    maps = {spec.key: spec.make(masks, None, None) for spec in total.needs}
    assert maps["components"].max() == 2
    assert maps["components_faces"].max() == 3
    torch.testing.assert_close(total(z, label, spacing=(1.0, 1.0), **maps), total(z, label, spacing=(1.0, 1.0)))


def test_precomputed_components_say_which_voxels_belong_together() -> None:
    label = two_lesions()
    z = logits(label)
    loss = monai_segloss.create("blob", softmax=True, to_onehot_y=True)
    assert loss(z, label, components=label) != loss(z, label)


def test_a_cell_without_its_component_is_left_out() -> None:
    """On a coarse grid a small component can be gone while its cell is still there: nothing is expected in it."""
    label = two_lesions()
    z = logits(label)
    loss = monai_segloss.create("cc_dice_ce", softmax=True, to_onehot_y=True, lambda_global=0.0, lambda_ce=0.0)
    cells = component_cell_map(label == 1)
    assert torch.equal(loss(z, label, cells=cells), loss(z, label))
    fewer = label.clone()
    fewer[0, 0, -1, -1] = 0
    found = loss(z, fewer, cells=cells)
    expected = loss(z, fewer, mask=cells == cells[0, 0, 0, 0, 0])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("key", KEYS)
def test_bad_components_are_refused(key: str) -> None:
    label = two_lesions()
    loss = monai_segloss.create(key, softmax=True, to_onehot_y=True)
    ids = connected_components(label)
    refusals = {
        "components holds ids that are not whole": (
            ids + 0.5,
            -ids,
            ids * 2**31,
            torch.where(ids > 0, torch.nan, 0.0),
        ),
        f"components is 0 at {int((label > 0).sum())} voxels": (ids * 0,),
        "components has shape": (ids[:, :, 1:],),
    }
    for message, sent in refusals.items():
        for bad in sent:
            with pytest.raises(ValueError, match=message):
                loss(logits(label), label, components=bad)


def test_the_other_components_have_no_influence_on_a_component() -> None:
    """The authors' code multiplies logits by the mask, and a masked voxel then costs as p = 1/2."""
    label = two_lesions()
    target = label.double()
    z = logits(label, 1)
    large, small = (connected_components(label) == k for k in (1, 2))
    for arguments in ({"lambda_ce": 0.0}, {"lambda_dice": 0.0}):
        loss = monai_segloss.create("blob", sigmoid=True, lambda_global=0.0, **arguments)
        alone = monai_segloss.create("blob", sigmoid=True, lambda_global=0.0, **arguments)
        of_large = alone(z, large.double(), mask=~small)
        of_small = alone(z, small.double(), mask=~large)
        torch.testing.assert_close(loss(z, target), (of_large + of_small) / 2)


def test_a_small_lesion_counts_as_much_as_a_large_one() -> None:
    """Missing the lesion of 7 voxels costs Dice next to nothing, blob and cells half of their term."""
    label = two_lesions()
    ids = connected_components(label)
    found = torch.where(ids == 1, 40.0, -40.0).double()
    value = {
        key: monai_segloss.create(key, sigmoid=True, lambda_ce=0.0, **more)(found, label.double()).item()
        for key, more in {"dice_ce": {}, "blob": {"lambda_global": 0.0}, "cc_dice_ce": {"lambda_global": 0.0}}.items()
    }
    assert value["dice_ce"] < 0.04
    assert value["blob"] == pytest.approx(0.5, abs=1e-6)
    assert value["cc_dice_ce"] == pytest.approx(0.5, abs=1e-6)


def test_cells_of_one_channel_belong_to_one_class() -> None:
    """For several classes the cells of one would leave most of the image out, or divide it by the components of another."""
    case = cases.get("labels_3d")
    loss = monai_segloss.create("cc_dice_ce", **case.reading)
    one = torch.ones_like(case.input[:, :1])
    with pytest.raises(ValueError, match="cells has one channel for 2 classes with instances"):
        loss(case.input, case.target, cells=one, **case.call)
    loss(case.input, case.target, cells=one.expand_as(case.input), **case.call)
    loss(case.input[:, :2], case.target.clamp_max(1), cells=one, **case.call)


def test_spacing_moves_the_cells() -> None:
    label = two_lesions()
    z = logits(label)
    loss = monai_segloss.create("cc_dice_ce", softmax=True, to_onehot_y=True)
    assert loss(z, label, spacing=(1.0, 1.0, 1.0)) == loss(z, label)
    assert loss(z, label, spacing=(2.0, 2.0, 2.0)) == loss(z, label)
    assert loss(z, label, spacing=(5.0, 1.0, 1.0)) != loss(z, label)


def test_inverse_weights_sum_to_the_number_of_voxels() -> None:
    """One voxel, 63 voxels and the background weigh the same; clipping as in the authors' code breaks the sum."""
    label = two_lesions()
    z = torch.zeros(1, 2, *label.shape[2:], dtype=torch.float64)
    count = label.numel()
    ids = connected_components(label)
    loss = monai_segloss.create("inverse_weighted_cross_entropy", softmax=True, to_onehot_y=True, reduction="none")
    weights = loss(z, label) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    for k in range(3):
        assert weights[ids == k].sum() == pytest.approx(count / 3)
    clipped = monai_segloss.create("inverse_weighted_cross_entropy", softmax=True, to_onehot_y=True, clip=(1.0, 2e5))
    plain = monai_segloss.create("inverse_weighted_cross_entropy", softmax=True, to_onehot_y=True)
    assert plain(z, label).item() == pytest.approx(0.6931471805599453)
    assert clipped(z, label) > plain(z, label)
    for bad in ((2.0, 1.0), (1.0,), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="clip"):
            monai_segloss.create("inverse_weighted_cross_entropy", clip=bad)


@pytest.mark.parametrize("key", KEYS)
def test_a_voxel_is_in_a_component_or_not(key: str) -> None:
    """Targets of zeros and ones of any type have the same components; of fractions they would be neither in nor out."""
    label = two_lesions()
    z = logits(label, 1)
    loss = monai_segloss.create(key, sigmoid=True)
    for dtype in (torch.bool, torch.float16, torch.float64):
        torch.testing.assert_close(loss(z, label.to(dtype)), loss(z, label.double()))
    for soft in (0.3 * label, 0.9 * label):
        refused((ValueError, "target holds fractions; this loss is defined for hard labels"), loss, z, soft)
    half = torch.where(torch.arange(z.shape[-1]) == 0, 0.5, label.double())
    ignored = (half != 0.5)[:, 0]
    assert torch.equal(loss(z, half, mask=ignored), loss(z, label.double(), mask=ignored))


@pytest.mark.parametrize(("key", "warnings_of"), [(key, int(key == "cc_dice_ce")) for key in KEYS])
def test_only_cells_ask_for_a_spacing(key: str, warnings_of: int) -> None:
    """Components are neighbors in the grid, whatever the spacing."""
    label = two_lesions()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monai_segloss.create(key, softmax=True, to_onehot_y=True)(logits(label), label)
    assert len([each for each in caught if "spacing" in str(each.message)]) == warnings_of


def test_a_volume_in_seconds() -> None:
    """(2, 3, 48^3) with hundreds of components in float32, value and gradient."""
    generator = torch.Generator().manual_seed(0)
    label = (torch.rand(2, 1, 48, 48, 48, generator=generator) < 0.005).long()
    z = torch.randn(2, 3, 48, 48, 48, generator=generator, requires_grad=True)
    for key in KEYS:
        found = monai_segloss.create(key, softmax=True, to_onehot_y=True)(z, label)
        (slope,) = torch.autograd.grad(found, z)
        assert found.isfinite()
        assert slope.isfinite().all()
