"""Losses whose weights change with the epoch in MONAI: log, deep supervision, kill and resume."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.handlers import StatsHandler
from torch import Tensor, nn

import monai_segloss
from monai_segloss.bundle import overlay
from monai_segloss.engine import DeepSupervision, ResumableCheckpoint, SegLossTrainer

SIZE = (8, 8, 6)
READS = {"softmax": True, "to_onehot_y": True}
SCHEDULED = [info for info in monai_segloss.list_losses("schedule") if info.family == "compound"]


class Killed(BaseException):
    """What ends a training in a test."""


def samples() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    label = torch.zeros(1, *SIZE)
    label[:, 2:6, 2:6, 1:4] = 1
    return [{"image": label + torch.randn(1, *SIZE, generator=generator), "label": label} for _ in range(4)]


class TwoScales(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = self.conv(image)
        return [fine, nn.functional.avg_pool3d(fine, 2)]


def train(
    loss: Any, epochs: int, folder: Path | None = None, resume: bool = False, killed_in: int = -1, deep: bool = False
) -> tuple[list[dict[str, float]], Any]:
    """The metrics of each epoch, and the trainer; killed in the middle of the epoch of that number, counted from 1."""
    torch.manual_seed(1)
    net: nn.Module = TwoScales() if deep else nn.Conv3d(1, 2, 3, padding=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    metrics: list[dict[str, float]] = []
    handlers: list[Any] = [
        StatsHandler(iteration_log=False, epoch_print_logger=lambda engine: metrics.append(dict(engine.state.metrics)))
    ]
    if folder is not None:
        handlers.append(ResumableCheckpoint(folder, {"model": net, "optimizer": optimizer}, resume=resume))
    engine = SegLossTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(Dataset(samples()), batch_size=2, num_workers=0),
        network=net,
        optimizer=optimizer,
        loss_function=loss,
        train_handlers=handlers,
        decollate=not deep,
    )
    step = engine._iteration

    def dying(*args: Any) -> Any:
        if engine.state.epoch == killed_in and engine.state.iteration % 2 == 0:
            raise Killed
        return step(*args)

    engine._process_function = dying
    if killed_in < 0:
        engine.run()
    else:
        with pytest.raises(Killed):
            engine.run()
    return metrics, engine


@pytest.mark.parametrize("info", SCHEDULED, ids=lambda info: info.key)
def test_a_killed_training_ends_as_an_uninterrupted_one(info: monai_segloss.LossInfo, tmp_path: Path) -> None:
    """Weights and values of every epoch, and the network, to the last bit."""

    def make() -> Any:
        return ConfigParser(overlay(info)).get_parsed_content("loss")

    whole, engine = train(make(), 4)
    first, _ = train(make(), 4, tmp_path, killed_in=3)
    second, resumed = train(make(), 4, tmp_path, resume=True)
    assert first[:2] + second == whole
    weights = [{name: value for name, value in each.items() if name.startswith("weight_")} for each in whole]
    assert all(each != weights[0] for each in weights[1:]), "nothing follows the epoch"
    for ours, theirs in zip(resumed.network.parameters(), engine.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_and_values_are_metrics_of_the_epoch() -> None:
    loss = monai_segloss.create("dice_boundary", **READS)
    metrics, _ = train(loss, 3)
    for epoch, found in enumerate(metrics):
        assert set(found) == {"loss_dice", "loss_boundary", "weight_dice", "weight_boundary"}
        assert found["weight_boundary"] == pytest.approx(0.01 * (epoch + 1))
        assert found["weight_dice"] == pytest.approx(1 - 0.01 * (epoch + 1))


@pytest.mark.parametrize("deep", [False, True])
def test_a_ratio_follows_the_epoch_before(deep: bool) -> None:
    loss = monai_segloss.create("dice_hausdorff_dt", **READS)
    metrics, _ = train(DeepSupervision(loss) if deep else loss, 3, deep=deep)
    assert metrics[0]["weight_hausdorff_dt"] == 0.01
    for before, found in pairwise(metrics):
        assert found["weight_hausdorff_dt"] == pytest.approx(before["loss_dice"] / before["loss_hausdorff_dt"])


def test_a_loss_without_terms_has_no_weights() -> None:
    metrics, _ = train(monai_segloss.create("dice_ce", **READS), 1)
    assert set(metrics[0]) == {"loss_dice", "loss_cross_entropy"}
