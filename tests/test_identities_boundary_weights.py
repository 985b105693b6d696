"""Losses of weights made from the target: closed forms of the catalog, and faults of other code that ours do not have."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

import monai_segloss
from monai_segloss.transforms import BorderWeightMapd, ComponentMapd, map_transforms
from nnunet_trainers.deep_supervision import NnUNetLoss

SURE = 80.0
READING = {"softmax": True, "to_onehot_y": True}
PENALTIES = ["distance_penalized_ce", "distance_penalized_dice"]
KEYS = [*PENALTIES, "border_weighted_ce", "region_wise", "weighted_hausdorff"]


def of(key: str, input: Tensor, target: Tensor, spacing: Any = None, **arguments: Any) -> float:
    return monai_segloss.create(key, **{**READING, **arguments})(input, target, spacing=spacing).item()


def hard(mask: Tensor) -> Tensor:
    """Logits (1, 2, *S) that predict a mask (*S) with certainty."""
    return SURE / 2 * torch.stack((1 - 2 * mask.double(), 2 * mask.double() - 1))[None]


def weights(key: str, labels: Tensor, spacing: Any = None, classes: int = 2, **arguments: Any) -> Tensor:
    """The weight of each voxel: what the loss gives for a prediction without opinion, over the cross-entropy."""
    loss = monai_segloss.create(key, reduction="none", **{**READING, **arguments})
    logits = torch.zeros(len(labels), classes, *labels.shape[2:], dtype=torch.float64)
    return loss(logits, labels, spacing=spacing) / math.log(classes)


def blobs(seed: int = 0, classes: int = 3, shape: tuple[int, ...] = (6, 8, 7), batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (batch, 1, *(n // 2 + 1 for n in shape)), generator=generator)
    for axis, n in enumerate(shape, start=2):
        labels = labels.repeat_interleave(2, axis).narrow(axis, 0, n)
    hot = torch.nn.functional.one_hot(labels[:, 0], classes).movedim(-1, 1).double()
    return 2 * hot + torch.randn(hot.shape, generator=generator, dtype=torch.float64), labels.contiguous()


# -- the penalty of Caliva et al. -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(1.0, 1.0), (0.4, 3.0)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_t4_the_penalty_falls_linearly_with_the_depth_of_a_slab(axis: int, steps: tuple[float, ...]) -> None:
    labels = torch.zeros(1, 1, 11, 11, dtype=torch.int64)
    labels.narrow(axis + 2, 0, 6).fill_(1)
    found = weights("distance_penalized_ce", labels, steps)[0, 0].movedim(axis, 0)[:, 0]
    inside = [(6 - k) / 5 for k in range(6, 0, -1)]  # depth 6 at the edge of the image, 1 at the boundary
    outside = [(5 - k) / 4 for k in range(1, 6)]
    torch.testing.assert_close(found, 1 + torch.tensor(inside + outside).double())


def test_errors_at_the_boundary_cost_more_than_deep_ones() -> None:
    """The raw distance as weight does the opposite."""
    truth = torch.zeros(21, dtype=torch.int64)
    truth[:10] = 1
    for key in PENALTIES:
        found = []
        for place in (0, 4, 9, 10, 15, 20):
            predicted = truth.clone()
            predicted[place] = 1 - predicted[place]
            found.append(of(key, hard(predicted), truth[None, None], (1.0,)))
        assert found[0] < found[1] < found[2], key
        assert found[3] > found[4] > found[5], key


def test_the_weights_reach_the_value() -> None:
    """Code of a well-known collection computes the weighted map and returns the mean of the plain one."""
    logits, labels = blobs()
    plain = of("cross_entropy", logits, labels)
    assert of("distance_penalized_ce", logits, labels, (1.0, 1.0, 1.0)) > 1.2 * plain
    assert of("distance_penalized_ce", logits, labels, (1.0, 1.0, 1.0), lambda_phi=0.0) == pytest.approx(plain)
    dice = of("dice", logits, labels)
    assert of("distance_penalized_dice", logits, labels, (1.0, 1.0, 1.0), lambda_phi=0.0) == pytest.approx(dice)
    assert of("distance_penalized_dice", logits, labels, (1.0, 1.0, 1.0)) != pytest.approx(dice, rel=1e-3)


def test_the_penalized_dice_lies_between_0_and_1() -> None:
    """With the weights in the numerator alone a right prediction gives -1.9, and a surer one less."""
    truth = torch.zeros(9, 9, dtype=torch.int64)
    truth[2:7, 2:7] = 1
    for logits, expected in ((hard(truth), 0.0), (hard(1 - truth), 1.0)):
        assert of("distance_penalized_dice", logits, truth[None, None], (1.0, 1.0)) == pytest.approx(expected, abs=1e-5)
    half = of("distance_penalized_dice", 0 * hard(truth), truth[None, None], (1.0, 1.0))
    assert 0.4 < half < 0.7


def test_one_channel_and_two_classes_have_the_same_weights() -> None:
    """Both sides of a region are weighed, with sigmoid and with probabilities."""
    logits, labels = blobs(classes=2)
    steps = (3.0, 1.0, 0.5)
    single = logits[:, 1:] - logits[:, :1]
    for key in ("distance_penalized_ce", "border_weighted_ce"):
        expected = of(key, logits, labels, steps)
        assert monai_segloss.create(key, sigmoid=True)(single, labels.float(), spacing=steps).item() == pytest.approx(
            expected
        )
        found = monai_segloss.create(key)(single.sigmoid(), labels.float(), spacing=steps)
        assert found.item() == pytest.approx(expected)


def test_labels_and_channels_have_the_same_weights() -> None:
    """Labels take one pass over all classes, channels one for each; 118 classes, most of them absent."""
    labels = torch.randint(0, 118, (2, 1, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    labels[1, 0, :2] = 7
    hot = torch.nn.functional.one_hot(labels[:, 0], 118).movedim(-1, 1)
    logits = torch.randn(2, 118, 4, 5, 6, generator=torch.Generator().manual_seed(1)).double()
    for key in (*PENALTIES, "region_wise"):
        expected = of(key, logits, labels, (3.0, 1.0, 0.5))
        assert of(key, logits, hot, (3.0, 1.0, 0.5), to_onehot_y=False) == pytest.approx(expected, rel=1e-12)


# -- the borders of U-Net -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1.0, 0.7])
def test_t4_the_border_across_a_gap(step: float) -> None:
    """Constant across a gap of w voxels: 1 + w0 exp(-(s (w + 1))^2 / (2 sigma^2)); 1 inside."""
    for width in (1, 2, 4):
        labels = torch.ones(1, 1, 12, 3, dtype=torch.int64)
        labels[:, :, 4 : 4 + width] = 0
        found = weights("border_weighted_ce", labels, (step, 2.0), sigma=3.0)[0, 0]
        expected = 1 + 10 * math.exp(-((step * (width + 1)) ** 2) / 18)
        torch.testing.assert_close(found[4 : 4 + width], torch.full((width, 3), expected).double())
        assert (found[labels[0, 0] == 1] == 1).all()


def test_one_instance_or_none_has_no_border() -> None:
    logits, labels = blobs(classes=2, batch=1)
    labels = labels * 0
    assert of("border_weighted_ce", logits, labels, (1.0, 1.0, 1.0)) == pytest.approx(
        of("cross_entropy", logits, labels)
    )
    labels[..., 2:4, 2:4, 2:4] = 1
    assert of("border_weighted_ce", logits, labels, (1.0, 1.0, 1.0)) == pytest.approx(
        of("cross_entropy", logits, labels)
    )


def test_instances_of_all_classes_have_borders_and_the_two_nearest_count() -> None:
    labels = torch.tensor([[[1, 0, 0, 2, 0, 0, 0, 0, 0, 1]]])
    found = weights("border_weighted_ce", labels, (1.0,), classes=3, sigma=2.0, border_weight=8.0)[0, 0]
    for voxel, total in {1: 1 + 2, 2: 2 + 1, 4: 1 + 4, 6: 3 + 3, 8: 1 + 5}.items():
        assert found[voxel] == pytest.approx(1 + 8 * math.exp(-(total**2) / 8))
    merged = weights("border_weighted_ce", (labels > 0).long(), (1.0,), sigma=2.0, border_weight=8.0)[0, 0]
    torch.testing.assert_close(merged, found)


def test_annotated_instances_may_touch() -> None:
    labels = torch.tensor([[[1, 1, 1, 1, 0, 0]]])
    ids = torch.tensor([[[1, 1, 2, 2, 0, 0]]])
    logits = torch.randn(1, 2, 6, generator=torch.Generator().manual_seed(0)).double()
    loss = monai_segloss.create("border_weighted_ce", reduction="none", **READING)
    alone, touching = (loss(logits, labels, spacing=(1.0,), **more)[0, 0] for more in ({}, {"components": ids}))
    torch.testing.assert_close(touching[:4], alone[:4])
    torch.testing.assert_close(touching[4] / alone[4], torch.tensor(1 + 10 * math.exp(-((1 + 3) ** 2) / 50)).double())


def test_the_map_of_the_transform_is_that_of_the_loss() -> None:
    logits, labels = blobs(batch=1)
    affine = torch.diag(torch.tensor([3.0, 1.0, 0.5, 1.0]))
    data = {"label": MetaTensor(labels[0], affine=affine)}
    loss = monai_segloss.create("border_weighted_ce", **READING)
    expected = loss(logits, labels, spacing=(3.0, 1.0, 0.5))
    sent = BorderWeightMapd("label", num_classes=3)(data)["weight_map"].as_tensor()[None]
    torch.testing.assert_close(loss(logits, labels, weight_map=sent), expected)
    for more, setting in (({"weight": [1.0, 2.0, 3.0]}, [1.0, 2.0, 3.0]), ({"balanced": True}, "balanced")):
        transform = BorderWeightMapd("label", num_classes=3, class_weight=setting)
        weighed = monai_segloss.create("border_weighted_ce", **READING, **more)(logits, labels, spacing=(3.0, 1.0, 0.5))
        sent_too = transform(data)["weight_map"].as_tensor()[None]
        torch.testing.assert_close(loss(logits, labels, weight_map=sent_too), weighed)
        masks = {"label": MetaTensor(torch.cat((labels[0] == 1, labels[0] == 2)).float(), affine=affine)}
        of_masks = BorderWeightMapd("label", class_weight=setting)(masks)["weight_map"].as_tensor()[None]
        torch.testing.assert_close(of_masks, sent_too)
    with pytest.raises(ValueError, match="class_weight has 2 values"):
        BorderWeightMapd("label", num_classes=3, class_weight=[1.0, 2.0])
    ids = ComponentMapd("label", num_classes=3, faces=True)(data)["components_faces"].as_tensor()[None]
    torch.testing.assert_close(loss(logits, labels, components=ids, spacing=(3.0, 1.0, 0.5)), expected)
    for more in ({"weight": [1.0, 2.0, 3.0]}, {"balanced": True}):
        with pytest.raises(ValueError, match=r"weight_map.*leave out weight and balanced"):
            monai_segloss.create("border_weighted_ce", **READING, **more)(logits, labels, weight_map=sent)
    with pytest.raises(ValueError, match=r"balanced=True.*leave weight out"):
        monai_segloss.create("border_weighted_ce", weight=2.0, balanced=True)
    with pytest.raises(ValueError, match="weight_map holds NaN or negative"):
        loss(logits, labels, weight_map=-sent)
    with pytest.raises(ValueError, match="sigma must be above 0"):
        monai_segloss.create("border_weighted_ce", sigma=0.0)


def test_balanced_weights_give_every_class_the_same_share() -> None:
    """w_c is N / (classes there * voxels of the class): each class sums to N over their number."""
    labels = torch.zeros(1, 1, 12, dtype=torch.int64)
    labels[..., 2:5], labels[..., 9] = 1, 3
    found = weights("border_weighted_ce", labels, (1.0,), classes=4, border_weight=0.0, balanced=True)[0, 0]
    for c in (0, 1, 3):
        assert found[labels[0, 0] == c].sum() == pytest.approx(4.0)
    by_hand = weights("border_weighted_ce", labels, (1.0,), classes=4, border_weight=0.0, weight=[1.0, 2.0, 9.0, 0.0])
    assert by_hand[0, 0].tolist() == pytest.approx([1, 1, 2, 2, 2, 1, 1, 1, 1, 0, 1, 1])


def test_every_region_has_its_own_borders() -> None:
    """A core inside of a tumor is no second instance next to it."""
    whole = torch.zeros(1, 1, 15)
    whole[..., 2:7] = 1
    core = torch.zeros(1, 1, 15)
    core[..., 3], core[..., 5] = 1, 1
    loss = monai_segloss.create("border_weighted_ce", sigmoid=True, reduction="none")
    found = loss(torch.zeros(1, 2, 15), torch.cat((whole, core), 1), spacing=(1.0,)) / math.log(2)
    assert (found[0, 0] - 1).abs().max() < 1e-6
    assert found[0, 1, 4] == pytest.approx(1 + 10 * math.exp(-4 / 50))


# -- region-wise ----------------------------------------------------------------------------------------------------


def test_t4_region_wise_values_of_a_slab() -> None:
    """-k / D at depth k, 1 outside: the loss of sure predictions is a sum of these."""
    truth = torch.zeros(12, dtype=torch.int64)
    truth[:5] = 1
    for step in (1.0, 0.3):
        for k in range(6):  # all but the k shallowest voxels of class 1 are found
            predicted = truth.clone()
            predicted[5 - k : 5] = 0
            z = -sum(j / 5 for j in range(k + 1, 6))
            found = of("region_wise", hard(predicted), truth[None, None], (step,), include_background=False)
            assert found == pytest.approx(z / 12)
        too_many = truth.clone()
        too_many[9:] = 1
        found = of("region_wise", hard(too_many), truth[None, None], (step,), include_background=False, offset=True)
        assert found == pytest.approx(3 / 12), "wherever they are, false positives cost 1"


def test_full_absent_and_ignored_classes() -> None:
    """-1, 1 and 0; the published code measures to voxel -1 where a class fills the patch."""
    logits = torch.randn(1, 3, 6, 7, generator=torch.Generator().manual_seed(0)).double()
    p = logits.softmax(1).mean((2, 3))[0]
    labels = torch.ones(1, 1, 6, 7, dtype=torch.int64)
    expected = float((p[0] - p[1] + p[2]) / 3)
    assert of("region_wise", logits, labels, (2.0, 0.3)) == pytest.approx(expected)
    labels[..., :2, :] = 255
    kept = logits[:, :, 2:].softmax(1).mean((2, 3))[0]
    found = of("region_wise", logits, labels, (2.0, 0.3), ignore_index=255)
    assert found == pytest.approx(float((kept[0] - kept[1] + kept[2]) / 3))


def test_region_wise_maps_may_be_those_of_another_loss() -> None:
    """The paper's framework: with a signed distance map it is the boundary loss."""
    logits, labels = blobs()
    boundary = monai_segloss.create("boundary", **READING)
    sdm = boundary.needs[0].make(
        torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1).bool(), torch.tensor([3.0, 1.0, 0.5]), None
    )
    for more in ({}, {"offset": True}):
        found = monai_segloss.create("region_wise", **READING, **more)(logits, labels, region_wise=sdm)
        expected = monai_segloss.create("boundary", **READING, **more)(logits, labels, spacing=(3.0, 1.0, 0.5))
        torch.testing.assert_close(found, expected)
    with pytest.raises(TypeError, match=r"region_wise must be floating point.*int64"):
        monai_segloss.create("region_wise", **READING)(logits, labels, region_wise=sdm.long())


