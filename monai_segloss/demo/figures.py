"""The pictures of the report, as bytes: learning curves, and slices with outlines."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.demo.measure import class_mask
from monai_segloss.demo.progress import Epoch

# Told apart with any color vision, on gray images and on white paper.
COLORS = ("#0ea5e9", "#e11d48", "#f59e0b", "#10b981", "#8b5cf6", "#78716c", "#84cc16", "#d946ef")
INK, FAINT = "#1f2937", "#d1d5db"


@dataclass(frozen=True)
class Case:
    """What is drawn of one case; all arrays of one shape, axes (z, y, x).

    Args:
        image: intensities.
        reference: label map.
        predictions: label maps by title.
        spacing: edge lengths of a voxel in mm.
    """

    image: NDArray[Any]
    reference: NDArray[Any]
    predictions: Mapping[str, NDArray[Any]]
    spacing: tuple[float, ...]


def color(index: int) -> str:
    """Color of the class at that place."""
    return COLORS[index % len(COLORS)]


def curves(runs: Mapping[str, Sequence[Epoch]], classes: Sequence[str]) -> bytes:
    """Loss and Dice by epoch as SVG; the second run is dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (title, epochs), line in zip(runs.items(), ("-", (0, (4, 2))), strict=False):
        x = [epoch.number + 1 for epoch in epochs]
        marker = "o" if len(x) < 3 else None
        left.plot(x, [e.train_loss for e in epochs], color=INK, ls=line, marker=marker, label=f"{title}, training")
        left.plot(
            x, [e.val_loss for e in epochs], color="#9ca3af", ls=line, marker=marker, label=f"{title}, validation"
        )
        for index, name in enumerate(classes):
            values = [e.dice[index] if index < len(e.dice) else np.nan for e in epochs]
            right.plot(x, values, color=color(index), ls=line, marker=marker, label=f"{name}, {title}")
    left.set_ylabel("loss")
    right.set_ylabel("Dice on validation patches")
    right.set_ylim(-0.02, 1.02)
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, max((len(epochs) for epochs in runs.values()), default=0) + 0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=FAINT, lw=0.5)
        axes.locator_params(axis="x", integer=True)
        axes.legend(fontsize=8, frameon=False)
    stream = io.BytesIO()
    # A fixed salt and no date: the same run draws the same file.
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "segloss"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def overlay(case: Case, classes: Mapping[str, Sequence[int]]) -> bytes:
    """Axial and coronal slice of image, reference and predictions, with an outline per class, as PNG."""
    from matplotlib.figure import Figure

    titles = ["image", "reference", *case.predictions]
    planes = [plane(case, classes, axis) for axis in (0, 1)]
    heights = [each.extent[1] / each.extent[0] for each in planes]
    width = 2.6
    figure = Figure(figsize=(width * len(titles), width * sum(heights) + 0.35), facecolor="black")
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.04, wspace=0.0, hspace=0.0)
    grid = figure.subplots(2, len(titles), squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, each in enumerate(planes):
        for column, title in enumerate(titles):
            axes = grid[row, column]
            each.draw(axes, None if column == 0 else column - 1, classes)
            if row == 0:
                axes.set_title(title, color="white", fontsize=10)
        corner = grid[row, 0].text(0.03, 0.97, each.name, color="white", fontsize=8, va="top")
        corner.set(transform=grid[row, 0].transAxes, path_effects=rim())
    planes[0].scale_bar(grid[0, 0])
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def rim() -> list[Any]:
    """A dark rim, so that white is seen on white too."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=2.5, foreground="#00000090")]


@dataclass(frozen=True)
class Plane:
    """One slice through everything; `maps` holds the reference, then the predictions."""

    name: str
    image: NDArray[Any]
    maps: list[NDArray[Any]]
    extent: tuple[float, float]
    window: tuple[float, float]

    def draw(self, axes: Any, which: int | None, classes: Mapping[str, Sequence[int]]) -> None:
        """The slice, with the outlines of one map; a dotted line keeps the reference visible on predictions."""
        width, height = self.extent
        box = (0, width, height, 0)
        low, high = self.window
        axes.imshow(self.image, cmap="gray", vmin=low, vmax=high, extent=box, interpolation="bicubic", aspect="equal")
        axes.set_axis_off()
        if which is None:
            return
        rows, columns = self.image.shape
        # Voxel centers, and a rim of outside so that outlines close at the border of the image.
        x = (np.arange(columns + 2) - 0.5) * width / columns
        y = (np.arange(rows + 2) - 0.5) * height / rows
        for index, members in enumerate(classes.values()):
            mask = np.pad(class_mask(self.maps[which], members), 1).astype(float)
            reference = np.pad(class_mask(self.maps[0], members), 1).astype(float)
            if mask.any():
                axes.contourf(x, y, mask, levels=[0.5, 1.5], colors=[color(index)], alpha=0.15)
                axes.contour(x, y, mask, levels=[0.5], colors=[color(index)], linewidths=1.6)
            if which > 0 and reference.any():
                axes.contour(x, y, reference, levels=[0.5], colors=["white"], linewidths=0.8, linestyles="dotted")
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)

    def scale_bar(self, axes: Any) -> None:
        """A bar of a round length, about a quarter of the width."""
        width, height = self.extent
        length = max((n for n in (1, 2, 5, 10, 20, 50, 100) if n <= width / 3), default=1)
        x, y = 0.05 * width, 0.95 * height
        axes.plot([x, x + length], [y, y], color="white", lw=2, solid_capstyle="butt", path_effects=rim())
        text = axes.text(x, y - 0.02 * height, f"{length} mm", color="white", fontsize=8, va="bottom")
        text.set_path_effects(rim())


def plane(case: Case, classes: Mapping[str, Sequence[int]], axis: int) -> Plane:
    """The slice across `axis` (0 axial, 1 coronal) that shows most of the reference."""
    index = best_slice(case.reference, list(classes.values()), axis)
    maps = [np.take(each, index, axis) for each in (case.reference, *case.predictions.values())]
    image = np.take(case.image, index, axis)
    vertical, horizontal = [edge for i, edge in enumerate(case.spacing) if i != axis]
    rows, columns = image.shape
    if axis == 1:  # head up
        image, maps = image[::-1], [each[::-1] for each in maps]
    name = f"{'axial' if axis == 0 else 'coronal'} {index + 1}/{case.reference.shape[axis]}"
    return Plane(name, image, maps, (columns * horizontal, rows * vertical), window(case))


def best_slice(reference: NDArray[Any], classes: Sequence[Sequence[int]], axis: int) -> int:
    """Index of the slice where the classes are, in sum, nearest to their largest areas."""
    total = np.zeros(reference.shape[axis])
    others = tuple(i for i in range(reference.ndim) if i != axis)
    for members in classes:
        area = class_mask(reference, members).sum(others)
        total += area / max(1, int(area.max()))
    return int(total.argmax()) if total.any() else len(total) // 2


def window(case: Case) -> tuple[float, float]:
    """Gray values from black to white: those of the labeled part and, where there are such, some of its surroundings."""
    inside = case.image[case.reference > 0]
    low, high = (float(each) for each in np.percentile(inside if inside.size else case.image, (1, 99)))
    darkest, brightest = (float(each) for each in np.percentile(case.image, (1, 99)))
    room = 0.6 * max(high - low, 1e-6)
    return min(low, max(darkest, low - room)), max(high, min(brightest, high + room), low + 1e-6)
