"""What is trained against the network: when, on what, by whom, and what is kept of it."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.functional import one_hot

import monai_segloss
from monai_segloss import NetworkShape
from monai_segloss.core.companions import learnable, parameter_groups, share_between_processes
from monai_segloss.core.opponent import FORGOTTEN, Opponent, OpponentError
from monai_segloss.engine import prepared
from monai_segloss.losses.learned import patches
from monai_segloss.losses.learned.adversarial import CRITERIA, smoothed

KEYS = {"adversarial": "discriminator", "multi_scale_l1": "critic"}
READING: dict[str, Any] = {"softmax": True, "to_onehot_y": True}
SIZE = (12, 12)


def made(key: str = "adversarial", size: tuple[int, ...] = SIZE, **arguments: Any) -> Any:
    """A loss prepared for three classes, always with the same opponent."""
    torch.manual_seed(0)
    loss = monai_segloss.create(key, **{**READING, **arguments})
    loss.prepare(NetworkShape(classes=3, size=size))
    return loss


def opponent(loss: Any) -> Opponent:
    return next(iter(loss.opponents.values()))


def batch(seed: int = 1, size: tuple[int, ...] = SIZE) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels, image."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, *size, generator=random).requires_grad_()
    return logits, torch.randint(0, 3, (2, 1, *size), generator=random), torch.randn(2, 1, *size, generator=random)


def weights(loss: Any) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in opponent(loss).network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def step(loss: Any, seed: int = 1) -> Tensor:
    """One step of the opponent on a batch."""
    logits, label, image = batch(seed)
    loss(logits, label, image=image)
    (value,) = loss.update().values()
    return value


# -- formulas --------------------------------------------------------------------------------------------------------


def test_criteria_on_raw_logits() -> None:
    zero, far = torch.zeros(()), torch.linspace(1, 5, 9)
    bce, squares, hinge = CRITERIA["bce"], CRITERIA["least_squares"], CRITERIA["hinge"]
    assert bce.real(zero).item() == bce.fake(zero).item() == pytest.approx(math.log(2))
    torch.testing.assert_close(
        bce.real(far), nn.functional.binary_cross_entropy_with_logits(far, torch.ones(9), reduction="none")
    )
    assert squares.fake(torch.tensor(-5.0)).item() == 25
    assert ((squares.real(torch.tensor(0.5)) + squares.fake(torch.tensor(0.5))) / 2).item() == 0.25
    assert not hinge.real(far).any()
    assert not hinge.fake(-far).any()
    assert hinge.real(zero).item() == hinge.fake(zero).item() == 1
    z = torch.randn(4, requires_grad=True)
    (slope,) = torch.autograd.grad(hinge.fooled(z).sum(), z)
    assert torch.equal(slope, -torch.ones(4))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_loss_of_the_discriminator_is_the_mean_over_both(criterion: str) -> None:
    """Of a discriminator that says the same of everything it is the closed form."""

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logit = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.logit * torch.ones_like(x[:, :1])

    loss = made(criterion=criterion)
    loss.opponents["discriminator"] = Opponent(Constant())
    expected = {
        "bce": (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5))) / 2,
        "least_squares": 0.25,
        "hinge": 1.0,
    }
    assert step(loss).item() == pytest.approx(expected[criterion])


def test_smoothing_keeps_the_sum_of_the_classes() -> None:
    y = one_hot(torch.tensor([[0, 2, 1]]), 3).movedim(-1, 1).float()
    torch.testing.assert_close(smoothed(y, 0.3, independent=False).sum(1), torch.ones(1, 3))
    assert smoothed(y, 0.3, independent=False).unique().tolist() == pytest.approx([0.1, 0.8])
    assert smoothed(y, 0.1, independent=True).unique().tolist() == pytest.approx([0.05, 0.95])


@pytest.mark.parametrize("bound", [0.05, 0.0])
def test_a_right_prediction_costs_nothing_whatever_the_critic(bound: float) -> None:
    loss = made("multi_scale_l1", base={}, bound=bound)
    _, label, image = batch()
    right = one_hot(label[:, 0], 3).movedim(-1, 1).float()
    reads = monai_segloss.create("multi_scale_l1", base={}, bound=bound, to_onehot_y=True)
    reads.prepare(loss.shape)
    for seed in range(3):
        torch.manual_seed(seed)
        for each in opponent(reads).network.parameters():
            nn.init.normal_(each)
        assert reads(right, label, image=image).item() == pytest.approx(0, abs=1e-5)
        assert reads(right.roll(1, 2), label, image=image).item() > 0.1


def test_the_critic_that_changes_nothing_measures_the_image_under_the_errors() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> list[Tensor]:
            return [x]

    loss = made("multi_scale_l1", base={})
    loss.opponents["critic"] = Opponent(Same())
    logits, label, image = batch()
    y = one_hot(label[:, 0], 3).movedim(-1, 1)
    seen = image - image.amin((2, 3), keepdim=True)
    expected = (seen * (logits.softmax(1) - y).abs()).mean()
    torch.testing.assert_close(loss(logits, label, image=image), expected)


@pytest.mark.parametrize("bound", [0.05, 0.0])
def test_a_step_of_the_critic_enlarges_the_distance(bound: float) -> None:
    loss = made("multi_scale_l1", base={}, critic_lr=1e-4, bound=bound)
    logits, label, image = batch()
    values = []
    for _ in range(4):
        values.append(loss(logits, label, image=image).item())
        assert -loss.update()["critic"].item() == pytest.approx(values[-1], rel=1e-3)  # its power iteration goes on
    assert values == sorted(values)
    assert values[-1] > values[0]


def test_steps_of_the_discriminator_tell_labels_from_predictions() -> None:
    loss = made()
    values = [step(loss).item() for _ in range(30)]
    assert values[0] == pytest.approx(math.log(2), abs=0.1)
    assert values[-1] < values[0] - 0.05


def test_smoothing_acts_in_the_step_alone() -> None:
    plain, smooth = (made(label_smoothing=e) for e in (0.0, 0.4))
    logits, label, image = batch()
    assert torch.equal(plain(logits, label, image=image), smooth(logits, label, image=image))
    assert plain.update() != smooth.update()


# -- whose gradient, which parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_each_step_reaches_its_own_network(key: str) -> None:
    loss = made(key, base={})
    segmenter = nn.Conv2d(1, 3, 3, padding=1)
    _, label, image = batch()
    theirs = list(opponent(loss).network.parameters())
    for _ in range(2):
        loss(segmenter(image), label, image=image).backward()
        assert all(p.grad is None for p in theirs)
        assert segmenter.weight.grad is not None
        assert segmenter.weight.grad.any()
        segmenter.zero_grad()
        before = weights(loss)
        loss.update()
        opponent(loss).optimizer.zero_grad()
        assert not same(before, weights(loss))
        assert segmenter.weight.grad is None


@pytest.mark.parametrize("key", KEYS)
def test_the_optimizer_of_the_network_never_sees_it(key: str) -> None:
    loss = made(key)
    assert not learnable(loss)
    assert not parameter_groups(loss, 1e-5)
    assert not list(loss.named_parameters())
    assert not [name for name in loss.state_dict() if "opponents." in name]


def test_its_gradient_is_clipped() -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3))

    net = Steep()
    against = Opponent(net, clip=0.5)
    against.remember(torch.ones(1, requires_grad=True))
    against.step(lambda network, x: 1e4 * (network.w * x).sum())
    assert net.w.grad is not None
    assert net.w.grad.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_weights_of_a_critic_stay_bounded() -> None:
    loss = made("multi_scale_l1", critic_lr=0.01)
    for seed in range(5):
        step(loss, seed)
        largest = max(p.abs().max().item() for p in opponent(loss).network.parameters())
        assert largest == pytest.approx(0.05)


def test_spectral_norm() -> None:
    for key, arguments in (("adversarial", {}), ("multi_scale_l1", {"bound": 0})):
        loss = made(key, **arguments)
        for parameter in opponent(loss).network.parameters():
            parameter.data *= 10
        for seed in range(40):
            step(loss, seed)
        for module in opponent(loss).network.modules():
            if isinstance(module, patches.PatchConv):
                found = torch.linalg.matrix_norm(module.scaled().detach().flatten(1), ord=2).item()
                assert found == pytest.approx(1, abs=0.2), "one step of the power iteration follows"


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_grid_has_a_judgement(axes: int) -> None:
    for size in (1, 2, 3, 31):
        x = torch.randn(1, 2, *(size,) * axes)
        for spectral in (True, False):
            found = patches.LabelDiscriminator(axes, 2, 4, spectral)(x)
            assert found.shape == (1, 1, *(math.ceil(size / 8),) * axes)
            assert found.isfinite().all()
    seen = torch.zeros(1, 1, *(65,) * axes, requires_grad=True)
    net = patches.LabelDiscriminator(axes, 1, 2, True)
    (slope,) = torch.autograd.grad(net(seen)[(0, 0, *(4,) * axes)], seen)
    line = slope.flatten(3).abs().sum(-1)[0, 0] if axes > 1 else slope[0, 0].abs()
    assert int((line > 0).sum()) <= 31, "each logit judges 31 voxels per axis"


# -- when, and on what -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_validation_trains_nothing(key: str) -> None:
    loss = made(key)
    logits, label, image = batch()
    with torch.no_grad():
        loss(logits, label, image=image)
    loss(logits.detach(), label, image=image)
    assert loss.update() == {}
    loss(logits, label, image=image)
    before = weights(loss)
    with torch.no_grad():
        loss(logits, label, image=image)
    assert set(loss.update()) == {KEYS[key]}
    assert not same(before, weights(loss))
    assert loss.update() == {}


def test_of_several_calls_the_last_counts() -> None:
    one, other = made(), made()
    for seed in (1, 2):
        logits, label, image = batch(seed)
        one(logits, label, image=image)
    one.update()
    step(other, 2)
    assert same(weights(one), weights(other))


def test_a_forgotten_update_is_said_once() -> None:
    loss = made(features=1)
    logits, label, image = batch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2 * FORGOTTEN + 5):
            loss(logits, label, image=image)
    assert [str(each.message) for each in caught] == [
        "the loss was called 100 times in training and its LabelDiscriminator was not trained once: call loss.update() "
        "after each step of the optimizer."
    ]


@pytest.mark.parametrize("key", KEYS)
def test_in_the_first_epochs_it_rests(key: str) -> None:
    loss, plain = made(key, warmup=2), monai_segloss.create("dice_ce", **READING)
    logits, label, image = batch()
    before = weights(loss)
    for epoch in range(2):
        loss.set_epoch(epoch)
        assert loss(logits, label, image=image) == plain(logits, label)
        assert loss.update() == {}
    assert same(before, weights(loss))
    loss.set_epoch(2)
    assert loss(logits, label, image=image) != plain(logits, label)
    assert loss.update()
    with pytest.raises(ValueError, match=r"warmup=2: .*_weight is a schedule"):
        made(key, warmup=2, **{f"{'critic' if 'multi' in key else 'adversarial'}_weight": {"schedule": "increase"}})


@pytest.mark.parametrize("key", KEYS)
def test_coarser_scales_are_not_judged(key: str) -> None:
    loss = made(key)
    logits, label, _ = batch()
    plain = monai_segloss.create("dice_ce", **READING)
    assert loss(logits, label, full_resolution=False) == plain(logits, label)
    assert loss.update() == {}


@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("key", KEYS)
def test_it_sees_nothing_of_ignored_voxels(key: str, kind: str) -> None:
    """Neither prediction nor label nor image, whatever they hold."""
    regions = kind == "regions"
    logits, label, image = batch()
    target = one_hot(label[:, 0], 3).movedim(-1, 1).bool() if regions else label
    mask = torch.rand(label.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    reading = {"softmax": not regions, "sigmoid": regions, "to_onehot_y": not regions}
    found = []
    for junk in (0.0, 7.0, torch.nan):
        loss = made(key, base={}, **reading)
        sent = torch.where(mask, logits.detach(), junk).requires_grad_()
        value = loss(sent, torch.where(mask, target, 1), image=torch.where(mask, image, junk), mask=mask)
        seen = opponent(loss)._batch
        assert seen is not None
        p, y, picture = seen[:3]
        for each in (p, y, picture):
            assert not each[(~mask).expand_as(each)].any()
        found.append((value, next(iter(loss.update().values()))))
    assert len({(value.item(), own.item()) for value, own in found}) == 1
    if key == "adversarial":
        whole = loss.discriminator_loss(lambda x: x[:, :3], p, y, None, mask, regions)
        smooth = patches.counted(smoothed(y.float(), 0.1, regions), mask)
        criterion = CRITERIA["bce"]
        torch.testing.assert_close(whole, (criterion.real(smooth).mean() + criterion.fake(p).mean()) / 2)


# -- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("key", KEYS)
def test_half_precision_logits(key: str, dtype: torch.dtype) -> None:
    """Under autocast too it is computed in float32, so that its gradient does not vanish and needs no scaler."""
    loss, full = made(key).half(), made(key)
    logits, label, image = batch()
    low = logits.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (1e-3 * loss(low, label, image=image)).backward()
        found = loss.update()
    assert low.grad is not None
    assert low.grad.dtype == dtype
    assert {x.dtype for x in opponent(loss).network.state_dict().values()} == {torch.float32}
    full(low.float(), label, image=image)
    assert found == full.update()
    assert same(weights(loss), weights(full))


def test_it_is_moved_with_the_loss() -> None:
    loss = made()
    step(loss)
    against = opponent(loss.double())
    state = next(iter(against.optimizer.state.values()))
    assert against.dtype == state["exp_avg"].dtype == torch.float64
    logits, label, image = batch(2)
    loss(logits.double(), label, image=image.double())
    assert loss.update()["discriminator"].dtype == torch.float64


# -- what is not finite ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_a_prediction_that_overflows_is_left_out(key: str) -> None:
    """As mixed precision leaves out the step of the network; the end of the epoch sees whether that comes back."""
    loss = made(key)
    step(loss)
    before = copy.deepcopy(opponent(loss).state_dict())
    logits, label, image = batch()
    with torch.no_grad():
        logits[0, 0, 0, 0] = torch.nan
    loss(logits, label, image=image)
    (value,) = loss.update().values()
    assert value.isnan()
    after = opponent(loss).state_dict()
    learned = [name for name, _ in opponent(loss).network.named_parameters()]
    assert all(torch.equal(before["network"][name], after["network"][name]) for name in learned)
    assert all(x.isfinite().all() for x in after["network"].values())
    assert before["steps"] == after["steps"] == 1
    assert step(loss, 2).isfinite()


@pytest.mark.parametrize(("key", "name"), [("adversarial", "LabelDiscriminator"), ("multi_scale_l1", "PatchCritic")])
def test_an_opponent_that_diverges_ends_the_training(key: str, name: str) -> None:
    loss = made(key)
    step(loss)
    logits, label, image = batch()
    loss(logits, label, image=image)
    with torch.no_grad():
        next(opponent(loss).network.parameters()).fill_(torch.inf)
    with pytest.raises(
        OpponentError, match=f"the {name} that is trained .* has diverged after 1 steps: its loss is"
    ) as caught:
        loss.update()
    assert "\n" not in str(caught.value)


# -- what is kept ----------------------------------------------------------------------------------------------------


def saved(state: Any) -> Any:
    """As a checkpoint has it, read without pickle."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