# -- what all share -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_t7_axes_with_their_spacing_and_copies(key: str) -> None:
    logits, labels = blobs()
    expected = of(key, logits, labels, (3.0, 1.0, 0.5))
    turned = of(key, logits.permute(0, 1, 4, 2, 3), labels.permute(0, 1, 4, 2, 3), (0.5, 3.0, 1.0))
    assert turned == pytest.approx(expected, rel=1e-7)
    assert of(key, logits, labels, (0.5, 3.0, 1.0)) != pytest.approx(expected, rel=1e-5), "the spacing matters"
    twice = of(key, torch.cat([logits, logits]), torch.cat([labels, labels]), (3.0, 1.0, 0.5))
    assert twice == pytest.approx(expected, rel=1e-9)


def test_t8_scaling_the_spacing() -> None:
    logits, labels = blobs()
    steps, more = (3.0, 1.0, 0.5), (7.5, 2.5, 1.25)
    for key, scaled, factor in [
        ("distance_penalized_ce", {}, 1.0),
        ("distance_penalized_dice", {}, 1.0),
        ("region_wise", {}, 1.0),
        ("border_weighted_ce", {"sigma": 12.5}, 1.0),
        ("weighted_hausdorff", {}, 2.5),
        ("weighted_hausdorff", {"points": "centers"}, 2.5),
    ]:
        before = of(key, logits, labels, steps, **{name: x for name, x in scaled.items() if name != "sigma"})
        assert of(key, logits, labels, more, **scaled) == pytest.approx(factor * before, rel=1e-5), key


