"""A smaller network than nnU-Net plans for a GPU, the same for all arms: batch, patch and channels of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_segloss.demo.problem import DemoError
from monai_segloss.experiment.matrix import Matrix
from monai_segloss.files import read_json, write_json

SETTINGS = ("batch_size", "patch_size", "features")
"""Of a comparison, that replace what nnU-Net plans."""


def set_network(plans: Path, matrix: Matrix) -> None:
    """Write what a comparison asks for into its own plans.

    Args:
        plans: nnU-Net's file in the folder of the comparison.
        matrix: the comparison.

    Raises:
        DemoError: the patch does not fit the planned network, even without its deepest stages.
    """
    if all(getattr(matrix, name) is None for name in SETTINGS):
        return
    content = read_json(plans)
    planned = content["configurations"][matrix.configuration]
    network = planned["architecture"]["arch_kwargs"]
    if matrix.patch_size is not None:
        stages = _stages(matrix.patch_size, planned, network)
        planned["patch_size"] = list(matrix.patch_size)
        planned["architecture"]["arch_kwargs"] = network = _cut(network, stages)
    if matrix.batch_size is not None:
        planned["batch_size"] = matrix.batch_size
    if matrix.features is not None:
        most = max(network["features_per_stage"])
        network["features_per_stage"] = [min(most, matrix.features << stage) for stage in range(network["n_stages"])]
    write_json(plans, content, indent=4)


def _stages(patch: tuple[int, ...], planned: Mapping[str, Any], network: Mapping[str, Any]) -> int:
    """How many of the planned stages a patch goes through with whole voxels, at least two along each axis."""
    from nnunet_trainers.plans import downsampling

    axes, strides = len(planned["patch_size"]), network["strides"]
    if len(patch) != axes:
        raise DemoError(f"--patch-size {list(patch)}: the plans have {axes} axes, as in {planned['patch_size']}")
    for stages in range(network["n_stages"], 1, -1):
        steps = downsampling(strides[:stages], axes)
        if all(edge % step == 0 and edge >= 2 * step for edge, step in zip(patch, steps, strict=True)):
            return stages
    raise DemoError(
        f"--patch-size {list(patch)}: the edges of a patch must be multiples of {strides[1]}, twice that at least"
    )


def _cut(network: Mapping[str, Any], stages: int) -> dict[str, Any]:
    """The network without its deepest stages: of what has a value per stage, or per stage of the decoder, the first ones."""
    planned = network["n_stages"]
    shorter = {planned: stages, planned - 1: stages - 1}
    lists = {key: value for key, value in network.items() if isinstance(value, list) and len(value) in shorter}
    return {**network, **{key: value[: shorter[len(value)]] for key, value in lists.items()}, "n_stages": stages}


def described(configuration: Mapping[str, Any]) -> str | None:
    """Patch, batch and channels of a planned configuration in words.

    Args:
        configuration: of nnU-Net's plans, with what it inherits.
    """
    try:
        features = configuration["architecture"]["arch_kwargs"]["features_per_stage"]
        patch = " x ".join(map(str, configuration["patch_size"]))
        return (
            f"patch of {patch} voxels, batch of {configuration['batch_size']}, {features[0]} to {features[-1]} channels"
        )
    except (KeyError, TypeError, IndexError):
        return None
