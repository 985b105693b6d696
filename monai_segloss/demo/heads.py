"""Generated CT-like heads: a skull around a brain with bleedings as dense as thin bone, for losses of one class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_segloss.demo.generate import Array, Volume

LABELS = {"background": 0, "skull": 1}
EXTENT = (40.0, 192.0, 192.0)
"""Edge lengths of the imaged block in mm, axes (z, y, x)."""
SPACING = (5.0, 3.0, 3.0)  # mm
AIR, SCALP, BONE, BRAIN, BLOOD = -800.0, 40.0, 420.0, 35.0, 180.0
NOISE = 60.0  # HU


def make_head(seed: int, extent: tuple[float, float, float] = EXTENT) -> Volume:
    """Draw one head.

    Args:
        seed: of everything in it.
        extent: edge lengths of the imaged block in mm, axes (z, y, x).

    Returns:
        a volume with the classes of `LABELS`.

    Example:
        >>> from monai_segloss.demo.heads import make_head
        >>> volume = make_head(0)
        >>> sorted(set(volume.label.flat)), volume.label.shape
        ([0, 1], (8, 64, 64))
    """
    rng = np.random.default_rng(seed)
    shape = tuple(max(8, round(length / s)) for length, s in zip(extent, SPACING, strict=True))
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, SPACING, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    scale = extent[1] / EXTENT[1]
    half = rng.uniform([64.0, 72.0, 58.0], [76.0, 82.0, 68.0]) * scale  # semi-axes of the head in mm
    center = rng.uniform(-5, 5, 3) * scale
    uneven = 0.03 * _smooth(rng, shape, 20 * scale)
    radius = np.sqrt(sum(((p - c) / h) ** 2 for p, c, h in zip((z, y, x), center, half, strict=True))) + uneven
    thickness = (0.085 + 0.02 * _smooth(rng, shape, 25 * scale)).clip(0.04)  # of the bone, over the semi-axes
    image = np.where(radius < 1, SCALP, AIR)
    skull = (radius < 0.92) & (radius > 0.92 - thickness)
    image[radius <= 0.92 - thickness] = BRAIN
    image[(_smooth(rng, shape, 6 * scale) > 1.9) & (radius < 0.8)] = BLOOD
    image[skull] = BONE + 120 * _smooth(rng, shape, 8 * scale)[skull]
    image = ndimage.gaussian_filter(image, (0.2, 0.7, 0.7))  # the scanner's point spread, in voxels
    image += NOISE * rng.standard_normal(shape)
    return Volume(np.asarray(np.rint(image), np.float32), skull.astype(np.uint8), SPACING)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    """A random field of mean 0 and deviation 1 that changes over `scale` mm."""
    noise = rng.standard_normal(shape)
    smoothed: NDArray[np.float64] = ndimage.gaussian_filter(noise, [scale / s for s in SPACING], mode="reflect")
    return (smoothed - smoothed.mean()) / max(float(smoothed.std()), 1e-12)