@pytest.mark.parametrize("key", KEYS)
def test_every_sample_has_its_spacing(key: str) -> None:
    logits, labels = blobs()
    rows = [(3.0, 1.0, 0.5), (1.0, 1.0, 2.0)]
    loss = monai_segloss.create(key, **READING)
    both = loss(logits, labels, spacing=rows)
    each = [loss(logits[b : b + 1], labels[b : b + 1], spacing=rows[b]) for b in range(2)]
    torch.testing.assert_close(both, torch.stack(each).mean())
    affine = torch.stack([torch.diag(torch.tensor([*row, 1.0])) for row in rows])
    assert loss(logits, MetaTensor(labels, affine=affine)) == both
    with pytest.warns(UserWarning, match="no voxel spacing came"):
        loss(logits, labels)


SHAPES = {"all background": (), "one voxel": ((4, 5),), "line at the border": ((0, slice(None)),), "full": ((...,),)}


@pytest.mark.parametrize("where", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("key", KEYS)
def test_t10_thin_empty_and_full_objects_are_finite(key: str, where: Any) -> None:
    """Published penalties divide 0 by 0 where a class is one voxel thick, absent or everywhere."""
    labels = torch.zeros(1, 1, 8, 9, dtype=torch.int64)
    for index in where:
        labels[(0, 0, *index)] = 1
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        for size in (1.0, 1e4):
            logits = (size * torch.randn(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))).to(dtype)
            leaf = logits.clamp(-6e4, 6e4).requires_grad_()
            value = monai_segloss.create(key, **READING)(leaf, labels, spacing=(0.3, 8.0))
            value.backward()
            assert value.isfinite()
            assert leaf.grad is not None
            assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("key", ["distance_penalized_ce", "border_weighted_ce"])
