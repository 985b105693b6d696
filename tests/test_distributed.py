"""Two gloo processes that share a batch give the value and the gradient of one process that has it all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import monai_segloss
from monai_segloss.core.registry import LossInfo
from monai_segloss.testing.cases import Case
from monai_segloss.testing.harness import assert_close, gradient, make, supported

WORLD = 2
PROPERTY = "shards_equal_the_batch"
ENTRIES = monai_segloss.list_losses()
Found = dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]]


def arguments(info: LossInfo) -> dict[str, Any]:
    """Statistics over the batch where the loss has them."""
    return {"batch": True} if "batch" in info.parameters else {}


def batches(info: LossInfo) -> list[Case]:
    """Batches of two; the mean of voxels is per process, so only tables of the batch are tried with ignored voxels."""
    found = supported(info, "labels_3d", "regions", "empty_class")
    if info.family == "region":
        for case in supported(info, "ignored", "regions"):
            one_left = case.valid & torch.tensor([True, False]).view(2, *[1] * (case.input.ndim - 1))
            found.append(replace(case, name=f"{case.name}, one sample ignored", mask=one_left))
    return found


def shard(case: Case, rank: int) -> Case:
    part = slice(rank, rank + 1)
    mask = None if case.mask is None else case.mask[part]
    return replace(case, input=case.input[part], target=case.target[part], mask=mask)


def work(rank: int, folder: str) -> None:
    """One process: value and gradient of every loss on its half of every case."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    try:
        found = {
            (info.key, case.name): gradient(make(info, case, **arguments(info)), shard(case, rank))
            for info in monai_segloss.list_losses()
            for case in batches(info)
        }
        torch.save(found, Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_shards_equal_the_batch(tmp_path: Path) -> None:
    """DistributedDataParallel averages gradients, and so does the sum over ranks divided by their number here."""
    mp.start_processes(work, args=(str(tmp_path),), nprocs=WORLD, start_method="spawn")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(WORLD)]
    wrong = {}
    for info in ENTRIES:
        try:
            check(info, ranks)
            failed = ""
        except AssertionError as error:
            failed = str(error)
        if bool(failed) != (PROPERTY in info.exempt):
            wrong[info.key] = failed or f"is exempt from {PROPERTY}, but it holds"
    assert not wrong, "\n".join(f"{key}: {text}" for key, text in wrong.items())
    first, second = (found["dice", "labels_3d"][0] for found in ranks)
    assert first == second, "with batch=True both processes see the value of the whole batch"


def check(info: LossInfo, ranks: list[Found]) -> None:
    for case in batches(info):
        expected, slope = gradient(make(info, case, **arguments(info)), case)
        values, slopes = zip(*(found[info.key, case.name] for found in ranks), strict=True)
        assert_close(torch.stack(values).mean(), expected, f"{case.name}: value", rtol=1e-10)
        assert_close(torch.cat(slopes) / WORLD, slope, f"{case.name}: gradient", rtol=1e-8, atol=1e-12)
