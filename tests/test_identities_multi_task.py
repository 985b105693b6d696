"""Tasks alongside the segmentation: closed forms, what reaches heads and features, targets and settings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from harness import both, of, same
from references.multi_task import contour
from skimage.morphology import skeletonize
from torch import Tensor, nn

import monai_segloss
from monai_segloss import MultiTaskLoss, Taps, network_shape
from monai_segloss.core.companions import parameter_groups
from monai_segloss.core.taps import NetworkShape, Tap
from monai_segloss.losses.learned.heads import HEADS, TaskDecoder
from monai_segloss.losses.learned.tasks import Task, WithTasks
from monai_segloss.testing import cases
from monai_segloss.testing.stand_in import prepared

READS: dict[str, Any] = {"softmax": True, "to_onehot_y": True}
NAMED = {info.key: info.cls for info in monai_segloss.list_losses() if issubclass(info.cls, WithTasks)}
LAMBDAS = {key: [name for name in monai_segloss.find(key).parameters if name.startswith("lambda_")] for key in NAMED}


class UNet(nn.Module):
    """Two levels above the bottleneck, in 2-D or 3-D."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv, up = (nn.Conv2d, nn.ConvTranspose2d) if axes == 2 else (nn.Conv3d, nn.ConvTranspose3d)
        self.down = nn.ModuleList(conv(a, b, 3, s, 1) for a, b, s in ((1, 4, 1), (4, 8, 2), (8, 16, 2)))
        self.up = nn.ModuleList(up(a, b, 2, 2) for a, b in ((16, 8), (8, 4)))
        self.mix = nn.ModuleList(conv(2 * b, b, 3, 1, 1) for b in (8, 4))
        self.last = conv(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for step in self.down:
            x = torch.relu(step(x))
            skips.append(x)
        for up, mix, skip in zip(self.up, self.mix, (skips[1], skips[0]), strict=True):
            x = torch.relu(mix(torch.cat((up(x), skip), 1)))
        out: Tensor = self.last(x)
        return out


def on_a_network(loss: WithTasks, axes: int = 2, size: int = 16) -> tuple[nn.Module, Taps, Tensor]:
    """A network, its taps and an image; the loss is prepared."""
    torch.manual_seed(0)
    network, image = UNet(axes), torch.randn(2, 1, *[size] * axes)
    shape = network_shape(network, image[:1], loss.taps)
    loss.prepare(shape)
    return network, Taps(network, shape), image


def zeroed(loss: WithTasks) -> WithTasks:
    """Heads that give 0 everywhere."""
    for head in loss.heads.values():
        last = getattr(head, "last", head)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return loss


@pytest.mark.parametrize("key", [key for key in NAMED if LAMBDAS[key]])
@pytest.mark.parametrize("name", ["labels_3d", "regions_masked"])
def test_without_weights_it_is_the_plain_loss(key: str, name: str) -> None:
    case = cases.get(name)
    loss = prepared(NAMED[key](**case.reading, **dict.fromkeys(LAMBDAS[key], 0.0), **plain(key)), case.input)
    leaf = case.input.clone().requires_grad_()
    loss.requires_grad_(True)
    found = loss(leaf, case.target, **case.call)
    found.backward()
    same((found.detach(), leaf.grad), both("dice_ce", case))  # type: ignore[arg-type]
    assert all(p.grad is None for p in loss.heads.parameters())
    assert set(loss.last) == {"dice_ce/dice", "dice_ce/cross_entropy"}


def plain(key: str) -> dict[str, Any]:
    return {"balance": None} if "balance" in monai_segloss.find(key).parameters else {}


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("key", NAMED)
def test_gradients_reach_network_and_heads(key: str, axes: int) -> None:
    loss = NAMED[key](base={}, **READS)
    network, taps, image = on_a_network(loss, axes)
    label = (image > 0.5).long() + (image > 1)
    logits = network(image)
    loss(logits, label, **taps.take()).backward()
    for name, p in loss.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0, name
    reached = [name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert "down.0.weight" in reached
    decayed, free = parameter_groups(loss, 1e-3), [*loss.heads.parameters()]
    assert {id(p) for p in decayed[0]["params"]} == {id(p) for p in free}
    assert decayed[0]["weight_decay"] == 1e-3


@pytest.mark.parametrize("key", NAMED)
def test_at_a_coarser_scale_it_is_its_base(key: str) -> None:
    case = cases.get("labels_3d")
    loss = prepared(NAMED[key](**case.reading, **plain(key)), case.input)
    same(loss(case.input, case.target, full_resolution=False), of("dice_ce", case))


def test_heads_that_know_nothing() -> None:
    """Logits 0: ln 2 for what is there or not, the mean of (1/2 - y)^2 for a distance, y^2 for what is linear or tanh."""
    label = torch.zeros(1, 1, 1, 8, dtype=torch.int64)
    label[..., 2:6] = 1  # 1, 2, 2, 1 mm to the outside, voxels of 1 mm
    tasks = {
        "contour": 1.0,
        "distance": {"d_max": 4.0},
        "far": {"target": "distance", "side": "both", "normalize": True, "loss": "absolute"},
        "signed_distance": {"d_max": 2.0},
        "reconstruction": {"loss": "absolute"},
    }
    loss = MultiTaskLoss(base={}, tasks=tasks, **READS)
    features = {"decoder": torch.randn(1, 3, 1, 8), "image": torch.arange(8.0).view(1, 1, 1, 8)}
    taps = {name: Tap("", x.shape[1], (1, 8)) for name, x in features.items()}
    loss.prepare(NetworkShape(2, (1, 8), taps=taps))
    zeroed(loss)(torch.zeros(1, 2, 1, 8), label, spacing=(1.0, 1.0), **features)
    depth = torch.tensor([0, 0, 1, 2, 2, 1, 0, 0]) / 4
    both_sides = torch.tensor([2, 1, 1, 2, 2, 1, 1, 2]) / 2
    signed = torch.tensor([1.5, 0.5, -0.5, -1.5, -1.5, -0.5, 0.5, 1.5]) / 2
    expected = {
        "contour": math.log(2),
        "distance": float(((0.5 - depth) ** 2).mean()),
        "far": float((0.5 - both_sides).abs().mean()),
        "signed_distance": float((signed**2).mean()),
        "reconstruction": 3.5,
    }
    assert {name: float(x) for name, x in loss.last.items()} == pytest.approx(expected, rel=1e-6)


def test_a_head_that_knows_the_image_is_right() -> None:
    """The least value is 0, at the target."""
    loss = MultiTaskLoss(base={}, tasks={"reconstruction": 1.0}, **READS)
    image, label = torch.randn(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    loss.prepare(NetworkShape(2, (4, 4), taps={"decoder": Tap("", 1, (4, 4)), "image": Tap("", 1, (4, 4))}))
    head: Any = zeroed(loss).heads["reconstruction"]
    nn.init.ones_(head.weight)
    assert loss(torch.zeros(2, 2, 4, 4), label, decoder=image, image=image) == 0
    assert loss(torch.zeros(2, 2, 4, 4), label, decoder=image + 1, image=image) == 1


def test_distances_of_an_absent_class_have_no_weight() -> None:
    label = torch.zeros(2, 1, 6, 6, dtype=torch.int64)
    label[0, :, 2:4, 2:4] = 1  # of two classes in two samples one is there
    for target in ("distance", "signed_distance"):
        loss = MultiTaskLoss(base={}, tasks={target: 1.0}, **READS)
        decoder = torch.randn(2, 4, 6, 6)
        loss.prepare(NetworkShape(3, (6, 6), taps={"decoder": Tap("", 4, (6, 6))}))
        alone = loss(torch.zeros(2, 3, 6, 6), label, decoder=decoder, spacing=(1.0, 1.0))
        head: Any = loss.heads[target]
        nn.init.constant_(head.bias[1:], 7.0)  # of the absent class
        assert loss(torch.zeros(2, 3, 6, 6), label, decoder=decoder, spacing=(1.0, 1.0)) == alone
        assert loss(torch.zeros(2, 3, 6, 6), 0 * label, decoder=decoder, spacing=(1.0, 1.0)) == 0
    loss = MultiTaskLoss(base={}, tasks={"contour": 1.0}, **READS)
    loss.prepare(NetworkShape(3, (6, 6), taps={"decoder": Tap("", 4, (6, 6))}))
    assert loss(torch.zeros(2, 3, 6, 6), 0 * label, decoder=decoder) > 0, "an absent class has no contour: it is known"


def test_a_skeleton_is_a_target() -> None:
    label = torch.zeros(1, 1, 12, 20, dtype=torch.int64)
    label[..., 3:8, 2:18] = 1
    line = torch.from_numpy(skeletonize(label[0, 0].numpy() > 0)).float()
    assert 0 < line.sum() < label.sum() / 3
    loss = MultiTaskLoss(base={}, tasks={"skeleton": 1.0}, **READS)
    assert [spec.on_cpu for spec in loss.needs] == [True], "the workers make it"
    loss.prepare(NetworkShape(2, (12, 20), taps={"decoder": Tap("", 1, (12, 20))}))
    head: Any = zeroed(loss).heads["skeleton"]
    nn.init.ones_(head.weight)
    z = torch.randn(1, 1, 12, 20)
    found = loss(torch.zeros(1, 2, 12, 20), label, decoder=z)
    expected = nn.functional.binary_cross_entropy_with_logits(z[0, 0], line)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_learns_its_target(kind: str, axes: int) -> None:
    """On a network that is trained with it."""
    tasks = {"contour": {"head": kind}, "signed_distance": {"head": kind, "d_max": 4.0}}
    loss = MultiTaskLoss(base={}, tasks=tasks, **READS)
    network, taps, image = on_a_network(loss, axes, 8)
    label = torch.zeros_like(image, dtype=torch.int64)
    label[(slice(None), slice(None), *[slice(2, 6)] * axes)] = 1
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=2e-2)
    values = []
    for _ in range(30):
        value = loss(network(image), label, spacing=(1.0,) * axes, **taps.take())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.6 * values[0]


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "linear"])
def test_decoders_end_on_the_grid_of_the_logits(kind: str) -> None:
    """Grids that are halved along some axes only, skips that are coarser than the logits, a single voxel."""
    for sizes in (((16, 12, 5), (8, 6, 5), (4, 3, 3)), ((12, 12, 6), (6, 6, 3), (3, 3, 3)), ((1, 1, 1),) * 3):
        full, once, twice = sizes
        taps = {"skip_0": Tap("", 4, full), "skip_1": Tap("", 6, once), "middle": Tap("", 6, once)}
        taps |= {"bottleneck": Tap("", 32, twice)}
        size = tuple(2 * n if sizes[0][0] == 12 else n for n in full)
        shape = NetworkShape(3, size, taps=taps)
        decoder = TaskDecoder(shape, 2, HEADS[kind][0], "skips" in HEADS[kind])
        features = {name: torch.randn(2, tap.channels, *tap.size) for name, tap in taps.items()}
        found = decoder(features, size)
        assert found.shape == (2, 2, *size)
        assert found.isfinite().all()