def test_an_ignored_region_makes_no_boundary(key: str) -> None:
    """An ignored hole inside of a class leaves the weights of the other voxels as they are."""
    labels = torch.zeros(1, 1, 24, dtype=torch.int64)
    labels[..., 3:6], labels[..., 8:] = 1, 1
    hole = labels.clone()
    hole[..., 18:21] = 255
    components = torch.zeros(1, 1, 24, dtype=torch.int64)  # what is ignored would cut the second instance in two
    components[..., 3:6], components[..., 8:] = 1, 2
    more = {"components": components} if key == "border_weighted_ce" else {}
    plain, ignoring = (monai_segloss.create(key, reduction="none", ignore_index=i, **READING) for i in (None, 255))
    logits = torch.randn(1, 2, 24, generator=torch.Generator().manual_seed(0)).double()
    whole, found = plain(logits, labels, spacing=(1.0,), **more), ignoring(logits, hole, spacing=(1.0,), **more)
    kept = torch.cat([torch.arange(18), torch.arange(21, 24)])
    torch.testing.assert_close(found[..., kept], whole[..., kept])
    assert not found[..., 18:21].any()


@pytest.mark.parametrize("key", KEYS)
def test_maps_of_the_transforms_are_those_of_the_loss(key: str) -> None:
    """Labels and regions: what a loader makes for ``needs`` changes nothing."""
    logits, labels = blobs(batch=1)
    affine = torch.diag(torch.tensor([3.0, 1.0, 0.5, 1.0]))
    regions = torch.cat((labels >= 1, labels >= 2), 1)
    for reading, target, input, options in (
        (READING, labels, logits, {"num_classes": 3, "include_background": True}),
        ({"sigmoid": True}, regions, logits[:, 1:], {}),
    ):
        loss = monai_segloss.create(key, **reading)
        data: dict[Any, Any] = {"label": MetaTensor(target[0].float(), affine=affine)}
        for transform in map_transforms(loss, **options):
            data = dict(transform(data))
        maps = {name: x.as_tensor()[None] for name, x in data.items() if name != "label"}
        assert set(maps) == {spec.key for spec in loss.needs}
        expected = loss(input, target, spacing=(3.0, 1.0, 0.5))
        torch.testing.assert_close(loss(input, target, spacing=(3.0, 1.0, 0.5), **maps), expected)


