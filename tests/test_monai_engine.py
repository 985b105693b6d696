"""The MONAI trainer that serves a loss: maps, epochs, terms, deep supervision, checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, list_data_collate
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, MeanDice, StatsHandler, ValidationHandler, from_engine
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.transforms import AsDiscreted
from monai.utils import set_determinism
from torch import Tensor, nn

from monai_segloss import WeightedSum, create
from monai_segloss.engine import DeepSupervision, ResumableCheckpoint, SegLossTrainer

SIZE = (6, 7, 8)


@dataclass(frozen=True)
class Spec:
    """The part of a map's declaration that the trainer reads."""

    key: str


class MapLoss(nn.Module):
    """Mean of probability times a map: what a distance loss looks like to the trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.needs = (Spec("distance"),)
        self.targets: list[Any] = []
        self.epochs: list[int] = []
        self.last: dict[str, Tensor] = {}

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def forward(self, input: Tensor, target: Any) -> Tensor:
        self.targets.append(target)
        label = target["label"] if isinstance(target, Mapping) else target
        distance = target.get("distance", label) if isinstance(target, Mapping) else label
        self.last = {"map": (input.softmax(1)[:, 1:] * distance).mean(), "size": label.new_tensor(len(self.targets))}
        return self.last["map"]


def samples(count: int = 4, **extra: Tensor) -> list[dict[str, Tensor]]:
    return [
        {"image": torch.randn(1, *SIZE), "label": torch.randint(0, 2, (1, *SIZE)).float(), **extra}
        for _ in range(count)
    ]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Conv3d(1, 2, 3, padding=1)


def trainer(loss: Any, data: list[Any], epochs: int = 1, cls: type = SegLossTrainer, **kwargs: Any) -> Any:
    net = kwargs.pop("net", None) or network()
    kwargs.setdefault("optimizer", torch.optim.SGD(net.parameters(), lr=0.1))
    loader = DataLoader(Dataset(data), batch_size=2, shuffle=False, num_workers=0)
    return cls(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=net,
        loss_function=loss,
        **kwargs,
    )


def to_classes() -> AsDiscreted:
    return AsDiscreted(keys=["pred", "label"], argmax=[True, False], to_onehot=2)


def mean_dice() -> dict[str, Any]:
    return {"dice": MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))}


def test_a_map_that_the_loss_needs_reaches_it_and_nothing_else() -> None:
    loss, data = MapLoss(), samples(distance=torch.full((1, *SIZE), 3.0), other=torch.zeros(1))
    engine = trainer(loss, data, postprocessing=to_classes(), key_train_metric=mean_dice())
    expected = (engine.network(torch.stack([d["image"] for d in data[:2]])).softmax(1)[:, 1] * 3).mean()
    engine.run()
    assert all(sorted(target) == ["distance", "label"] for target in loss.targets)
    assert float(loss.targets[0]["distance"].mean()) == 3.0
    assert engine.state.output[0]["label"].shape == (2, *SIZE)  # one-hot made from the plain label
    assert engine.state.metrics["dice"] > 0
    first = trainer(MapLoss(), data[:2])
    first.run()
    assert first.state.output[0]["loss"] == pytest.approx(expected.item())


def test_a_map_that_the_batch_lacks_is_left_to_the_loss() -> None:
    loss = MapLoss()
    trainer(loss, samples()).run()
    assert all(isinstance(target, Tensor) for target in loss.targets)


def test_target_keys_name_further_entries_of_the_batch() -> None:
    loss = MapLoss()
    trainer(loss, samples(mask=torch.ones(1, *SIZE)), target_keys=["mask"]).run()
    assert sorted(loss.targets[0]) == ["label", "mask"]
    with pytest.raises(KeyError, match="target_keys names 'mask', which is not in the batch"):
        trainer(MapLoss(), samples(), target_keys=["mask"]).run()


def test_arguments_for_the_network_still_arrive() -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = network()

        def forward(self, image: Tensor, factor: Tensor) -> Tensor:
            return self.conv(image) * factor

    loss = MapLoss()
    data = samples(distance=torch.ones(1, *SIZE), factor=torch.zeros(1, 1, 1, 1))
    engine = trainer(loss, data, net=TwoInputs(), prepare_batch=PrepareBatchExtraInput("factor"))
    engine.run()
    assert sorted(loss.targets[0]) == ["distance", "label"]
    assert engine.state.output[0]["pred"].abs().sum() == 0


def test_a_loss_of_monai_trains_as_in_the_stock_trainer() -> None:
    data, nets = samples(), []
    for cls in (SupervisedTrainer, SegLossTrainer):
        engine = trainer(DiceCELoss(softmax=True, to_onehot_y=True), data, epochs=2, cls=cls)
        engine.run()
        nets.append(engine.network)
        assert "loss_dice" not in engine.state.metrics
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_epochs_are_counted_from_zero_and_terms_logged_as_means() -> None:
    loss, logged = MapLoss(), []
    stats = StatsHandler(iteration_log=False, epoch_print_logger=lambda e: logged.append(e.state.metrics["loss_size"]))
    trainer(loss, samples(4), epochs=3, train_handlers=[stats]).run()
    assert loss.epochs == [0, 1, 2]
    assert logged == [1.5, 3.5, 5.5]  # calls 1 and 2, 3 and 4, 5 and 6


def test_weights_of_a_sum_follow_their_schedule() -> None:
    config = {
        "_target_": "monai_segloss.WeightedSum",
        "softmax": True,
        "to_onehot_y": True,
        "terms": {
            "dice": 1,
            "focal": {"weight": {"schedule": "linear", "start": 1, "end": 0, "epochs": 2}, "gamma": 3},
        },
    }
    logged: list[set[str]] = []
    stats = StatsHandler(
        iteration_log=False, epoch_print_logger=lambda engine: logged.append(set(engine.state.metrics))
    )
    loss = ConfigParser({"loss": config}).get_parsed_content("loss")
    trainer(loss, samples(), epochs=3, train_handlers=[stats]).run()
    values = [{name for name in names if name.startswith("loss_")} for names in logged]
    assert values == [{"loss_dice", "loss_focal"}, {"loss_dice", "loss_focal"}, {"loss_dice"}]


def test_deep_supervision_equals_monais() -> None:
    outputs = [torch.randn(2, 3, 16, 12, 9), torch.randn(2, 3, 8, 6, 4), torch.randn(2, 3, 4, 3, 2)]
    label = torch.randint(0, 3, (2, 1, 16, 12, 9)).float()
    loss = DiceCELoss(softmax=True, to_onehot_y=True)
    ours, theirs = DeepSupervision(loss), DeepSupervisionLoss(loss)
    torch.testing.assert_close(ours(outputs, label), theirs(outputs, label))
    torch.testing.assert_close(ours(outputs, label.long()), theirs(outputs, label))
    torch.testing.assert_close(ours(outputs[0], label), loss(outputs[0], label))
    weighted = DeepSupervision(loss, weights=(1, 0, 0.5))(outputs, label)
    torch.testing.assert_close(weighted, DeepSupervisionLoss(loss, weights=[1, 0, 0.5])(outputs, label))


def test_deep_supervision_hands_a_map_on_at_its_own_size_only() -> None:
    loss = MapLoss()
    target = {
        "label": torch.ones(1, 1, 8, 8, 8),
        "mask": torch.ones(1, 1, 8, 8, 8, dtype=torch.bool),
        "distance": torch.ones(1, 1, 8, 8, 8),
    }
    wrapped = DeepSupervision(loss, weights=(1, 0, 0.25))
    value = wrapped([torch.zeros(1, 2, size, size, size) for size in (8, 4, 2)], target)
    assert [sorted(seen) for seen in loss.targets] == [["distance", "label", "mask"], ["label", "mask"]]
    assert loss.targets[1]["mask"].shape == (1, 1, 2, 2, 2)
    assert loss.targets[1]["mask"].dtype == torch.bool
    assert value.item() == pytest.approx(0.5 * 1.25)
    assert float(wrapped.last["map"]) == pytest.approx(0.5 * 1.25)
    wrapped.set_epoch(3)
    assert loss.epochs == [3]
    assert wrapped.needs == loss.needs
    with pytest.raises(ValueError, match="weights has 3 entries, but the network gave 2 outputs"):
        wrapped([torch.zeros(1, 2, 8, 8, 8)] * 2, target)


@pytest.mark.parametrize("shape", [(16, 16), (8, 16, 16)])
def test_deep_supervision_leaves_alone_what_has_no_voxels(shape: tuple[int, ...]) -> None:
    """The labeled classes of each sample, (B, C), are the same at all scales."""
    outputs = [torch.randn(2, 3, *(n // k for n in shape)) for k in (1, 2)]
    label, labeled = torch.randint(0, 3, (2, 1, *shape)), torch.tensor([[1, 1, 0], [1, 0, 1]])
    loss = WeightedSum({"marginal_dice": 1, "exclusion_dice": 1}, softmax=True, to_onehot_y=True)
    found = DeepSupervision(loss)(outputs, {"label": label, "labeled": labeled})
    halved = label[(..., *(slice(1, None, 2) for _ in shape))]
    expected = loss(outputs[0], label, labeled=labeled) + loss(outputs[1], halved, labeled=labeled) / 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sizes", [((16, 12), (8, 6)), ((9, 10, 7), (4, 5, 2))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
def test_deep_supervision_loses_no_point(sizes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> None:
    """The nearest voxel of a coarse grid misses most of them; a larger voxel with a point in it is a point."""
    loss = WeightedSum({"weighted_hausdorff": 1, "dice": 1}, softmax=True, to_onehot_y=True)
    fine, coarse = sizes
    points = torch.zeros(1, 2, *fine).to(dtype)
    for k in range(5):
        points[(0, 1, *(2 * k % n for n in fine))] = 1
    label = {"label": torch.zeros(1, 1, *fine).long(), "points": points}
    found = DeepSupervision(loss)._at(label, torch.Size(coarse))["points"]
    assert found.dtype == dtype
    at = points[0, 1].nonzero() * torch.tensor(coarse) // torch.tensor(fine)
    assert {*map(tuple, found[0, 1].nonzero().tolist())} == {*map(tuple, at.tolist())}
    assert not found[0, 0].any()
    outputs = [torch.zeros(1, 2, *size) for size in sizes]
    assert torch.isfinite(DeepSupervision(loss)(outputs, label))


def test_deep_supervision_keeps_the_grid_of_a_meta_tensor_in_place() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    label = MetaTensor(torch.arange(8.0 * 4 * 2).reshape(1, 1, 8, 4, 2), affine=affine)
    seen: list[MetaTensor] = []

    def loss(output: Tensor, target: MetaTensor) -> Tensor:
        seen.append(target)
        return output.sum()

    DeepSupervision(loss)([torch.zeros(1, 2, 8, 4, 2), torch.zeros(1, 2, 4, 2, 2)], label)
    torch.testing.assert_close(seen[1].affine.diagonal()[:3], torch.tensor([4.0, 6.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(seen[1].affine[:3, 3], torch.tensor([1.0, 1.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(label.affine, affine)


def test_deep_supervision_scales_the_grid_of_each_sample_once() -> None:
    """MONAI hands the metadata of a batch on by reference, so that the batch itself would change with each scale."""
    affines = [
        torch.diag(torch.tensor([*steps, 1.0], dtype=torch.float64)) for steps in ((2.0, 3.0, 1.0), (1.0, 4.0, 0.5))
    ]
    batch = list_data_collate([MetaTensor(torch.zeros(1, 8, 8, 8), affine=affine) for affine in affines])
    seen: list[Tensor] = []

    def loss(output: Tensor, target: MetaTensor) -> Tensor:
        seen.append(target.affine.diagonal(dim1=-2, dim2=-1)[:, :3])
        return output.sum()

    DeepSupervision(loss)([torch.zeros(2, 2, n, n, 8) for n in (8, 4, 2)], batch)
    steps = torch.tensor([[2.0, 3.0, 1.0], [1.0, 4.0, 0.5]], dtype=torch.float64)
    for found, factor in zip(seen, (1.0, 2.0, 4.0), strict=True):
        torch.testing.assert_close(found, steps * torch.tensor([factor, factor, 1.0]))
    torch.testing.assert_close(batch.affine, torch.stack(affines))


def test_deep_supervision_scales_the_grid_of_outputs_too() -> None:
    """A network of MetaTensors gives every output the affine of its input; a plain label has none of its own."""
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    seen: list[Tensor] = []

    def loss(output: MetaTensor, target: Tensor) -> Tensor:
        seen.append(output.affine.diagonal(dim1=-2, dim2=-1)[..., :3].reshape(3))
        return output.sum()

    fine = MetaTensor(torch.zeros(1, 2, 8, 8, 8), affine=affine).requires_grad_()
    outputs = [fine, torch.nn.functional.avg_pool3d(fine, (2, 4, 1))]
    DeepSupervision(loss)(outputs, torch.zeros(1, 1, 8, 8, 8)).sum().backward()
    torch.testing.assert_close(torch.stack(seen), torch.tensor([[2.0, 3, 1], [4, 12, 1]], dtype=torch.float64))
    torch.testing.assert_close(fine.grad, torch.full((1, 2, 8, 8, 8), 1 + 0.5 / 8))


def test_deep_supervision_in_the_trainer() -> None:
    class TwoScales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = network()

        def forward(self, image: Tensor) -> list[Tensor]:
            fine = self.conv(image)
            return [fine, nn.functional.avg_pool3d(fine, 2)]

    loss = MapLoss()
    engine = trainer(DeepSupervision(loss), samples(distance=torch.ones(1, *SIZE)), net=TwoScales(), decollate=False)
    engine.run()
    assert loss.epochs == [0]
    assert engine.state.metrics["loss_map"] > 0
    assert [isinstance(target, Mapping) for target in loss.targets] == [True] * 4


def run(
    folder: Path, epochs: int, data: list[Any], resume: bool = False, loss: Any = None, worse: bool = False
) -> tuple[Any, Any]:
    """Train with validation, a schedule and checkpoints."""
    net = network()
    validator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=net,
        postprocessing=to_classes(),
        key_val_metric=mean_dice(),
        metric_cmp_fn=(lambda now, best: now < best) if worse else (lambda now, best: now > best),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.7**epoch)
    objects = {"model": net, "optimizer": optimizer, "lr_scheduler": schedule}
    handlers = [
        LrScheduleHandler(schedule, print_lr=False),
        ValidationHandler(1, validator),
        ResumableCheckpoint(folder, objects, validator, resume),
    ]
    loss = loss or DiceCELoss(softmax=True, to_onehot_y=True)
    engine = trainer(loss, data, epochs, net=net, optimizer=optimizer, train_handlers=handlers)
    engine.run()
    return engine, validator


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    set_determinism(None)
    data = samples()
    whole, whole_validator = run(tmp_path / "whole", 4, data)
    run(tmp_path / "parts", 2, data)
    resumed, validator = run(tmp_path / "parts", 4, data, resume=True)
    assert (resumed.state.epoch, resumed.state.iteration) == (whole.state.epoch, whole.state.iteration) == (4, 8)
    for ours, theirs in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert validator.state.best_metric == whole_validator.state.best_metric
    best = torch.load(tmp_path / "parts" / "model.pt", weights_only=True)
    assert best.keys() == {"model"}
    assert torch.equal(best["model"]["bias"], torch.load(tmp_path / "whole" / "model.pt")["model"]["bias"])


def test_a_resumed_run_does_not_replace_better_weights_by_worse(tmp_path: Path) -> None:
    data = samples()
    run(tmp_path, 1, data, worse=True)
    kept = copy.deepcopy(torch.load(tmp_path / "model.pt"))
    state = torch.load(tmp_path / "last.pt")
    state["about"]["best_metric"] = -5.0  # nothing is lower
    torch.save(state, tmp_path / "last.pt")
    run(tmp_path, 2, data, resume=True, worse=True)
    assert torch.equal(torch.load(tmp_path / "model.pt")["model"]["bias"], kept["model"]["bias"])
    assert not torch.equal(torch.load(tmp_path / "last.pt")["model"]["bias"], kept["model"]["bias"])


def test_a_run_killed_while_it_writes_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = samples()
    run(tmp_path, 1, data)
    before = (tmp_path / "last.pt").read_bytes()

    def die(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 2, data, resume=True)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data = samples()
    first, _ = run(tmp_path, 2, data, resume=True)  # nothing to resume from: starts
    assert first.state.epoch == 2
    with pytest.raises(ValueError, match="has 2 epochs, more than max_epochs=1"):
        run(tmp_path, 1, data, resume=True)
    with pytest.raises(ValueError, match="was trained with the loss DiceCELoss"):
        run(tmp_path, 3, data, resume=True, loss=MapLoss())
    with pytest.raises(ValueError, match="resume must be True or False, got 'false'"):
        ResumableCheckpoint(tmp_path, {"model": network()}, resume="false")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="objects must have the key 'model'"):
        ResumableCheckpoint(tmp_path, {"net": network()})


def test_a_function_among_the_arguments_is_described_by_its_name() -> None:
    """By its address a resumed training would find that its checkpoint has another loss."""
    described = repr(WeightedSum({"dice": 1}, other_act=torch.sigmoid))
    assert "sigmoid" in described
    assert " at 0x" not in described
    assert repr(WeightedSum({"dice": 1}, other_act=nn.Softmax(1))) != repr(
        WeightedSum({"dice": 1}, other_act=nn.Softmax(2))
    )


def test_without_a_validator_the_last_weights_are_the_model(tmp_path: Path) -> None:
    net = network()
    trainer(MapLoss(), samples(), 2, net=net, train_handlers=[ResumableCheckpoint(tmp_path, {"model": net})]).run()
    assert torch.equal(torch.load(tmp_path / "model.pt")["model"]["bias"], net.bias)


@pytest.mark.parametrize("key", ["skeleton_recall", "dice_ce_skeleton_recall"])
def test_every_scale_of_deep_supervision_is_trained(key: str) -> None:
    """A published trainer keeps the skeleton at one size, and then trains one scale only."""
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    alone = {"lambda_dice": 0, "lambda_ce": 0} if key.startswith("dice") else {}
    loss = create(key, softmax=True, to_onehot_y=True, **alone)
    y = torch.zeros(1, 1, 16, 32).long()
    y[..., 6:10, :] = 1
    (spec,) = loss.needs
    for sent in ({"label": y}, {"label": y, spec.key: spec.make(y == 1)}):
        outputs = [torch.zeros(1, 2, 16 // n, 32 // n, requires_grad=True) for n in (1, 2, 4)]
        value = DeepSupervision(loss)(outputs, sent)
        assert value.item() == pytest.approx((1 + 1 / 2 + 1 / 4) / 2)
        assert all(slope.abs().sum() > 0.1 for slope in torch.autograd.grad(value, outputs))