def test_contours_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    mask, valid = rng.random((1, 1, 7, 9)) < 0.6, rng.random((1, 1, 7, 9)) < 0.9
    for width in (1, 2):
        for both_sides in (False, True):
            spec = Task("contour", width=width, both_sides=both_sides).map
            assert spec is not None
            found = spec.make(torch.from_numpy(mask), None, torch.from_numpy(valid))
            assert np.array_equal(found[0, 0].numpy(), contour(mask[0, 0], valid[0, 0], width, both_sides))


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ({"contuor": 1.0}, r"tasks: no target is called 'contuor'; did you mean 'contour'\?"),
        ({"rim": {"target": "rim"}}, "tasks: no target is called 'rim'"),
        (
            {"contour": {"d_max": 3}},
            "tasks: contour has no setting 'd_max'. It has head, loss, activation, width",
        ),
        ({"contour": {"head": "deep"}}, "tasks: contour: head must be one of 'linear', 'decoder'"),
        ({"distance": {"loss": "cross_entropy"}}, "tasks: distance: loss 'cross_entropy' wants a target of 0 and 1"),
        ({"distance": {"d_max": 0}}, "tasks: distance: d_max must be above 0"),
        ({"contour": {"width": 1.5}}, "tasks: contour: width must be a whole number"),
        ({"contour": -1}, "tasks: contour: a weight must be a number of at least 0"),
        ({}, "tasks is empty"),
    ],
)
def test_settings_that_do_not_fit(tasks: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MultiTaskLoss(tasks=tasks)


def test_what_a_user_forgets() -> None:
    loss = MultiTaskLoss(tasks={"contour": 1.0, "reconstruction": 1.0}, **READS)
    logits, label = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="MultiTaskLoss is not prepared for a network"):
        loss(logits, label)
    loss.prepare(NetworkShape(2, (4, 4), taps={"decoder": Tap("", 2, (4, 4)), "image": Tap("", 1, (4, 4))}))
    with pytest.raises(ValueError, match="takes decoder, image from the network, and decoder, image did not come"):
        loss(logits, label)
    with pytest.raises(ValueError, match=r"image has shape \(1, 1, 2, 2\); expected \(1, 'channels', 4, 4\)"):
        loss(logits, label, decoder=logits, image=torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"base: no loss is called 'dyce'; did you mean"):
        MultiTaskLoss(base="dyce")
    with pytest.raises(ValueError, match="contour is the name of a term of MultiTaskLoss itself"):
        MultiTaskLoss(base={"contour": {"loss": "dice"}}, tasks={"contour": 1.0})


