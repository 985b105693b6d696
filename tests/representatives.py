"""The losses of the fast tier."""

from __future__ import annotations

REPRESENTATIVES = (
    "dice", "tversky", "generalized_dice", "lovasz_softmax", "threshold_map_dice", "cross_entropy", "binary_cross_entropy",
    "topk_cross_entropy", "seesaw", "dice_ce", "unified_focal", "boundary", "hausdorff_dt", "active_boundary",
    "surface_dice", "border_weighted_ce", "blob", "marginal_dice", "region_mutual_information", "soft_cldice", "conv_mcd",
    "adversarial", "size_penalty",
)  # fmt: skip
"""One loss per code path: tables, sums of voxels, sorting, sums of losses, maps, components, neighborhoods, partial labels,
and of every family."""
