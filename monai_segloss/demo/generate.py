"""Generated CT-like volumes: an organ, a vessel that runs along it, few small lesions in it.

Every case is drawn in millimeters and sampled on its own grid, so spacing and shape vary between cases as they do
between scanners.  Values are Hounsfield units.  A seed gives the same voxels on every machine.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_segloss.files import atomic, write_json

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

LABELS = {"background": 0, "organ": 1, "vessel": 2, "lesion": 3}
FAT, MUSCLE, MARROW, CORTEX, GAS = -95.0, 50.0, 160.0, 520.0, -600.0
ORGAN, VESSEL, LESION = 110.0, 270.0, 190.0
PIXELS, SLICES = (1.15, 1.2, 1.25), (5.0, 5.5, 6.0)  # mm
LESION_RADII = (5.0, 8.0)  # mm
NOISE = 18.0  # HU


@dataclass(frozen=True)
class Volume:
    """One generated case.

    Args:
        image: Hounsfield units, axes (z, y, x), float32.
        label: class per voxel, the same shape, uint8.
        spacing: edge lengths of a voxel in mm, axes (z, y, x).
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Size:
    """How much to generate.

    Args:
        train: cases for training and validation.
        test: cases that training never sees.
        extent: edge lengths of the imaged block in mm, axes (z, y, x).
    """

    train: int = 20
    test: int = 6
    extent: tuple[float, float, float] = (60.0, 55.2, 55.2)


@dataclass
class _Scene:
    """Coordinates in mm from the center of the block, and the generator of one case."""

    rng: np.random.Generator
    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    points: Array = field(init=False)

    def __post_init__(self) -> None:
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(self.shape, self.spacing, strict=True)]
        self.points = np.stack(np.meshgrid(*axes, indexing="ij"))

    def smooth(self, scale: float) -> Array:
        """A random field of mean 0 and deviation 1 that changes over `scale` mm."""
        noise = self.rng.standard_normal(self.shape)
        smoothed = ndimage.gaussian_filter(noise, [scale / s for s in self.spacing], mode="reflect")
        return (smoothed - smoothed.mean()) / max(float(smoothed.std()), 1e-12)

    def ellipsoid(self, center: Array, axes: Array, uneven: float) -> Bools:
        """Inside of an ellipsoid (semi-axes in mm) whose surface is uneven by that many mm."""
        scaled = (self.points - center[:, None, None, None]) / axes[:, None, None, None]
        margin = uneven / float(axes.mean()) * self.smooth(7.0)
        return np.asarray(np.sqrt((scaled**2).sum(0)) < 1 + margin)

    def tube(self, center: Callable[[Array], Array], radius: float) -> Bools:
        """Voxels within `radius` mm of a curve that runs along the first axis; `center` gives (y, x) at each z."""
        z = self.points[0]
        offset = self.points[1:] - center(z)
        return np.asarray((offset**2).sum(0) < radius**2)


def make_volume(seed: int, extent: tuple[float, float, float] = Size.extent) -> Volume:
    """Draw one case.

    Args:
        seed: of everything in it.
        extent: edge lengths of the imaged block in mm, axes (z, y, x).

    Returns:
        a volume that holds every class of `LABELS`.

    Example:
        >>> from monai_segloss.demo.generate import make_volume
        >>> volume = make_volume(0)
        >>> sorted(set(volume.label.flat)), volume.spacing
        ([0, 1, 2, 3], (5.5, 1.2, 1.2))
    """
    rng = np.random.default_rng(seed)
    pixel = float(rng.choice(PIXELS))
    spacing = (float(rng.choice(SLICES)), pixel, pixel)
    shape = tuple(max(8, round(length / s)) for length, s in zip(extent, spacing, strict=True))
    scene = _Scene(rng, spacing, shape)
    scale = min(extent) / min(Size.extent)
    label = _anatomy(scene, scale)
    return Volume(_hounsfield(scene, label, scale), label, spacing)


def _anatomy(scene: _Scene, scale: float) -> NDArray[np.uint8]:
    rng = scene.rng
    center = rng.uniform(-3, 3, 3) * scale + np.array([0.0, 0.0, -4.0]) * scale
    axes = rng.uniform([21, 17, 15], [25, 21, 18]) * scale
    organ = scene.ellipsoid(center, axes, 0.9 * scale)

    swing, phase, lean = rng.uniform(2, 5) * scale, rng.uniform(0, 2 * np.pi), rng.uniform(-0.12, 0.12)

    def course(z: Array) -> Array:
        bend = 2 * np.pi * z / (70 * scale) + phase
        y = center[1] + swing * np.sin(bend) + lean * z
        x = center[2] + axes[2] * 0.95 + 0.5 * swing * np.cos(bend)
        return np.stack([y, x])

    vessel = scene.tube(course, rng.uniform(4.2, 5.4) * scale)
    label = np.zeros(scene.shape, np.uint8)
    label[organ] = LABELS["organ"]
    label[_lesions(scene, center, axes, organ & ~vessel, scale)] = LABELS["lesion"]
    label[vessel] = LABELS["vessel"]
    return label


