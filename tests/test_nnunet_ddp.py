"""Two gloo processes train as one: nnU-Net's distributed branch on the CPU, with its CUDA-only parts replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nnunet_data import Workspace

from nnunet_trainers.diverged import DivergedError

pytest_plugins = "nnunet_fixtures"
pytestmark = pytest.mark.real

WORLD = 2
NAME = "nnUNetTrainerDiceCE_seed1_1epochs_2iterations"
RATIO = "nnUNetTrainerDiceHausdorffDT_2epochs_2iterations"


def fixed_batch(trainer: Any) -> dict[str, Any]:
    """The same batch of two in every process."""
    generator = torch.Generator().manual_seed(0)
    sizes = [trainer.configuration_manager.patch_size]
    sizes += [[size // 2**scale for size in sizes[0]] for scale in range(1, len(trainer.loss.weights))]
    target = [torch.randint(0, 3, (2, 1, *size), generator=generator, dtype=torch.int16) for size in sizes]
    return {"data": torch.randn(2, 1, *sizes[0], generator=generator), "target": target}


def weights_after_a_step(trainer: Any, part: slice) -> dict[str, torch.Tensor]:
    batch = fixed_batch(trainer)
    trainer.network.train()
    trainer.train_step({"data": batch["data"][part], "target": [target[part] for target in batch["target"]]})
    network = trainer.network.module if trainer.is_ddp else trainer.network
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@contextmanager
def joined(rank: int, root: str, configuration: str) -> Iterator[Workspace]:
    """One process of the two, with nnU-Net's parts for CUDA replaced."""
    torch.set_num_threads(1)
    space = Workspace(Path(root))
    os.environ.update(space.variables)
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    dist.init_process_group("gloo", init_method=f"file://{root}/store_{configuration}", rank=rank, world_size=WORLD)
    on_cpu = mock.patch.object(
        module, "DDP", lambda network, device_ids: torch.nn.parallel.DistributedDataParallel(network)
    )
    try:
        with on_cpu:
            yield space
    finally:
        dist.destroy_process_group()


def work(rank: int, root: str, configuration: str) -> None:
    """One process: a step on half of the fixed batch, then a whole training."""
    with joined(rank, root, configuration) as space:
        first = cpu_trainer(space, configuration)
        first.initialize()
        assert first.batch_size == 1
        torch.save(weights_after_a_step(first, slice(rank, rank + 1)), f"{root}/{configuration}_{rank}.pt")
        whole = cpu_trainer(space, configuration)
        whole.run_training()


def follow_a_ratio(rank: int, root: str, configuration: str) -> None:
    """One process: two epochs of a loss whose weights follow the means of its terms."""
    with joined(rank, root, configuration) as space:
        trainer = cpu_trainer(space, configuration, RATIO)
        own: list[dict[str, torch.Tensor]] = []
        step = trainer.train_step

        def watched(batch: dict[str, Any]) -> Any:
            result = step(batch)
            own.append({name: value.clone() for name, value in trainer.loss.last.items()})
            return result

        trainer.train_step = watched
        trainer.run_training()
        first = {name: sum(float(each[name]) for each in own[:2]) / 2 for name in own[0]}
        torch.save({"weights": trainer.loss.term_weights, "means": first}, f"{root}/ratio_{rank}.pt")


def lose_it(rank: int, root: str, configuration: str) -> None:
    """One process: its loss becomes infinite in the last process alone, in the last step of the first epoch."""
    with joined(rank, root, configuration) as space:
        trainer = cpu_trainer(space, configuration, RATIO)
        step, steps = trainer.train_step, []

        def watched(batch: dict[str, Any]) -> Any:
            steps.append(1)
            if rank == WORLD - 1 and len(steps) == 2:
                batch["data"] = batch["data"] * float("inf")
            return step(batch)

        trainer.train_step = watched
        with pytest.raises(DivergedError) as caught:
            trainer.run_training()
        torch.save({"message": str(caught.value), "steps": len(steps)}, f"{root}/lost_{rank}.pt")


def cpu_trainer(space: Workspace, configuration: str, name: str = NAME) -> Any:
    trainer = space.trainer(name, configuration=configuration)
    assert trainer.is_ddp
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    return trainer


@pytest.mark.parametrize("configuration", ["tiny_batch"])
def test_two_processes_step_as_one(space: Workspace, configuration: str) -> None:
    alone = space.trainer(NAME, configuration=configuration)
    alone.initialize()
    wanted = weights_after_a_step(alone, slice(0, 2))
    mp.spawn(work, (str(space.root), configuration), nprocs=WORLD)
    first, second = (torch.load(space.root / f"{configuration}_{rank}.pt") for rank in range(WORLD))
    start = space.trainer(NAME, configuration=configuration)
    start.initialize()
    before = start.network.state_dict()
    for name, value in wanted.items():
        assert torch.equal(first[name], second[name])
        # the scale that has weight 0 has 1e-6 in nnU-Net's distributed branch
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)
    assert any((before[name] - wanted[name]).abs().max() > 1e-3 for name in wanted)
    model = space.model(NAME, configuration=configuration)
    assert (model / "fold_0" / "checkpoint_final.pth").is_file()


def test_a_ratio_is_that_of_all_processes(space: Workspace) -> None:
    """Each process sees other patches; the weight of the next epoch is one for all."""
    mp.spawn(follow_a_ratio, (str(space.root), "tiny_batch"), nprocs=WORLD)
    first, second = (torch.load(space.root / f"ratio_{rank}.pt") for rank in range(WORLD))
    assert first["weights"] == second["weights"]
    assert first["means"] != second["means"]
    means = {name: (first["means"][name] + second["means"][name]) / 2 for name in ("dice", "hausdorff_dt")}
    assert first["weights"]["hausdorff_dt"] == pytest.approx(means["dice"] / means["hausdorff_dt"], rel=1e-5)


def test_a_loss_that_one_process_loses_ends_all(space: Workspace) -> None:
    mp.spawn(lose_it, (str(space.root), "tiny"), nprocs=WORLD)
    first, second = (torch.load(space.root / f"lost_{rank}.pt") for rank in range(WORLD))
    assert first == second
    assert first["steps"] == 2
    assert "in 1 of 4 iterations, and so are weights of the network" in first["message"]
    assert not list((space.model(RATIO) / "fold_0").glob("*.pth"))
