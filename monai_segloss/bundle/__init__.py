"""The MONAI bundles that travel with this package: where they are, their losses, and our losses in other bundles."""

from monai_segloss.bundle.foreign import Overlay, generic_overlay
from monai_segloss.bundle.make import copy_bundle, make_bundle
from monai_segloss.bundle.metadata import BundleMetadata
from monai_segloss.bundle.overlays import component, create_loss, overlay, write_overlays
from monai_segloss.bundle.paths import bundle_path, bundles

__all__ = [
    "BundleMetadata",
    "Overlay",
    "bundle_path",
    "bundles",
    "component",
    "copy_bundle",
    "create_loss",
    "generic_overlay",
    "make_bundle",
    "overlay",
    "write_overlays",
]
