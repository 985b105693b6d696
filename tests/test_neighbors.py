"""`neighbors`: every voxel takes the worst logit among its neighbors of the same class, for all losses alike."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import monai_segloss
from monai_segloss import LossConfig, WeightedSum
from monai_segloss.config import json_schema
from monai_segloss.core import neighbors
from monai_segloss.core.neighbors import worst_of_neighbors
from monai_segloss.core.reading import Reader
from monai_segloss.testing.properties.neighbors import worst_logits

LABELS: dict[str, Any] = {"softmax": True, "to_onehot_y": True}


def batch(*space: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits and labels."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (2, 1, *space), generator=rng)
    return torch.randn(2, classes, *space, generator=rng, dtype=torch.float64), labels


def expected(z: Tensor, g: Tensor, width: int, valid: Tensor | None = None) -> Tensor:
    valid = torch.ones_like(z[:, :1], dtype=torch.bool) if valid is None else valid
    return torch.from_numpy(worst_logits(z.numpy(), g.numpy(), valid.numpy(), width))


@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("space", [(5, 1, 4), (6, 7), (9,), (2, 3, 2)])
def test_labels_and_channels_as_defined(space: tuple[int, ...], width: int) -> None:
    z, labels = batch(*space)
    onehot = F.one_hot(labels[:, 0], 3).movedim(-1, 1)
    for target in (labels[:, 0], onehot, onehot.bool(), onehot.double()):
        assert torch.equal(worst_of_neighbors(z, target, None, width), expected(z, onehot, width))
    regions = torch.rand(z.shape) < 0.5
    assert torch.equal(worst_of_neighbors(z, regions, None, width), expected(z, regions.double(), width))


def test_without_a_compiler_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = batch(4, 6, 5)
    mask = torch.rand(labels.shape) < 0.8

    def both(width: int) -> tuple[Tensor, Tensor]:
        leaf = z.clone().requires_grad_()
        found = worst_of_neighbors(leaf, labels[:, 0], mask[:, 0], width)
        return found, torch.autograd.grad((found * z.cos()).sum(), leaf)[0]

    kernels = [both(width) for width in (3, 5, 21)]
    monkeypatch.setattr(neighbors, "KERNELS", {})
    for width, of_kernel in zip((3, 5, 21), kernels, strict=True):
        torch.testing.assert_close(both(width), of_kernel, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("space", "radius"), [((3, 60, 35), 1), ((2, 70, 33), 2), ((70, 40), 1)])
def test_rows_of_several_tasks(space: tuple[int, ...], radius: int, dtype: torch.dtype) -> None:
    """Kernels go through some rows at a time, by several threads: the values are those of the plain way."""
    z, labels = batch(*space)
    z, y = (4 * z).round().to(dtype), labels[:, 0]  # many are equal
    kernels = neighbors._kernels(z)
    if kernels is None:
        pytest.skip("without a compiler there are no kernels")
    threads = torch.get_num_threads()
    try:
        for number, mask in itertools.product((1, 3), (None, torch.rand(y.shape) < 0.9)):
            torch.set_num_threads(number)
            found, steps = kernels.worst(z, y, mask, radius)
            assert torch.equal(found, neighbors.worst(z, y, mask, radius)[0])
            places = torch.arange(z[0, 0].numel()) + steps.flatten(2)
            assert torch.equal(z.flatten(2).gather(2, places), found.flatten(2))
            assert not steps[found == z].any()
            hole = z.clone()
            hole[..., 30, 20] = torch.nan
            assert torch.equal(kernels.worst(hole, y, mask, radius)[0].isnan(), hole.isnan())
    finally:
        torch.set_num_threads(threads)


def test_a_soft_target_counts_as_one_from_one_half_on() -> None:
    z, _ = batch(6, 7)
    soft = torch.rand(z.shape, dtype=torch.float64)
    soft[:, :, 0] = 0.5
    assert torch.equal(worst_of_neighbors(z, soft, None, 3), expected(z, soft, 3))
    assert torch.equal(worst_of_neighbors(z, soft, None, 3), worst_of_neighbors(z, soft >= 0.5, None, 3))


def test_ignored_voxels_are_no_neighbors_and_keep_their_logits() -> None:
    z, labels = batch(6, 7)
    mask = torch.rand(labels.shape) < 0.5
    found = worst_of_neighbors(z, labels[:, 0], mask[:, 0], 3)
    assert torch.equal(found, expected(z, F.one_hot(labels[:, 0], 3).movedim(-1, 1), 3, mask))
    assert torch.equal(found.masked_select(~mask), z.masked_select(~mask))
    line, y = torch.tensor([[[5.0, 1.0, 4.0, 3.0]]]), torch.ones(1, 1, 4)
    hidden = torch.tensor(
        [[True, False, True, True]]
    )  # the border of an image and an ignored voxel: both are no neighbors
    assert worst_of_neighbors(line, y, hidden, 3).tolist() == [[[5.0, 1.0, 3.0, 3.0]]]


def test_the_gradient_goes_to_the_worst_voxel() -> None:
    z = torch.tensor([[[5.0, 1.0, 4.0, 3.0, 3.0]]], requires_grad=True)
    y = torch.tensor([[[1, 1, 1, 0, 0]]])
    found = worst_of_neighbors(z, y, None, 3)
    assert found.tolist() == [[[1.0, 1.0, 1.0, 3.0, 3.0]]]
    (slope,) = torch.autograd.grad((found * torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])).sum(), z)
    assert slope.tolist() == [[[0.0, 7.0, 0.0, 8.0, 16.0]]]  # of equal ones to the voxel itself
    flat = torch.full((1, 2, 4, 4), 0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(worst_of_neighbors(flat, torch.zeros(1, 4, 4), None, 3).sum(), flat)
    assert torch.equal(slope, torch.ones_like(slope))


def test_derivatives() -> None:
    z, labels = batch(4, 3)
    z.requires_grad_()

    def cubed(z: Tensor) -> Tensor:
        return worst_of_neighbors(z, labels[:, 0], None, 3) ** 3

    assert torch.autograd.gradcheck(cubed, z)
    assert torch.autograd.gradgradcheck(cubed, z)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_near_the_largest_half(dtype: torch.dtype) -> None:
    """No number takes the place of infinity, which would overflow or be too small."""
    z, labels = batch(4, 5)
    z = (6e4 * z / z.abs().max()).to(dtype)
    loss = monai_segloss.CrossEntropyLoss(**LABELS, neighbors=3)
    leaf = z.clone().requires_grad_()
    value = loss(leaf, labels)
    assert torch.equal(value, loss(z.float(), labels))
    assert torch.isfinite(value)
    (slope,) = torch.autograd.grad(value, leaf)
    assert slope.dtype == dtype
    assert torch.isfinite(slope).all()


def test_identities_of_the_paper() -> None:
    """A window of one voxel and constant logits change nothing; the cross-entropy only grows; flips commute."""
    z, labels = batch(5, 6)
    plain, worst = (monai_segloss.CrossEntropyLoss(**LABELS, neighbors=n, reduction="none") for n in (1, 3))
    assert torch.equal(plain(z, labels), monai_segloss.CrossEntropyLoss(**LABELS, reduction="none")(z, labels))
    flat = torch.tensor([2.0, -1.0, 0.5]).view(1, 3, 1, 1).expand(2, 3, 5, 6)
    assert torch.equal(worst(flat, labels), plain(flat, labels))
    assert (worst(z, labels) >= plain(z, labels)).all()
    assert (worst(z, labels) > plain(z, labels)).any()
    for axis in (2, 3):
        assert torch.equal(worst(z.flip(axis), labels.flip(axis)), worst(z, labels).flip(axis))


def test_a_break_in_a_tube_costs_its_neighborhood() -> None:
    """What it is for: a line that is missed at one voxel is missed in three."""
    labels = torch.zeros(1, 1, 5, 9, dtype=torch.long)
    labels[:, :, 2] = 1
    logits = 20.0 * torch.cat((1 - 2 * labels, 2 * labels - 1), 1)
    logits[:, :, 2, 4] *= -1
    loss = [monai_segloss.CrossEntropyLoss(**LABELS, neighbors=n, reduction="sum")(logits, labels) for n in (1, 3)]
    assert loss[1] / loss[0] == pytest.approx(3, rel=1e-6)


def test_it_is_the_same_where_labels_are_channels_and_where_the_mask_is_a_label() -> None:
    z, labels = batch(5, 6)
    labels[:, :, 0] = 255
    onehot = F.one_hot(labels[:, 0].clamp(max=2), 3).movedim(-1, 1)
    loss = monai_segloss.DiceCELoss(**LABELS, neighbors=3, ignore_index=255)
    channels = monai_segloss.DiceCELoss(softmax=True, neighbors=3)
    torch.testing.assert_close(loss(z, labels), channels(z, onehot, mask=labels != 255))


def test_a_coarser_scale_has_windows_of_its_own() -> None:
    """Deep supervision: each scale is read as it is."""
    from nnunet_trainers.deep_supervision import NnUNetLoss

    z, labels = batch(8, 8)
    outputs, targets = [z, z[..., ::2, ::2].contiguous()], [labels, labels[..., ::2, ::2].contiguous()]
    loss = monai_segloss.DiceCELoss(**LABELS, neighbors=3)
    found = NnUNetLoss(loss, [(1.0, 1.0), (2.0, 2.0)], (1.0, 0.5))(outputs, targets)
    worst = [
        monai_segloss.DiceCELoss(**LABELS)(worst_of_neighbors(x, y[:, 0], None, 3), y)
        for x, y in zip(outputs, targets, strict=True)
    ]
    torch.testing.assert_close(found, worst[0] + 0.5 * worst[1])


# -- sums ---------------------------------------------------------------------------------------------------------------


def test_a_term_with_neighbors_of_its_own() -> None:
    z, labels = batch(5, 6)
    plain, worst = (monai_segloss.DiceCELoss(**LABELS, neighbors=n)(z, labels) for n in (1, 3))
    terms = {"dice_ce": 1, "penalty": {"loss": "dice_ce", "weight": 0.5, "neighbors": 3}}
    both = WeightedSum(terms, **LABELS)
    torch.testing.assert_close(both(z, labels), plain + 0.5 * worst)
    assert {name.split("/")[0] for name in both.last} == {"dice_ce", "penalty"}
    of_all = WeightedSum({**terms, "dice_ce": {"neighbors": 1}}, neighbors=3, **LABELS)
    torch.testing.assert_close(of_all(z, labels), plain + 0.5 * worst)
    nested = WeightedSum({"dice": 1, "more": {"loss": "dice_ce", "weight": 0.5}}, neighbors=3, **LABELS)
    dice = monai_segloss.DiceLoss(**LABELS, neighbors=3)(z, labels)
    torch.testing.assert_close(nested(z, labels), dice + 0.5 * worst)
    half = WeightedSum(terms, **LABELS)(z.half(), labels)
    torch.testing.assert_close(half, both(z.half().float(), labels))


def test_a_term_that_is_off_costs_no_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = batch(5, 6)
    off = WeightedSum({"dice_ce": 1, "penalty": {"loss": "dice_ce", "weight": 0, "neighbors": 3}}, **LABELS)
    monkeypatch.setattr(neighbors, "_Worst", None)
    assert off(z, labels) == monai_segloss.DiceCELoss(**LABELS)(z, labels)


def test_the_recipe_is_the_loss_and_its_penalty() -> None:
    z, labels = batch(5, 6)
    loss = monai_segloss.recipe("valverde_neighbors").build(**LABELS)
    parts = [monai_segloss.DiceCELoss(**LABELS, neighbors=n)(z, labels) for n in (1, 3)]
    torch.testing.assert_close(loss(z, labels), sum(parts))


# -- surfaces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 2, -3, 2.5, float("nan"), float("inf")])
def test_a_window_is_an_odd_number_of_voxels(bad: float) -> None:
    with pytest.raises(ValueError, match=r"^neighbors must be"):
        monai_segloss.DiceLoss(neighbors=bad)
    with pytest.raises((ValueError, TypeError), match="neighbors must be"):
        LossConfig(loss="dice", arguments={"neighbors": bad})


@pytest.mark.parametrize("bad", ["3", True, None, [3]])
def test_a_window_is_a_number(bad: object) -> None:
    with pytest.raises(TypeError, match=r"^neighbors must be a number"):
        monai_segloss.DiceLoss(neighbors=bad)


def test_probabilities_are_refused() -> None:
    z, labels = batch(5, 6)
    for loss in (
        monai_segloss.DiceLoss(to_onehot_y=True, neighbors=3),
        WeightedSum({"dice": {"neighbors": 3}}, to_onehot_y=True),
    ):
        with pytest.raises(ValueError, match=r"^neighbors=3 compares logits.*softmax=True"):
            loss(z.softmax(1), labels)
    monai_segloss.DiceLoss(to_onehot_y=True, neighbors=1)(z.softmax(1), labels)
    activated = monai_segloss.DiceLoss(to_onehot_y=True, neighbors=3, other_act=lambda z: z.softmax(1))
    torch.testing.assert_close(activated(z, labels), monai_segloss.DiceLoss(**LABELS, neighbors=3)(z, labels))


def test_voxels_without_a_place_have_no_windows() -> None:
    z = torch.randn(4, 3)
    target = F.one_hot(torch.tensor([0, 1, 2, 0]), 3)
    loss = [monai_segloss.CrossEntropyLoss(softmax=True, neighbors=n)(z, target) for n in (1, 3)]
    assert torch.equal(*loss)


def test_every_loss_takes_it_on_every_surface() -> None:
    for info in monai_segloss.list_losses():
        assert info.parameters["neighbors"].default == 1
        assert "odd width" in info.arguments["neighbors"]
    properties = [each["then"]["properties"]["arguments"]["properties"] for each in json_schema()["allOf"]]
    assert all(each["neighbors"] == {"default": 1, "type": "number"} for each in properties)
    config = LossConfig(loss="focal", arguments={"neighbors": 3})
    assert config.build(**LABELS).reader.neighbors == 3
    assert json.loads(config.model_dump_json())["arguments"] == {"neighbors": 3}


@pytest.mark.slow
def test_the_compiler_gets_one_graph() -> None:
    z, labels = batch(4, 5)
    loss = monai_segloss.DiceCELoss(**LABELS, neighbors=3, ignore_index=2)
    leaf = z.clone().requires_grad_()
    value = loss(leaf, labels)
    (slope,) = torch.autograd.grad(value, leaf)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)(leaf, labels)
    torch.testing.assert_close(compiled, value)
    torch.testing.assert_close(torch.autograd.grad(compiled, leaf)[0], slope)


def test_memory_for_the_gradient_is_small() -> None:
    """Beside the new logits two bytes per voxel and channel are kept, four where a window reaches far in memory."""
    z, labels = batch(8, 8, 8)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        worst_of_neighbors(z.requires_grad_(), labels[:, 0], None, 3)
    assert [(x.dtype, x.numel()) for x in kept] == [(torch.int16, z.numel())]
    wide = torch.zeros(1, 1, 2, 200, 200)
    wide[..., 0, 0, 0] = 9
    far = worst_of_neighbors(wide, torch.zeros_like(wide), None, 3)
    assert int((far == 9).sum()) == 8
    assert np.count_nonzero(far[0, 0, 1].numpy()) == 4


def test_the_reader_tells_the_batch_as_given() -> None:
    z, labels = batch(5, 6)
    read = Reader(**LABELS).read(z, labels)
    assert read.with_neighbors(1) is read
    worst = read.with_neighbors(3)
    assert worst.with_neighbors(1) is read
    assert torch.equal(worst.with_neighbors(3).logits, worst.logits)