WAYS: dict[str, Callable[[Any], Any]] = {
    "state": lambda loss: restored(loss, saved(loss.state_dict())),
    "state in memory": lambda loss: restored(loss, loss.state_dict()),
    "deepcopy": copy.deepcopy,
    "pickle": lambda loss: pickle.loads(pickle.dumps(loss)),
}


def restored(loss: Any, state: Any) -> Any:
    other = monai_segloss.create(loss_key(loss), **{**READING, **loss.arguments})
    other.prepare(loss.shape)
    other.load_state_dict(state)
    return other


def loss_key(loss: Any) -> str:
    return next(info.key for info in monai_segloss.list_losses() if info.cls is type(loss))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", KEYS)
def test_it_goes_on_to_the_last_bit(key: str, way: str) -> None:
    loss = made(key)
    for seed in range(3):
        step(loss, seed)
    other = WAYS[way](loss)
    assert opponent(other).steps == 3
    for seed in (4, 5):
        assert torch.equal(step(loss, seed), step(other, seed))
    assert same(weights(loss), weights(other))
    step(loss, 6)
    assert not same(weights(loss), weights(other)), "they share nothing"
    mine, theirs = (next(iter(opponent(x).optimizer.state.values()))["exp_avg"] for x in (loss, other))
    assert not torch.equal(mine, theirs)


