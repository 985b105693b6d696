"""Sorting by the bits of numbers gives what comparing them gives."""

from __future__ import annotations

import pytest
import torch

from monai_segloss.kernels.sorting import sort_descending


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 1000, 70_000])
def test_largest_first(n: int, dtype: torch.dtype) -> None:
    """Also beyond the size from which integers are sorted by digits; equal values stay in their order."""
    x = torch.rand(n, dtype=dtype) * 10.0 ** torch.randint(-40, 3, (n,))
    x[::3] = 0.0
    x[1::7] = 0.25
    x[5::11] = torch.inf
    values, order = sort_descending(x)
    expected, places = x.sort(descending=True, stable=True)
    assert torch.equal(values, expected)
    assert torch.equal(order, places)
    assert values.dtype == dtype


def test_not_a_number_comes_first_and_minus_zero_is_zero() -> None:
    x = torch.tensor([0.0, 1.0, torch.nan, -0.0, -torch.nan, 2.0])
    values, order = sort_descending(x)
    assert values[:2].isnan().all()
    assert set(order[:2].tolist()) == {2, 4}
    assert values[2:].tolist() == [2.0, 1.0, 0.0, 0.0]


def test_a_slice_and_other_types() -> None:
    x = torch.rand(6, 5)[:, 2]
    assert torch.equal(sort_descending(x)[0], x.sort(descending=True).values)
    half = torch.rand(9).half()
    assert torch.equal(sort_descending(half)[0], half.sort(descending=True).values)
    assert x.ge(0).all(), "the input is as it was"