def _lesions(scene: _Scene, center: Array, axes: Array, room: Bools, scale: float) -> Bools:
    """Two to four separate balls inside the organ, off its surface."""
    rng, placed = scene.rng, list[tuple[Array, float]]()
    lesions = np.zeros(scene.shape, bool)
    wanted = int(rng.integers(2, 5))
    for attempt in range(200):
        if len(placed) == wanted:
            break
        # Later attempts try smaller balls, so that crowded cases still get theirs.
        radius = rng.uniform(*LESION_RADII) * scale * (1 - attempt / 400)
        spot = center + rng.uniform(-0.75, 0.75, 3) * np.maximum(axes - radius, 0)
        apart = all(np.linalg.norm(spot - other) > radius + r + 3 * scale for other, r in placed)
        ball = scene.ellipsoid(spot, np.full(3, radius), 0.4 * scale)
        if apart and ball.sum() > 1 and (ball & room).sum() >= 0.95 * ball.sum():
            placed.append((spot, radius))
            lesions |= ball & room
    return lesions


def _hounsfield(scene: _Scene, label: NDArray[np.uint8], scale: float) -> NDArray[np.float32]:
    rng = scene.rng
    image = np.where(scene.smooth(9.0 * scale) > 0.3, MUSCLE, FAT)
    spine = np.sqrt(((scene.points[1:] / scale - np.array([28.0, 6.0])[:, None, None, None]) ** 2).sum(0))
    image[spine < 11] = CORTEX
    image[spine < 9] = MARROW
    bowel = scene.ellipsoid(np.array([rng.uniform(-20, 20), -25.0, 20.0]) * scale, np.full(3, 7.0 * scale), scale)
    image[bowel] = GAS
    for name, value in (("organ", ORGAN), ("vessel", VESSEL), ("lesion", LESION)):
        image[label == LABELS[name]] = value + rng.normal(0, 6)
    image += 6 * scene.smooth(5.0 * scale)
    image = ndimage.gaussian_filter(image, (0.25, 0.6, 0.6))  # the scanner's point spread, in voxels
    noise = ndimage.gaussian_filter(rng.standard_normal(scene.shape), (0.0, 0.5, 0.5))
    return np.asarray(np.rint(image + NOISE * noise / noise.std()), np.float32)


def make_dataset(
    folder: Path,
    seed: int,
    size: Size | None = None,
    make: Callable[[int, tuple[float, float, float]], Volume] = make_volume,
    labels: Mapping[str, int] = LABELS,
) -> None:
    """Write an nnU-Net raw data set: imagesTr, labelsTr, imagesTs, labelsTs (test labels) and dataset.json.

    Args:
        folder: where to write; existing files of the same names are overwritten.
        seed: of the whole set; case `i` depends on nothing but the seed and `i`.
        size: how many cases.
        make: draws a case of a seed and an extent.
        labels: of its classes.
    """
    size = size or Size()
    names = [f"case_{i:03d}" for i in range(size.train)] + [f"test_{i:03d}" for i in range(size.test)]
    seeds = np.random.SeedSequence(seed).generate_state(len(names))
    for index, (name, state) in enumerate(zip(names, seeds, strict=True)):
        volume = make(int(state), size.extent)
        split = "Tr" if index < size.train else "Ts"
        _write(folder / f"images{split}" / f"{name}_0000.nii.gz", volume.image.astype(np.int16), volume.spacing)
        _write(folder / f"labels{split}" / f"{name}.nii.gz", volume.label, volume.spacing)
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": size.train, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", dataset)


def make_splits(cases: list[str], folds: int = 5) -> list[dict[str, list[str]]]:
    """Training and validation cases of each fold: every `folds`-th case validates."""
    folds = min(folds, len(cases))
    return [{"train": [c for i, c in enumerate(cases) if i % folds != k], "val": cases[k::folds]} for k in range(folds)]


def _write(path: Path, array: NDArray[np.generic], spacing: tuple[float, float, float]) -> None:
    import nibabel

    z, y, x = spacing
    # NIfTI counts toward right and front; the negative steps make rows run to the back and columns to the left.
    nifti = nibabel.Nifti1Image(np.ascontiguousarray(array.T), np.diag([-x, -y, z, 1.0]))
    nifti.header.set_xyzt_units("mm")
    with atomic(path) as part:
        part.write_bytes(gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0))
