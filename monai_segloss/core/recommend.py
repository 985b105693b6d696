"""Arguments that trainers and bundles pass to a loss alongside how it reads the data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Recommended:
    """The arguments that a card recommends for a training; None for one that is not recommended.

    Args:
        include_background: value for labels; regions always score all channels.
        batch: ``"plan"`` (as nnU-Net's plan says in batch_dice), or a fixed value.
        arguments: recommended values of other arguments.
        soft_label: whether the loss has this argument, which soft labels then set.

    Example:
        >>> from monai_segloss.core.recommend import Recommended
        >>> Recommended(arguments={"gamma": 2}).resolve(regions=True, batch_dice=False)
        {'include_background': True, 'batch': False, 'gamma': 2}
        >>> Recommended(arguments={"gamma": 2}).resolve()
        {'include_background': False, 'gamma': 2}
    """

    include_background: bool | None = False
    batch: bool | str | None = "plan"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    soft_label: bool = False

    def fitted(self, names: Collection[str]) -> Recommended:
        """The same for a loss with arguments of these names: no background and no batch where it knows neither."""
        return replace(
            self,
            include_background=self.include_background if "include_background" in names else None,
            batch=self.batch if "batch" in names else None,
            soft_label="soft_label" in names,
        )

    def resolve(
        self, *, regions: bool = False, batch_dice: bool | None = None, soft_labels: bool = False
    ) -> dict[str, Any]:
        """The arguments for a data set.

        Args:
            regions: overlapping regions; otherwise labels.
            batch_dice: what nnU-Net's plan says; None where there is no plan, and the default of the loss stands.
            soft_labels: fractions in place of labels; Dice and the like then count so that the fractions are the minimum.
        """
        found: dict[str, Any] = {}
        if self.include_background is not None:
            found["include_background"] = regions or self.include_background
        batch = batch_dice if self.batch == "plan" else self.batch
        if batch is not None:
            found["batch"] = batch
        if soft_labels and self.soft_label:
            found["soft_label"] = True
        return {**found, **self.arguments}

    @property
    def words(self) -> list[str]:
        """The same for a reader."""
        words = []
        if self.include_background is not None:
            words.append(f"background {'scored' if self.include_background else 'left out'} for labels")
        if self.batch is not None:
            words.append("batch statistics as the plan says" if self.batch == "plan" else f"batch={self.batch}")
        return [*words, *(f"{name}={value}" for name, value in self.arguments.items())]
