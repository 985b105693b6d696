"""The transforms that make the maps of a loss ahead of time."""

from __future__ import annotations

from typing import Any

from monai_segloss.core.maps import MapSpec
from monai_segloss.transforms.base import LabelMapd


def map_transforms(loss: Any, key: str = "label", **options: Any) -> list[LabelMapd]:
    """One transform per map that a loss names in ``needs``, under the key that the loss knows it by.

    Put them after the transforms that move, scale or crop the label, and train with
    `monai_segloss.engine.SegLossTrainer`, which hands the maps to the loss.  Take them to choose spacing or ignored label,
    to keep metadata, or to crop and flip maps of cached volumes with the label; take `monai_segloss.engine.LossMapsd`, one
    transform for all maps, where `CheckedLabeld` has put the ignored voxels into a mask, as in the bundle.

    Args:
        loss: a `SegLoss`, a `WeightedSum` or a wrapper with ``needs``; a loss without maps gives an empty list.
        key: of the label.
        options: of `LabelMap`: ``num_classes``, ``include_background``, ``spacing``, ``ignore_index``.

    Raises:
        ValueError: a map that no transform makes.

    Example:
        >>> from monai_segloss import WeightedSum
        >>> from monai_segloss.transforms import map_transforms
        >>> terms = {"boundary": 1, "rough": {"loss": "boundary", "mode": "surface", "clip": 10}}
        >>> [each.output_keys for each in map_transforms(WeightedSum(terms), num_classes=3)]
        [('sdm',), ('sdm_surface_clip_10',)]
    """
    return [_transform(spec, key, options) for spec in loss.needs]


def _transform(spec: MapSpec, key: str, options: dict[str, Any]) -> LabelMapd:
    for each in LabelMapd.__subclasses__():
        if each.of.make is spec.function:
            return each(key, output_keys=spec.key, **dict(spec.settings), **options)
        if each.of.key == spec.key:
            return each(key, output_keys=spec.key, **options)
    raise ValueError(f"no transform makes the map {spec.key!r}; the loss computes it where it is not sent.")
