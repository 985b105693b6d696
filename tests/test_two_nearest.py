"""Distances to the nearest and the second nearest instance, against a table of all distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from references.reading import Array

from monai_segloss.kernels import native
from monai_segloss.kernels import two_nearest as module
from monai_segloss.kernels.two_nearest import two_nearest


def by_table(ids: Array, steps: tuple[float, ...]) -> tuple[Array, Array]:
    """From the distances of every voxel to every voxel of every instance."""
    places = np.stack(np.meshgrid(*map(np.arange, ids.shape[1:]), indexing="ij"), -1).reshape(-1, ids.ndim - 1)
    places = places * np.array(steps)
    least = [np.full(len(places), np.inf)] * 2
    for channel in ids.reshape(len(ids), -1):
        for number in np.unique(channel[channel > 0]):
            own = places[channel == number]
            least.append(np.linalg.norm(places[:, None] - own, axis=-1).min(1))
    first, second = np.sort(least, 0)[:2]
    return first.reshape(ids.shape[1:]), second.reshape(ids.shape[1:])


def ids_of(shape: tuple[int, ...], instances: int, channels: int, overlap: bool) -> torch.Tensor:
    """Instances of a few voxels each, which need not be connected."""
    rng = np.random.default_rng(len(shape) + instances)
    ids = np.zeros((channels, *shape), dtype=np.int64)
    for channel in ids.reshape(channels, -1):
        at = rng.permutation(channel.size)[: 3 * instances]
        channel[at] = rng.integers(1, instances + 1, at.size) * 7  # numbers with gaps
    if not overlap:
        ids[1:][:, ids[0] > 0] = 0
        ids[2:][:, ids[:2].any(0)] = 0
    return torch.from_numpy(ids)


@pytest.mark.parametrize("search", [True, False], ids=["search", "transforms"])
@pytest.mark.parametrize(("channels", "overlap"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("instances", [0, 1, 2, 9, 40])
@pytest.mark.parametrize(
    ("shape", "steps"),
    [((60,), (0.7,)), ((19, 12), (3.0, 0.5)), ((7, 1, 22), (2.0, 1.0, 1.5)), ((9, 8, 7), (1.0, 4.0, 0.3))],
)
def test_two_nearest(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    steps: tuple[float, ...],
    instances: int,
    channels: int,
    overlap: bool,
    search: bool,
) -> None:
    if not search:
        monkeypatch.setattr(module, "library", lambda: None)
    elif native.compiler() is None:
        pytest.skip("no C++ compiler")
    else:
        monkeypatch.setattr(module, "FEW", 0)
    ids = ids_of(shape, instances, channels, overlap)
    for found, expected in zip(two_nearest(ids, torch.tensor(steps)), by_table(ids.numpy(), steps), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_threads_agree_and_small_integers_do_not_overflow() -> None:
    ids = ids_of((20, 21, 22), 60, 3, False) // 7
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = two_nearest(ids.to(torch.uint8))
        torch.set_num_threads(1)
        one = two_nearest(ids)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
