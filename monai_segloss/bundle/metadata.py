"""``metadata.json`` of a bundle, checked without the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
