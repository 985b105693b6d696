"""MONAI transforms from labels to the maps that losses take alongside them.

Each map is a transform of an array and one of a dictionary, ``SignedDistanceMap`` and ``SignedDistanceMapd``.  Put them
after the last transform that moves, scales or crops the label and before collation; on cached volumes they may stand
before random crops, flips and quarter turns that take the map along with the label.  Anything that interpolates must come
before: it neither scales distances nor leaves them distances.  Under ``lazy=True`` MONAI forgets the mode of each transform
and interpolates labels too (its issue 6850), which is refused here: name the mode again, `Compose(..., lazy=True,
overrides={"label": {"mode": "nearest"}})`.  Metadata is kept.  There is no inverse: `monai.transforms.
Invertd` cannot go back through them, nor needs to, since they leave the label as it is.

Example:
    >>> import torch
    >>> from monai.data import MetaTensor
    >>> from monai_segloss.transforms import SignedDistanceMapd
    >>> label = MetaTensor(torch.tensor([[[0, 0, 1, 1]]]), affine=torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0])))
    >>> out = SignedDistanceMapd("label", num_classes=2, include_background=False)({"label": label})
    >>> out["sdm"].tolist()
    [[[4.0, 2.0, 0.0, -2.0]]]
"""

from __future__ import annotations

from monai_segloss import maps
from monai_segloss.transforms.base import LabelMap as LabelMap
from monai_segloss.transforms.base import LabelMapd as LabelMapd
from monai_segloss.transforms.needed import map_transforms as map_transforms
from monai_segloss.transforms.raters import RaterLabels as RaterLabels
from monai_segloss.transforms.raters import RaterLabelsd as RaterLabelsd


class SignedDistanceMap(LabelMap):
    """Signed distance to the boundary of each class, see `monai_segloss.maps.signed_distance_map`."""

    make, key = staticmethod(maps.signed_distance_map), "sdm"


class SignedDistanceMapd(LabelMapd):
    """`SignedDistanceMap` of a dictionary."""

    of = SignedDistanceMap


class DistanceField(LabelMap):
    """Unsigned distance to the other side of each class, see `monai_segloss.maps.distance_field`."""

    make, key = staticmethod(maps.distance_field), "target_field"


class DistanceFieldd(LabelMapd):
    """`DistanceField` of a dictionary."""

    of = DistanceField


class DistancePenaltyMap(LabelMap):
    """1 at the boundary of each class, 0 at its deepest voxel, see `monai_segloss.maps.distance_penalty_map`."""

    make, key = staticmethod(maps.distance_penalty_map), "penalty"


class DistancePenaltyMapd(LabelMapd):
    """`DistancePenaltyMap` of a dictionary."""

    of = DistancePenaltyMap


class RegionWiseMap(LabelMap):
    """Minus the relative depth inside of each class, 1 outside, see `monai_segloss.maps.region_wise_map`."""

    make, key = staticmethod(maps.region_wise_map), "region_wise"


class RegionWiseMapd(LabelMapd):
    """`RegionWiseMap` of a dictionary."""

    of = RegionWiseMap


class BorderWeightMap(LabelMap):
    """Weights of the background between instances, see `monai_segloss.maps.border_weight_map`."""

    make, key, background = staticmethod(maps.border_weight_map), "weight_map", False
    keyed = False  # losses take weights as they come


class BorderWeightMapd(LabelMapd):
    """`BorderWeightMap` of a dictionary."""

    of = BorderWeightMap


class ContourMap(LabelMap):
    """Contour of each class, see `monai_segloss.maps.contour_map`."""

    make, key, background = staticmethod(maps.contour_map), "contour", False


class ContourMapd(LabelMapd):
    """`ContourMap` of a dictionary."""

    of = ContourMap


class SkeletonMap(LabelMap):
    """Centerline of each class, see `monai_segloss.maps.skeleton_map`."""

    make, key, background = staticmethod(maps.skeleton_map), "skeleton", False


class SkeletonMapd(LabelMapd):
    """`SkeletonMap` of a dictionary."""

    of = SkeletonMap


class TubedSkeletonMap(LabelMap):
    """Tube around the centerline of each class, see `monai_segloss.maps.tubed_skeleton_map`."""

    make, key, background = staticmethod(maps.tubed_skeleton_map), "tubed_skeleton", False


class TubedSkeletonMapd(LabelMapd):
    """`TubedSkeletonMap` of a dictionary."""

    of = TubedSkeletonMap


class ComponentMap(LabelMap):
    """Id of the connected component of each class at each voxel, see `monai_segloss.maps.component_map`."""

    make, key, instances = staticmethod(maps.component_map), "components", True


class ComponentMapd(LabelMapd):
    """`ComponentMap` of a dictionary."""

    of = ComponentMap


class ComponentCellMap(LabelMap):
    """Id of the nearest component of each class at each voxel, see `monai_segloss.maps.component_cell_map`."""

    make, key, instances = staticmethod(maps.component_cell_map), "cells", True


class ComponentCellMapd(LabelMapd):
    """`ComponentCellMap` of a dictionary."""

    of = ComponentCellMap
