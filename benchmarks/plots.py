"""Plots of the results, SVG without a background, in colors that read on light and dark pages."""

from __future__ import annotations

import io
from typing import Any

from benchmarks.losses import peers_of, ratio
from benchmarks.results import Row

TEXT = "#7d8590"
COLORS = {"segloss": "#2f81f7", "monai": "#d18616", "nnunet": "#3fa45b", "kornia": "#a371f7", "floor": TEXT}
NAMES = {
    "segloss": "segloss",
    "monai": "MONAI",
    "nnunet": "nnU-Net",
    "kornia": "kornia",
    "given": "segloss, maps given",
}
MARKS = {"segloss": "o", "monai": "s", "nnunet": "^", "kornia": "D"}


def _figure(rows: int, columns: int, size: tuple[float, float]) -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.close("all")
    settings = {
        "svg.hashsalt": "segloss",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.25,
    }
    settings |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), TEXT)
    settings |= {"grid.color": TEXT, "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False}
    mpl.rcParams.update(settings)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def scaling(rows: list[Row], key: str) -> str:
    """Time of a loss against voxels, classes and samples, next to its peers and the floor."""
    panels: list[tuple[str, str, dict[str, int]]] = [
        ("voxels (1 sample, 3 classes)", "edge", {"classes": 3, "batch": 1}),
        ("classes (1 sample, 48³)", "classes", {"edge": 48, "batch": 1}),
        ("samples (3 classes, 48³)", "batch", {"edge": 48, "classes": 3}),
    ]
    figure, (axes,) = _figure(1, 3, (9.6, 3.0))
    for each, (title, axis, fixed) in zip(axes, panels, strict=True):
        chosen = [r for r in rows if r["loss"] == key and all(r[name] == value for name, value in fixed.items())]
        found = sorted(chosen, key=lambda r: r[axis])
        places = [r[axis] ** 3 if axis == "edge" else r[axis] for r in found]
        for name in COLORS:
            points = [
                (x, 1e3 * r["seconds"][name]["least"])
                for x, r in zip(places, found, strict=True)
                if name in r["seconds"]
            ]
            if points:
                each.plot(*zip(*points, strict=True), color=COLORS[name], marker=MARKS[name], ms=4, label=NAMES[name])
        each.plot(places, [1e3 * r["floor"] for r in found], color=COLORS["floor"], linestyle=":", label="floor")
        each.set(xscale="log", yscale="log", xlabel=title)
        names = [f"{r[axis]}³" if axis == "edge" else str(r[axis]) for r in found]
        each.set_xticks(places, names, rotation=45 if axis == "classes" else 0)
        each.set_xticks([], minor=True)
    axes[0].set_ylabel("forward + backward, ms")
    axes[0].legend(fontsize=8)
    figure.suptitle(key, color=TEXT)
    return _svg(figure)


def peers(rows: list[Row]) -> str:
    """Time of every loss that others have, relative to the fastest of them, by number of classes."""
    compared = [r for r in rows if ratio(r) is not None]
    keys = sorted({r["loss"] for r in compared}, reverse=True)
    classes = sorted({r["classes"] for r in compared})
    figure, (axes,) = _figure(1, max(1, len(classes)), (9.6, 1.2 + 0.2 * len(keys)))
    for each, number in zip(axes, classes, strict=False):
        for place, key in enumerate(keys):
            row = next((r for r in compared if r["loss"] == key and r["classes"] == number), None)
            if row is None:
                continue
            fastest = min(row["seconds"][name]["least"] for name in peers_of(row))
            for name in ("segloss", *peers_of(row)):
                each.plot(row["seconds"][name]["least"] / fastest, place, MARKS[name], color=COLORS[name], ms=5)
        each.axvline(1, color=TEXT, linewidth=0.8)
        each.set(xscale="log", xlabel=f"time / fastest peer, {number} classes", yticks=range(len(keys)))
        each.set_yticklabels(keys if each is axes[0] else [])
    for name, mark in MARKS.items():
        axes[0].plot([], [], mark, color=COLORS[name], label=NAMES[name], ms=5)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    return _svg(figure)
