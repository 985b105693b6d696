"""The figures of a comparison as SVG: the same numbers give the same bytes."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.experiment.ranking import Ranks

Array = NDArray[np.float64]
Interval = tuple[float, float, float]
"""A value, and the lower and upper end of its interval."""

INK, SOFT, FAINT, BAND = "#1f2937", "#6b7280", "#e5e7eb", "#cbd5e1"
BETTER, WORSE = "#047857", "#b91c1c"
COLORS = ("#0369a1", "#be123c", "#b45309", "#047857", "#7c3aed", "#57534e", "#4d7c0f", "#a21caf")
MARKERS = "osD^vP*X"
WIDTH, ROW = 4.2, 0.5
"""Inches of a figure, and of a row in it: narrow enough for a phone, two side by side on a desk."""
STYLE = {
    "svg.hashsalt": "segloss",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def short(name: str, length: int = 46) -> str:
    """A name for a figure, without its middle where it is long."""
    name = " ".join(name.split())
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length // 2) :]}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 50)


def forest(rows: Sequence[Mapping[str, Any]], axis: str, margin: float = 0.0) -> bytes:
    """Differences to the baseline with their intervals, each on the noise band of its row.

    Args:
        rows: with arm, difference, low, high, noise, verdict.
        axis: name of the horizontal axis.
        margin: of equivalence, drawn where it is above 0.
    """
    with _drawn([row["arm"] for row in rows]) as (axes, out):
        for y, row in enumerate(rows):
            if np.isfinite(row["noise"]):
                axes.barh(y, 2 * row["noise"], left=-row["noise"], height=0.42, color=BAND, lw=0)
            claimed = row["verdict"] in ("better", "worse")
            color = {"better": BETTER, "worse": WORSE}.get(row["verdict"], INK)
            value = (row["difference"], row["low"], row["high"])
            _interval(axes, y, value, color, "o", filled=claimed)
        axes.axvline(0, color=SOFT, lw=1, zorder=0)
        reach = max(margin, *(abs(row[name]) for row in rows for name in ("low", "high", "difference"))) or 1.0
        bands = [row["noise"] for row in rows if row["noise"] <= 3 * reach]  # a wider one is cut off
        reach = 1.1 * max(reach, *bands, 0.0)
        axes.set_xlim(-reach, reach)
        for edge in (-margin, margin) if margin else ():
            axes.axvline(edge, color=SOFT, lw=1, ls=(0, (3, 3)), zorder=0)
        axes.set_xlabel(_wrapped(axis))
    return out.getvalue()


def rank_plot(ranks: Ranks) -> bytes:
    """The rank of each arm with the interval of the bootstrap, best first."""
    with _drawn(ranks.order) as (axes, out):
        for y, name in enumerate(ranks.order):
            _interval(axes, y, (y + 1, ranks.low[name], ranks.high[name]), INK, "o")
        axes.set_xlim(0.5, len(ranks.order) + 0.5)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("rank, 1 is best")
    return out.getvalue()


def distributions(values: Mapping[str, Array], axis: str, bounded: bool) -> bytes:
    """A box over the patients of each arm: quartiles and median; whiskers and points hold the others."""
    with _drawn(list(values)) as (axes, out):
        style = {"color": INK, "lw": 1}
        axes.boxplot(
            [x[np.isfinite(x)] for x in values.values()],
            positions=range(len(values)),
            orientation="horizontal",
            widths=0.34,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": BAND, "edgecolor": INK, "lw": 1},
            medianprops={"color": COLORS[1], "lw": 2},
            whiskerprops=style,
            capprops=style,
            flierprops={"marker": ".", "ms": 4, "markerfacecolor": SOFT, "markeredgecolor": SOFT},
        )
        if bounded:
            axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(_wrapped(axis))
    return out.getvalue()


def groups(values: Mapping[str, Sequence[Interval]], names: Sequence[str], axis: str, bounded: bool = False) -> bytes:
    """Several values of each arm side by side, such as one per size class.

    Args:
        values: arm -> a value with its interval per group; NaN draws nothing, an interval of NaN only the point.
        names: of the groups.
        axis: name of the horizontal axis.
        bounded: from 0 to 1.
    """
    with _drawn(list(values)) as (axes, out):
        for which, name in enumerate(names):
            step = 0.0 if len(names) == 1 else 0.34 * (which / (len(names) - 1) - 0.5)
            color, marker = COLORS[which % len(COLORS)], MARKERS[which % len(MARKERS)]
            for y, intervals in enumerate(values.values()):
                _interval(axes, y + step, intervals[which], color, marker)
            axes.plot([], [], color=color, marker=marker, ls="none", label=short(name, 20))
        if bounded:
            axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel(_wrapped(axis))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(2, len(names)), borderpad=0)
    return out.getvalue()


def lines(
    values: Mapping[str, tuple[Array, Array]],
    axes_names: tuple[str, str],
    highlighted: Sequence[str],
    diagonal: bool = False,
) -> bytes:
    """A line per arm; of many those that are not highlighted are gray.

    Args:
        values: arm -> x and y.
        axes_names: of x and y.
        highlighted: arms with a color and a name, at most as many as there are colors.
        diagonal: of a reliability diagram, where frequency equals confidence; both axes are from 0 to 1.
    """
    with _figure(3.2 + 0.2 * min(len(values), len(COLORS))) as (axes, out):
        if diagonal:
            axes.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=(0, (3, 3)))
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        others = [name for name in values if name not in highlighted]
        for i, name in enumerate(others):
            axes.plot(*values[name], color=BAND, lw=1, label=f"{len(others)} others" if i == 0 else None)
        for i, name in enumerate(each for each in highlighted if each in values):
            x, y = values[name]
            small = {"marker": MARKERS[i], "ms": 4} if len(x) <= 20 else {}
            axes.plot(x, y, color=COLORS[i], lw=1.6, label=short(name), **small)
        axes.set(xlabel=_wrapped(axes_names[0]), ylabel=axes_names[1])
        axes.grid(color=FAINT, lw=0.6)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderpad=0)
    return out.getvalue()


def _interval(axes: Any, y: float, value: Interval, color: str, marker: str, filled: bool = True) -> None:
    middle, low, high = value
    if not np.isfinite(middle):
        return
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [y, y], color=color, lw=1.6, solid_capstyle="butt")
    axes.plot([middle], [y], marker, color=color, ms=6, mfc=color if filled else "white", mew=1.4)


@contextmanager
def _drawn(names: Sequence[str]) -> Iterator[tuple[Any, io.BytesIO]]:
    """Axes with a row per name, and the name above it."""
    with _figure(0.85 + ROW * len(names)) as (axes, out):
        axes.set_ylim(len(names) - 0.5, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=FAINT, lw=0.6)
        axes.set_axisbelow(True)
        for y, name in enumerate(names):
            place = axes.get_yaxis_transform()
            axes.text(0, y - 0.27, short(name), transform=place, color=INK, fontsize=9.5, va="bottom", ha="left")
        yield axes, out


@contextmanager
def _figure(height: float) -> Iterator[tuple[Any, io.BytesIO]]:
    """Axes to draw on, and the SVG once they are left."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        stream = io.BytesIO()
        yield figure.subplots(), stream
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