def test_penalties_of_one_side_are_refused_for_regions() -> None:
    logits, labels = blobs()
    loss = monai_segloss.create("distance_penalized_ce", sigmoid=True)
    with pytest.raises(TypeError, match="penalty_both_sides"):
        loss(logits, torch.cat([labels == c for c in range(3)], 1), penalty=torch.zeros_like(logits))


@pytest.mark.parametrize("key", ["distance_penalized_ce", "distance_penalized_dice"])
def test_penalties_of_one_side_are_refused_for_a_single_channel_of_probabilities(key: str) -> None:
    """What ``needs`` names before the channels are known has only the inside of a mask; the call weighs both sides."""
    logits, labels = blobs()
    probabilities, region = logits[:, 1:2].sigmoid(), (labels > 0).double()
    expected = monai_segloss.create(key, sigmoid=True)(logits[:, 1:2], region, spacing=(3.0, 1.0, 0.5))
    loss = monai_segloss.create(key)
    torch.testing.assert_close(loss(probabilities, region, spacing=(3.0, 1.0, 0.5)), expected)
    for other in (loss, monai_segloss.create(key, other_act=torch.sigmoid)):
        (spec,) = other.needs
        sent = {spec.key: spec.make(region > 0, torch.tensor([3.0, 1.0, 0.5]), None)}
        with pytest.raises(ValueError, match=r"penalty has the inside .* sigmoid=True"):
            other(probabilities, region, spacing=(3.0, 1.0, 0.5), **sent)


@pytest.mark.parametrize("key", KEYS)
def test_deep_supervision_measures_at_every_scale(key: str) -> None:
    logits, labels = blobs(shape=(8, 8, 8))
    spacings, factors = [(1.0, 1.0, 2.0), (2.0, 2.0, 4.0), (4.0, 4.0, 8.0)], [4 / 7, 2 / 7, 1 / 7]
    outputs, targets = ([x[:, :, ::k, ::k, ::k] for k in (1, 2, 4)] for x in (logits, labels))
    loss = monai_segloss.create(key, **READING)
    parts = [loss(o, t, spacing=s) for o, t, s in zip(outputs, targets, spacings, strict=True)]
    assert all(x != 0 for x in parts)
    expected = sum(w * x for w, x in zip(factors, parts, strict=True))
    torch.testing.assert_close(NnUNetLoss(loss, spacings, factors)(outputs, targets), expected)