def on_a_line(loss: WithTasks, z: Tensor, logits: Tensor, label: Tensor, boundary: float) -> dict[str, float]:
    """The terms on a grid of one row whose boundary head gives the same logit everywhere."""
    taps = {"bottleneck": Tap("", 4, (1, 2)), "skip_0": Tap("", 4, tuple(logits.shape[2:]))}
    loss.prepare(NetworkShape(logits.shape[1], tuple(logits.shape[2:]), taps=taps))
    zeroed(loss)
    last: Any = loss.heads["boundary"].last  # type: ignore[union-attr]
    nn.init.constant_(last.bias, boundary)
    loss(logits, label, bottleneck=z, skip_0=torch.zeros(1, 4, *logits.shape[2:]))
    return {name: float(x) for name, x in loss.last.items()}


@pytest.mark.parametrize("where", ["boundary", "foreground"])
@pytest.mark.parametrize(("boundary", "seen"), [(0.0, 0.5), (-20.0, 0.0), (20.0, 1.0)])
def test_what_the_boundary_decoder_misses_weighs_more(where: str, boundary: float, seen: float) -> None:
    """-(1 + b) g log p - (1 - g) log(1 - p) at p = 1/2: ln 2 (1 + the mean of b g), b = alpha max(beta - seen, 0)."""
    label = torch.zeros(1, 1, 1, 8, dtype=torch.int64)
    label[..., 1:7] = 1  # two of its voxels are at the boundary
    loss = monai_segloss.BESNetLoss(base={}, enhancement=0.8, threshold=0.6, where=where, **READS)
    found = on_a_line(loss, torch.zeros(1, 4, 1, 2), torch.zeros(1, 2, 1, 8), label, boundary)
    heavier = 2 if where == "boundary" else 6
    extra = 0.8 * max(0.6 - seen, 0) * heavier / 8
    assert found["enhanced"] == pytest.approx(math.log(2) * (1 + extra), rel=1e-5)
    off, on = (
        nn.functional.softplus(torch.tensor(boundary)).item(),
        nn.functional.softplus(torch.tensor(-boundary)).item(),
    )
    assert found["boundary"] == pytest.approx((4 * on + 4 * off) / 8, rel=1e-5), "both sides of both ends"


