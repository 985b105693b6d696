"""Topology on vessels: Dice + cross-entropy against losses that read centerlines.

    python examples/vessel_topology.py vessels

Needs `pip install "monai-segloss[nnunet]"` and `pip install "monai-segloss[monai]"`. Takes about three minutes on
a CPU.

Images are generated trees whose branches fade in places. A network is trained with Dice + cross-entropy. From its
weights the training goes on three times: with the same loss, with Dice + clDice, and with Dice + cross-entropy +
skeleton recall. Betti numbers count what Dice does not: b0 is the number of pieces, b1 the number of holes. A tree
is one piece; branches that cross make holes.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.networks.nets import UNet
from scipy import ndimage

import monai_segloss

LOSSES = ("dice_ce", "dice_cldice", "dice_ce_skeleton_recall")


def tree(rng: np.random.Generator, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image of a vessel tree, and its label; some stretches of the branches are hardly brighter than the rest."""
    label, bright = np.zeros((edge, edge), bool), np.ones((edge, edge))
    rows, columns = np.indices(label.shape)

    def branch(y: float, x: float, angle: float, length: float, radius: float) -> None:
        faint = rng.uniform(0.3, 0.7)
        for way in np.arange(0, length, 0.5):
            y, x, angle = y + 0.5 * np.cos(angle), x + 0.5 * np.sin(angle), angle + rng.normal(0, 0.04)
            near = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            label[near] = True
            if abs(way / length - faint) < 0.12:
                bright[near] = 0.15
        if length > edge / 8:
            for turn in (-0.5, 0.5):
                branch(y, x, angle + turn + rng.normal(0, 0.1), 0.72 * length, max(1.2, 0.8 * radius))

    branch(2, edge / 2, rng.normal(0, 0.1), edge / 3, edge / 32)
    image = ndimage.gaussian_filter(label * bright, 0.7) + rng.normal(0, 0.3, label.shape)
    return image.astype(np.float32), label


def betti(mask: np.ndarray) -> tuple[int, int]:
    """Pieces (neighbors share an edge or a corner) and holes (parts of the background that do not reach the border)."""
    pieces = ndimage.label(mask, np.ones((3, 3)))[1]
    return pieces, ndimage.label(np.pad(~mask, 1, constant_values=True))[1] - 1


def train(network: torch.nn.Module, key: str, image: torch.Tensor, label: torch.Tensor, steps: int) -> torch.nn.Module:
    """A copy of the network, trained with a loss."""
    torch.manual_seed(0)
    network = copy.deepcopy(network)
    loss = monai_segloss.create(key, softmax=True, to_onehot_y=True, include_background=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    for _ in range(steps):
        chosen = torch.randperm(len(image))[:8]
        optimizer.zero_grad()
        loss(network(image[chosen]), label[chosen], spacing=(1.0, 1.0)).backward()
        optimizer.step()
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what is made lies here")
    parser.add_argument("--steps", type=int, default=150, help="of each of the four trainings")
    parser.add_argument("--edge", type=int, default=96, help="of an image, in pixels")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)

    # 1. Forty trees to train with, twenty to look at.
    rng = np.random.default_rng(0)
    trees = [tree(rng, options.edge) for _ in range(60)]
    image, label = (torch.from_numpy(np.stack(each))[:, None] for each in zip(*trees, strict=True))

    # 2. Before: Dice + cross-entropy. After: three losses from the same weights.
    torch.manual_seed(0)
    network = UNet(spatial_dims=2, in_channels=1, out_channels=2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1)
    before = train(network, "dice_ce", image[:40], label[:40].long(), options.steps)
    networks = {"before": before}
    for key in LOSSES:
        networks[f"after {key}"] = train(before, key, image[:40], label[:40].long(), options.steps)

    # 3. Dice and Betti numbers of the trees that no training has seen.
    truth = label[40:, 0].numpy()
    masks = {"label": truth}
    for name, each in networks.items():
        with torch.no_grad():
            masks[name] = each(image[40:]).argmax(1).bool().numpy()
    results = {}
    for name, mask in masks.items():
        dice = float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
        b0, b1 = np.mean([betti(one) for one in mask], axis=0)
        results[name] = {"dice": dice, "b0": float(b0), "b1": float(b1)}
        print(f"{name:30} Dice {dice:.3f}, mean b0 {b0:.2f}, mean b1 {b1:.2f}")
    (options.folder / "betti.json").write_text(json.dumps(results, indent=1))

    figure, axes = plt.subplots(1, len(masks) + 1, figsize=(2.6 * (len(masks) + 1), 3), layout="constrained")
    axes[0].imshow(image[40, 0], cmap="gray")
    axes[0].set_title("image")
    for axis, (name, mask) in zip(axes[1:], masks.items(), strict=True):
        axis.imshow(ndimage.label(mask[0], np.ones((3, 3)))[0], cmap="nipy_spectral", interpolation="nearest")
        axis.set_title("{}\nb0 = {}, b1 = {}".format(name, *betti(mask[0])), fontsize=9)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    figure.savefig(options.folder / "vessels.png", dpi=110)
    print(
        f"Look at {options.folder / 'vessels.png'}: each piece has a color. One seed does not say which loss is better."
    )


if __name__ == "__main__":
    main()
