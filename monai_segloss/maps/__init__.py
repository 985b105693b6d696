"""Masks to arrays without gradient: distance, border weight, contour, skeleton, components."""

from monai_segloss.kernels.components import connected_components, nearest_component
from monai_segloss.maps.border import border_weight_map
from monai_segloss.maps.components import component_cell_map, component_map
from monai_segloss.maps.contour import contour_map
from monai_segloss.maps.distance import (
    distance_field,
    distance_penalty_map,
    region_wise_map,
    signed_distance_map,
)
from monai_segloss.maps.masks import class_masks
from monai_segloss.maps.skeleton import skeleton_map, tubed_skeleton_map

__all__ = [
    "border_weight_map",
    "class_masks",
    "component_cell_map",
    "component_map",
    "connected_components",
    "contour_map",
    "distance_field",
    "distance_penalty_map",
    "nearest_component",
    "region_wise_map",
    "signed_distance_map",
    "skeleton_map",
    "tubed_skeleton_map",
]