def test_the_weight_of_a_boundary_moves_no_boundary_decoder() -> None:
    for where, moved in (("boundary", False), ("foreground", True)):
        loss = monai_segloss.BESNetLoss(base={}, lambda_boundary=0.0, where=where, **READS)
        network, taps, image = on_a_network(loss)
        loss(network(image), (image > 0.5).long(), **taps.take()).backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.heads.parameters()) == moved


def test_the_regularizer_of_distances_weighs_itself() -> None:
    """e^-s1 L + s1/2 + e^-s2 D + s2, from the bottleneck alone."""
    loss = monai_segloss.DistanceRegularizedLoss(**READS)
    assert loss.taps == ("bottleneck",)
    network, taps, image = on_a_network(loss)
    label = (image > 0.5).long()
    with torch.no_grad():
        loss.balance.log_scales.copy_(torch.tensor([0.3, -0.7]))  # type: ignore[union-attr, operator]
    value = loss(network(image), label, **taps.take())
    seg, distance = loss.last["dice_ce/dice"] + loss.last["dice_ce/cross_entropy"], loss.last["distance"]
    expected = math.exp(-0.3) * seg + 0.15 + math.exp(0.7) * distance - 0.7
    torch.testing.assert_close(value.detach(), expected)
    plain_sum = monai_segloss.DistanceRegularizedLoss(balance=None, **READS)
    assert not [name for name, _ in plain_sum.named_parameters()]
