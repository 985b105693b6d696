"""A loss of your own: write the formula, check it, train with it.

    python examples/own_loss.py own-loss

Needs `pip install "monai-segloss[nnunet]"` and `pip install "monai-segloss[monai]"`. Takes half a minute on a CPU.

The loss is 1 - F2, where F2 is the F-score that counts a missed voxel four times as much as a false one. You write
the formula. `RegionLoss` reads labels, one-hot targets, ignored voxels and half precision, and takes MONAI's
arguments. `check_loss` tries about fifty properties on small inputs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from monai.networks.nets import UNet

from monai_segloss.core.batch import ClassView
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.testing import check_loss


class F2Loss(RegionLoss):
    """1 - F2 = (FP + 4 FN) / (5 TP + FP + 4 FN) per sample and class; mean."""

    formula_arguments = ("include_background", "batch", "smooth_dr", "weight")

    def table(self, view: ClassView) -> torch.Tensor:
        n = view.counts()  # TP, FP and FN of the probabilities, (samples, classes)
        mistakes = n.fp + 4 * n.fn
        return mistakes / (5 * n.tp + mistakes + self.smooth_dr)


class WrongLoss(F2Loss):
    """The same with a slip: the F-score where 1 minus the F-score is meant."""

    def table(self, view: ClassView) -> torch.Tensor:
        return 1 - super().table(view)


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy 2-D images of a disk, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    center = 16 + 12 * (torch.rand(count, 2, 1, 1, generator=generator) - 0.5)
    label = ((y - center[:, 0]) ** 2 + (x - center[:, 1]) ** 2 < 16).long()[:, None]
    return label + 0.7 * torch.randn(label.shape, generator=generator), label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what is made lies here")
    parser.add_argument("--steps", type=int, default=100, help="of the training")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)

    # 1. The contract. It raises one error with a line for each property that does not hold.
    check_loss(F2Loss)
    print("F2Loss keeps the contract.")
    try:
        check_loss(WrongLoss, only=["perfect_prediction_is_the_minimum"])
    except AssertionError as error:
        print(f"WrongLoss does not:\n{error}")

    # 2. A training. The arguments are those of every MONAI loss.
    torch.manual_seed(0)
    loss = F2Loss(softmax=True, to_onehot_y=True, include_background=False)
    network = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(8, 16), strides=(2,))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    image, label = images(16, seed=1)
    values = []
    for _ in range(options.steps):
        optimizer.zero_grad()
        value = loss(network(image), label)
        value.backward()
        optimizer.step()
        values.append(value.item())

    # 3. The result, on images that the network has not seen.
    image, label = images(16, seed=2)
    predicted = network(image).argmax(1, keepdim=True)
    recall = (predicted * label).sum() / label.sum()
    precision = (predicted * label).sum() / predicted.sum().clamp_min(1)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    axes[0].plot(values)
    axes[0].set(xlabel="step", ylabel="1 - F2")
    axes[1].imshow(image[0, 0], cmap="gray")
    axes[1].contour(label[0, 0], [0.5], colors="lime")
    axes[1].contour(predicted[0, 0], [0.5], colors="red", linestyles="dashed")
    axes[1].set(title="label green, prediction red", xticks=[], yticks=[])
    figure.savefig(options.folder / "own_loss.png", dpi=120)

    print(f"1 - F2 fell from {values[0]:.3f} to {values[-1]:.3f}; recall {recall:.3f}, precision {precision:.3f}.")
    print(f"Look at {options.folder / 'own_loss.png'}.")


if __name__ == "__main__":
    main()
