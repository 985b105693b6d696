"""Persistent homology of maps, on the CPU: features by gudhi's cubical complexes (MIT), Betti numbers of masks.

A voxel is a closed cube, so that the foreground is connected over corners and the background over faces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_segloss.core.packages import require
from monai_segloss.kernels.arrays import volumes
from monai_segloss.kernels.betti import DIMENSIONS, betti_of


def persistence_pairs(maps: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Where the features of the superlevel sets {map >= t} are born and die as t falls to 0.

    Args:
        maps: (N, *S) of values of at least 0; an axis of one voxel is none, and what is not a number is 0.
        wanted: (); where it is 0 nothing is computed, and there are no features.

    Returns:
        (M, 5) int64: the map, the dimension, the rank by persistence among those of the same map and dimension, and the
        flat indices of the voxels of birth and death; -1 where a component does not die before 0.

    Raises:
        ImportError: gudhi is not installed.
    """
    wanted = torch.ones((), device=maps.device) if wanted is None else wanted
    found: Tensor = torch.ops.segloss.persistence_pairs(maps.detach(), wanted.detach())
    return found


def betti_numbers(masks: Tensor) -> Tensor:
    """Components, tunnels and cavities of masks (N, *S), (N, 3) int64; in 2-D components and holes."""
    found: Tensor = torch.ops.segloss.betti_numbers(masks)
    return found


def complexes() -> Callable[..., Any]:
    """gudhi's class of cubical complexes."""
    require("gudhi", "topology", "persistent homology")
    from gudhi.cubical_complex import CubicalComplex

    return CubicalComplex


# Each one operation, so that compilers and transforms of torch do not look inside.
@torch.library.custom_op("segloss::persistence_pairs", mutates_args=(), schema="(Tensor maps, Tensor wanted) -> Tensor")
def _persistence_pairs(maps: Tensor, wanted: Tensor) -> Tensor:
    if not bool(wanted):
        return maps.new_zeros((0, 5), dtype=torch.int64)
    found = [_of_map(i, array) for i, array in enumerate(volumes(maps.nan_to_num(0.0, posinf=0.0)[None]))]
    return torch.from_numpy(np.concatenate(found)).to(maps.device)


@_persistence_pairs.register_fake
def _(maps: Tensor, wanted: Tensor) -> Tensor:
    return maps.new_empty((torch.library.get_ctx().new_dynamic_size(), 5), dtype=torch.int64)


def _of_map(i: int, x: NDArray[Any]) -> NDArray[np.int64]:
    """The rows of one map."""
    x = _spanned(x)
    complex_ = complexes()(top_dimensional_cells=-x.T)  # it counts voxels in Fortran order, those of x.T in that of x
    complex_.compute_persistence()
    pairs, endless = complex_.cofaces_of_persistence_pairs()
    ends = [(k, np.stack((born, np.full_like(born, -1)), 1)) for k, born in enumerate(endless)]
    parts = [(k, part) for k, part in [*enumerate(pairs), *ends] if len(part)]
    dimension = np.concatenate([np.full(len(part), k) for k, part in parts])
    birth, death = np.concatenate([part for _, part in parts]).astype(np.int64).T
    value = x.ravel().astype(np.float64)
    persistence = value[birth] - np.where(death < 0, 0, value[death])
    order = np.lexsort((-persistence, dimension))
    dimension, birth, death = dimension[order], birth[order], death[order]
    rank = np.arange(len(order)) - np.searchsorted(dimension, dimension)
    return np.stack((np.full_like(rank, i), dimension, rank, birth, death), 1)


@torch.library.custom_op("segloss::betti_numbers", mutates_args=(), schema="(Tensor masks) -> Tensor")
def _betti_numbers(masks: Tensor) -> Tensor:
    return torch.tensor([betti_of(_spanned(array)) for array in volumes((masks > 0)[None])], device=masks.device)


@_betti_numbers.register_fake
def _(masks: Tensor) -> Tensor:
    return torch.empty((masks.shape[0], DIMENSIONS), dtype=torch.int64, device=masks.device)


def _spanned(x: NDArray[Any]) -> NDArray[Any]:
    """The map without its axes of one voxel."""
    x = x.squeeze()
    return x if x.ndim else x.reshape(1)
