"""Where the bundles of this installation are."""

from __future__ import annotations

from pathlib import Path

DEFAULT = "segloss_segmentation"


def bundles() -> list[Path]:
    """Folders of the bundles: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "bundles", package.parent / "bundles"):
        found = sorted(path.parent.parent for path in folder.glob("*/configs/metadata.json"))
        if found:
            return found
    raise FileNotFoundError(f"no bundle in {package / 'bundles'} or {package.parent / 'bundles'}: install again.")


def bundle_path(name: str = DEFAULT) -> Path:
    """Folder of the bundle ``name``.

    Raises:
        KeyError: no such bundle.
    """
    found = {path.name: path for path in bundles()}
    if name not in found:
        raise KeyError(f"no bundle {name!r}; there are {', '.join(found)}.")
    return found[name]