def test_no_copy_holds_a_batch() -> None:
    loss = made()
    small = len(pickle.dumps(loss))
    logits, label, image = batch()
    loss(logits, label, image=image)
    assert len(pickle.dumps(loss)) < small + 2000
    assert copy.deepcopy(loss).update() == {}
    assert pickle.loads(pickle.dumps(loss)).update() == {}
    assert loss.update()


def test_a_state_of_other_opponents_is_refused() -> None:
    loss = monai_segloss.create("adversarial", **READING)
    said = r"the state has the opponents \['discriminator'\] and AdversarialLoss \[\]: prepare the loss"
    with pytest.raises(RuntimeError, match=said):
        loss.load_state_dict(made().state_dict())


def test_as_a_term_of_a_sum() -> None:
    terms = {"dice_ce": 1.0, "adversarial": {"base": {}, "weight": 1.0}}
    loss = monai_segloss.WeightedSum(terms, **READING)
    torch.manual_seed(0)
    loss.prepare(NetworkShape(classes=3, size=SIZE))
    logits, label, image = batch()
    torch.testing.assert_close(loss(logits, label, image=image), made()(logits, label, image=image))
    assert set(loss.update()) == {"adversarial/discriminator"}
    twin = monai_segloss.WeightedSum(terms, **READING)
    twin.prepare(NetworkShape(classes=3, size=SIZE))
    twin.load_state_dict(saved(loss.state_dict()))
    assert same(weights(loss.terms["adversarial"]), weights(twin.terms["adversarial"]))


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_what_does_not_fit_is_one_sentence(key: str) -> None:
    logits, label, image = batch()
    with pytest.raises(RuntimeError, match=r"Loss is not prepared for a network: call loss\.prepare"):
        monai_segloss.create(key, **READING)(logits, label, image=image)
    loss = made(key)
    with pytest.raises(ValueError, match="takes image from the network, and image did not come"):
        loss(logits, label)
    with pytest.raises(ValueError, match=r"image has shape \(2, 2, 12, 12\); expected \(2, 1, 12, 12\)"):
        loss(logits, label, image=image.repeat(1, 2, 1, 1))
    with pytest.raises(ValueError, match=r"image has shape \(2, 1, 6, 6\)"):
        loss(logits, label, image=image[:, :, ::2, ::2])
    with pytest.raises(ValueError, match=r"input has shape \(2, 2, 12, 12\); \w+ is prepared for 3 channels on 2 axes"):
        loss(logits[:, :2], label.clamp(max=1), image=image)
    with pytest.raises(RuntimeError, match="is prepared already"):
        loss.prepare(loss.shape)
    for name, bad in {
        "features": 0,
        "warmup": -1,
        **({"bound": -1.0} if "multi" in key else {"criterion": "wgan"}),
    }.items():
        with pytest.raises(ValueError, match=name):
            made(key, **{name: bad})


