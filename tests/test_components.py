"""Components, their cells and the sums over them, against SciPy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from monai_segloss.kernels import components
from monai_segloss.kernels.components import Segments, connected_components, nearest_component

SHAPES = [(1,), (9, 7), (12, 13), (1, 1, 1), (6, 7, 8), (1, 9, 8)]


def masks(shape: tuple[int, ...], seed: int) -> Tensor:
    """(2, 3, *S): speckle of several densities, an empty and a full channel."""
    rng = np.random.default_rng(seed)
    density = np.array([[0.0, 0.02, 0.1], [0.3, 0.05, 1.1]]).reshape(2, 3, *[1] * len(shape))
    return torch.from_numpy(rng.random((2, 3, *shape)) < density)


def each(x: Tensor) -> list[np.ndarray]:
    return list(x.flatten(0, 1).numpy())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["fast", "scipy"])
@pytest.mark.parametrize("faces", [False, True])
def test_components_are_those_of_scipy(
    shape: tuple[int, ...], faces: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """26 or 8 neighbors, 6 or 4 over faces, numbered by first voxel; cc3d 4.1.1 fails on bool with unequal axes."""
    if backend == "scipy":
        monkeypatch.setattr(components, "_labeler", lambda: components.label_by_scipy)
    for seed in range(20):
        mask = masks(shape, seed)
        for found, inside in zip(each(connected_components(mask, faces=faces)), each(mask), strict=True):
            expected, count = ndimage.label(inside, None if faces else np.ones((3,) * len(shape)))
            pairs = set(zip(expected.ravel().tolist(), found.ravel().tolist(), strict=True))
            assert len(pairs) == len({e for e, _ in pairs}) == len({f for _, f in pairs})
            ids, first = np.unique(found, return_index=True)
            assert ids.max() == count
            assert (np.diff(first[ids > 0]) > 0).all()


@pytest.mark.parametrize("backend", ["fast", "scipy"])
def test_diagonal_neighbors_are_connected(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "scipy":
        monkeypatch.setattr(components, "_labeler", lambda: components.label_by_scipy)
    for space in (2, 3):
        corner = (
            torch.eye(4, dtype=torch.bool)[None, None] if space == 2 else torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
        )
        if space == 3:
            corner[0, 0, range(4), range(4), range(4)] = True
        assert connected_components(corner).max() == 1
        assert connected_components(corner, faces=True).max() == 4


def test_memory_order_and_type_do_not_matter() -> None:
    mask = masks((7, 9), 3)
    expected = connected_components(mask)
    scattered = mask.movedim(1, -1).contiguous().movedim(-1, 1)
    for same in (scattered, mask.float(), mask.to(torch.uint8), mask.long()):
        assert torch.equal(connected_components(same), expected)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((5,), (2.0,)),
        ((9, 7), (1.0, 1.0)),
        ((12, 13), (3.0, 0.5)),
        ((14, 15), (1.25, 0.78125)),
        ((6, 7, 8), (1.0, 1.0, 1.0)),
        ((6, 7, 8), (2.5, 0.78125, 0.78125)),
        ((7, 7, 6), (3.0, 1.0, 0.5)),
        ((5, 6, 7), (0.7, 0.7, 0.7)),
        ((1, 9, 8), (5.0, 1.0, 1.0)),
    ],
)
def test_cells_are_those_of_a_distance_per_component(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """Brute force: a distance transform per component, ties to the lowest id."""
    for seed in range(15):
        ids = connected_components(masks(shape, seed))
        found = nearest_component(ids, torch.tensor(spacing, dtype=torch.float64))
        for cells, of in zip(each(found), each(ids), strict=True):
            if not of.any():
                assert not cells.any()
                continue
            far = [ndimage.distance_transform_edt(of != k, sampling=spacing) ** 2 for k in range(1, of.max() + 1)]
            np.testing.assert_array_equal(cells, np.round(far, 9).argmin(0) + 1)


def test_spacing_of_each_sample() -> None:
    """(0, 0) and (3, 0) against (0, 2): which of them is nearer depends on the spacing."""
    ids = torch.zeros(2, 1, 4, 3, dtype=torch.long)
    ids[:, 0, 0, 0], ids[:, 0, 3, 2] = 1, 2
    rows = torch.tensor([[1.0, 1.0], [1.0, 4.0]])
    found = nearest_component(ids, rows)
    for b in range(2):
        assert torch.equal(found[b], nearest_component(ids[b : b + 1], rows[b])[0])
    assert found[0, 0, 0, 2] == 1
    assert found[1, 0, 0, 2] == 2


def test_unusual_spacings_lose_no_digits_that_matter() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        spacing = rng.uniform(0.1, 9, 3)
        ids = connected_components(masks((6, 7, 8), int(rng.integers(1000))))
        found = nearest_component(ids, torch.from_numpy(spacing))
        for cells, of in zip(each(found), each(ids), strict=True):
            if of.any():
                far = np.stack(
                    [ndimage.distance_transform_edt(of != k, sampling=spacing) for k in range(1, of.max() + 1)]
                )
                chosen = np.take_along_axis(far, cells[None] - 1, 0)[0]
                assert (chosen <= far.min(0) * (1 + 1e-5)).all()


def test_a_large_image_fits_the_keys() -> None:
    """Distances of 4096 voxels of 0.3 against 5 mm, thousands of components: no overflow."""
    ids = torch.zeros(1, 1, 8, 4096, dtype=torch.long)
    ids[0, 0, ::2, ::8] = torch.arange(1, 4 * 512 + 1).view(4, 512)
    found = nearest_component(ids, torch.tensor([5.0, 0.3]))
    assert torch.equal(found[0, 0, 0], torch.arange(4096).add(3).div(8, rounding_mode="floor").clamp_max(511) + 1)


def test_sums_over_segments() -> None:
    ids = connected_components(masks((6, 7, 8), 1))
    values = torch.randn(2, 3, 6, 7, 8, dtype=torch.float64, requires_grad=True)
    inside = torch.rand(2, 1, 6, 7, 8, generator=torch.Generator().manual_seed(0)) < 0.7
    for kept in (None, inside):
        segments = Segments.of(ids, kept)
        (found,) = segments.sums(values)
        there = ids if kept is None else ids * kept
        expected = [
            values[b, c][there[b, c] == k].sum()
            for b in range(2)
            for c in range(3)
            for k in range(1, int(ids[b, c].max()) + 1)
            if (there[b, c] == k).any()
        ]
        torch.testing.assert_close(found, torch.stack(expected))
    assert torch.autograd.gradcheck(lambda x: Segments.of(ids).sums(x)[0], values)


def test_no_component_at_all() -> None:
    nothing = torch.zeros(2, 3, 4, 4)
    ids = connected_components(nothing)
    assert not ids.any()
    assert not nearest_component(ids).any()
    segments = Segments.of(ids)
    mean, there = segments.mean_by_row(*segments.sums(nothing))
    assert mean.shape == there.shape == (2, 3)
    assert not mean.any()
    assert not there.any()
