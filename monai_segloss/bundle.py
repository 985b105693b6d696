"""The MONAI bundles that travel with this package: where they are, their loss overlays, their metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monai_segloss import LossInfo, list_losses

__all__ = ["BundleMetadata", "bundle_path", "bundles", "overlay", "write_overlays"]

DEFAULT = "segloss_segmentation"


def bundles() -> list[Path]:
    """Folders of the bundles: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
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


def overlay(info: LossInfo) -> dict[str, Any]:
    """The configuration that puts a loss into a bundle with one label per voxel: the one key ``loss``.

    ``include_background`` is written out where the loss takes it, and whatever else its card recommends to a trainer.
    """
    policy = info.nnunet
    loss: dict[str, Any] = {"_target_": f"monai_segloss.{info.cls.__name__}", **info.reading}
    if policy.include_background is not None:
        loss["include_background"] = policy.include_background
    if isinstance(policy.batch, bool):
        loss["batch"] = policy.batch
    return {"loss": {**loss, **policy.arguments}}


def write_overlays(folder: Path | None = None) -> list[Path]:
    """Write ``<key>.json`` for every registered loss and remove files of losses that are gone.

    Args:
        folder: None means ``configs/losses`` of the default bundle.
    """
    folder = bundle_path() / "configs" / "losses" if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{info.key}.json": overlay(info) for info in list_losses()}
    for path, content in files.items():
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
    for path in set(folder.glob("*.json")) - set(files):
        path.unlink()
    return sorted(files)


class TensorFormat(BaseModel):
    """One tensor of ``network_data_format``."""

    model_config = ConfigDict(extra="forbid")

    type: str
    format: str
    num_channels: int = Field(ge=1)
    spatial_shape: list[int | str]
    dtype: str
    value_range: list[float]
    modality: str | None = None
    is_patch_data: bool | None = None
    channel_def: dict[str, str] | None = None


class DataFormat(BaseModel):
    """Inputs and outputs of the network, by name."""

    inputs: dict[str, TensorFormat] = Field(min_length=1)
    outputs: dict[str, TensorFormat] = Field(min_length=1)


class BundleMetadata(BaseModel):
    """What MONAI's metadata schema 20240725 requires of ``metadata.json``, checked without the network.

    Other keys are allowed, as in the schema, but for the name that it replaced.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    schema_: str = Field(alias="schema", pattern=r"^https://.+/meta_schema_\d{8}\.json$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    changelog: dict[str, str]
    monai_version: str
    pytorch_version: str
    numpy_version: str
    required_packages_version: dict[str, str]
    task: str
    description: str
    authors: str
    copyright: str
    network_data_format: DataFormat

    @model_validator(mode="before")
    @classmethod
    def _no_old_name(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and "optional_packages_version" in content:
            raise ValueError("optional_packages_version is now called required_packages_version.")
        return content

    @model_validator(mode="after")
    def _version_in_changelog(self) -> BundleMetadata:
        if self.version not in self.changelog:
            raise ValueError(f"changelog has no entry for version {self.version}.")
        return self