# -- several processes -----------------------------------------------------------------------------------------------


def work(rank: int, folder: str, key: str) -> None:
    """One process with half of each batch and, at first, weights of its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        loss = made(key)
        if rank:
            for each in opponent(loss).network.parameters():
                nn.init.normal_(each)
        share_between_processes(loss)
        values = [half_step(loss, seed, slice(rank, rank + 1)) for seed in range(3)]
        trained = weights(loss)
        spoilt = half_step(loss, 0, slice(rank, rank + 1), junk=torch.nan if rank else 1.0)
        torch.save({"values": values, "weights": trained, "spoilt": spoilt}, Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def half_step(loss: Any, seed: int, part: slice, junk: float = 1.0) -> Tensor:
    logits, label, image = batch(seed)
    sent = (logits[part].detach() * junk).requires_grad_()
    loss(sent, label[part], image=image[part])
    (value,) = loss.update().values()
    return value


@pytest.mark.slow
@pytest.mark.parametrize("key", ["adversarial", pytest.param("multi_scale_l1", marks=pytest.mark.nightly)])
def test_two_processes_train_one_opponent(key: str, tmp_path: Path) -> None:
    """Equal weights in both, which are those of one process with the whole batch; an overflow in one is left out by both."""
    mp.start_processes(work, args=(str(tmp_path), key), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert same(first["weights"], second["weights"])
    assert torch.equal(torch.stack(first["values"]), torch.stack(second["values"]))
    assert first["spoilt"].isnan()
    assert second["spoilt"].isnan()
    alone = made(key)
    expected = torch.stack([step(alone, seed) for seed in range(3)])
    torch.testing.assert_close(torch.stack(first["values"]), expected, rtol=1e-4, atol=1e-5)
    for name, value in weights(alone).items():
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-3, atol=2e-4)


def prepare_for_monai(rank: int, folder: str) -> None:
    """One process that prepares a loss for its network, with random numbers of its own."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.manual_seed(rank)
        loss = monai_segloss.create("adversarial", **READING)
        prepared(loss, nn.Conv2d(1, 3, 1), 1, SIZE)
        torch.save(weights(loss), Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.nightly
def test_two_processes_of_monai_begin_with_one_opponent(tmp_path: Path) -> None:
    mp.start_processes(prepare_for_monai, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert same(first, second)
