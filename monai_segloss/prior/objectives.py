"""What a prior is trained for, and how good it is on cases that it has not seen."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monai_segloss.core.prior import Header, PriorError
from monai_segloss.prior.patches import Patches
from monai_segloss.prior.transforms import ANGLE, SHIFT, pair

SHOWN = 16
"""Patches of held-back cases by which a reconstruction is measured, and batches of pairs."""
VOXELS = 2**18
"""Of a batch, as far as two to eight patches allow."""
PAIRS, TRIES = 16, 50


@dataclass(frozen=True)
class Objective(ABC):
    """The training of a prior.

    Args:
        header: of the prior.
        train: patches of the training.
        held_back: patches to measure by.
    """

    header: Header
    train: Patches
    held_back: Patches

    @abstractmethod
    def loss(self, network: nn.Module, step: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """The loss of a batch."""

    @abstractmethod
    def quality(self, network: nn.Module, generator: torch.Generator, device: torch.device) -> dict[str, float]:
        """Figures by name.

        Raises:
            PriorError: the prior is of no use.
        """

    @abstractmethod
    def words(self, quality: dict[str, float]) -> str:
        """The figures for a reader."""


class Reconstruction(Objective):
    """Cross-entropy plus Dice between labels and what a network makes of them, clean or as soft as probabilities."""

    def loss(self, network: nn.Module, step: int, generator: torch.Generator, device: torch.device) -> Tensor:
        count = max(2, min(8, VOXELS // math.prod(self.train.size)))
        labels = torch.stack([view.take() for view in self.train.draw(count, step, generator)])
        y, valid = self.train.labels.onehot(labels)
        given = corrupted(y, self.header.regions, generator) * valid
        y, valid, given = (x.to(device) for x in (y, valid, given))
        return reconstruction(network(given), y, valid, self.header.regions)

    def quality(self, network: nn.Module, generator: torch.Generator, device: torch.device) -> dict[str, float]:
        both, sizes = torch.zeros(2, self.header.classes).unbind()
        for i in range(SHOWN):
            labels = torch.stack([view.take() for view in self.held_back.draw(1, i, generator)])
            y, valid = self.train.labels.onehot(labels)
            z = network(y.to(device)).cpu()
            found = (z > 0).float() if self.header.regions else _largest(z)
            found = found * valid
            axes = [0, *range(2, y.ndim)]
            both, sizes = both + (found * y).sum(axes), sizes + found.sum(axes) + y.sum(axes)
        scored = [c for c in self.train.labels.scored if sizes[c]]
        return {"dice": float((2 * both[scored] / sizes[scored]).mean()) if scored else math.nan}

    def words(self, quality: dict[str, float]) -> str:
        return f"reconstruction Dice {quality['dice']:.3f}"


class Registration(Objective):
    """Distance between the transformation of a pair of boundaries and what a regressor makes of the pair."""

    def loss(self, network: nn.Module, step: int, generator: torch.Generator, device: torch.device) -> Tensor:
        tiles, theta = self._pairs(self.train, step, generator)
        return torch.linalg.vector_norm(network(tiles.to(device)) - theta.to(device), dim=1).mean()

    def quality(self, network: nn.Module, generator: torch.Generator, device: torch.device) -> dict[str, float]:
        errors, sizes, noise = [], [], []
        for i in range(SHOWN):
            tiles, theta = self._pairs(self.held_back, i, generator)
            errors.append((network(tiles.to(device)).cpu() - theta).abs())
            sizes.append(theta.abs())
            same = tiles[:, 1:].expand_as(tiles)
            noise.append(torch.linalg.vector_norm(network(same.to(device)).cpu(), dim=1))
        error, mean = torch.cat(errors).mean(0), torch.cat(sizes).mean(0)
        axes, tile = self.header.network["axes"], self.header.network["tile"]
        found = {
            "translation_voxels": float(error[:axes].mean()) * SHIFT * tile,
            "translation_voxels_of_mean_predictor": float(mean[:axes].mean()) * SHIFT * tile,
            "rotation_degrees": math.degrees(float(error[2 * axes :].mean()) * ANGLE),
            "rotation_degrees_of_mean_predictor": math.degrees(float(mean[2 * axes :].mean()) * ANGLE),
            "norm_of_identical": float(torch.cat(noise).mean()),
        }
        if not found["translation_voxels"] < found["translation_voxels_of_mean_predictor"]:
            raise PriorError(
                f"prior: the regressor is refused, since it is no better than no transformation at all: "
                f"{self.words(found)}. Train it for more steps."
            )
        return found

    def words(self, quality: dict[str, float]) -> str:
        values = {name: f"{value:.2f}" for name, value in quality.items()}
        return (
            "translation {translation_voxels} voxels (mean predictor {translation_voxels_of_mean_predictor}), "
            "rotation {rotation_degrees} degrees (mean predictor {rotation_degrees_of_mean_predictor}), "
            "norm for identical boundaries {norm_of_identical}"
        ).format(**values)

    def _pairs(self, patches: Patches, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        found: list[tuple[Tensor, Tensor]] = []
        tile, spacing = self.header.network["tile"], self.header.spacing
        for _ in range(TRIES):
            views = patches.draw(PAIRS, step, generator)
            some = (pair(view, patches.labels, tile, spacing, generator) for view in views)
            found += [each for each in some if each is not None]
            if len(found) >= PAIRS:
                tiles, theta = zip(*found[:PAIRS], strict=True)
                return torch.stack(tiles), torch.stack(theta)
        raise PriorError(
            f"prior: the labels of {', '.join(patches.labels.cases)} have too few boundaries to learn from."
        )


OBJECTIVES: dict[str, type[Objective]] = {
    "autoencoder": Reconstruction,
    "label-unet": Reconstruction,
    "inverse-form": Registration,
}


def corrupted(y: Tensor, regions: bool, generator: torch.Generator) -> Tensor:
    """One-hot labels as probabilities: half of the samples as they are, the others unsure, with coarse and fine noise."""
    shape = (len(y), *[1] * (y.ndim - 1))
    clean, sure, noise = (torch.rand(shape, generator=generator) for _ in range(3))
    coarse = torch.randn(*y.shape[:2], *(-(-n // 4) for n in y.shape[2:]), generator=generator)
    fine = torch.randn(y.shape, generator=generator)
    wrong = 2 * noise * (nn.functional.interpolate(coarse, size=y.shape[2:]) + fine)
    z = (2 + 8 * sure) * (2 * y - 1 if regions else y) + wrong
    return torch.where(clean < 0.5, y, z.sigmoid() if regions else z.softmax(1))


def reconstruction(z: Tensor, y: Tensor, valid: Tensor, regions: bool) -> Tensor:
    """Cross-entropy plus one minus Dice, the latter over the batch and without the background."""
    if regions:
        ce = nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none").mean(1, keepdim=True)
        p = z.sigmoid()
    else:
        ce = -(y * z.log_softmax(1)).sum(1, keepdim=True)
        p = z.softmax(1)
    p, axes = p * valid, [0, *range(2, y.ndim)]
    dice = (2 * (p * y).sum(axes) + 1) / (p.sum(axes) + y.sum(axes) + 1)
    return (ce * valid).sum() / valid.sum().clamp_min(1) + 1 - (dice if regions else dice[1:]).mean()


def _largest(z: Tensor) -> Tensor:
    return torch.zeros_like(z).scatter(1, z.argmax(1, keepdim=True), 1)
