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
        DemoError: the patch does not fit the planned network.
    """
    if all(getattr(matrix, name) is None for name in SETTINGS):
        return
    content = read_json(plans)
    planned = content["configurations"][matrix.configuration]
    network = planned["architecture"]["arch_kwargs"]
    if matrix.patch_size is not None:
        _refuse(matrix.patch_size, planned, network)
        planned["patch_size"] = list(matrix.patch_size)
    if matrix.batch_size is not None:
        planned["batch_size"] = matrix.batch_size
    if matrix.features is not None:
        most = max(network["features_per_stage"])
        network["features_per_stage"] = [min(most, matrix.features << stage) for stage in range(network["n_stages"])]
    write_json(plans, content, indent=4)


def _refuse(patch: tuple[int, ...], planned: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    axes = len(planned["patch_size"])
    if len(patch) != axes:
        raise DemoError(f"--patch-size {list(patch)}: the plans have {axes} axes, as in {planned['patch_size']}")
    steps = [1] * axes
    for strides in network["strides"]:
        steps = [step * stride for step, stride in zip(steps, strides, strict=True)]
    if any(edge < 1 or edge % step for edge, step in zip(patch, steps, strict=True)):
        raise DemoError(
            f"--patch-size {list(patch)}: edges must be multiples of {steps}, by which the network halves them"
        )


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
