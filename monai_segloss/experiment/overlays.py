"""Pictures of the cases in which the arms differ most, made when cases are measured: later images may be elsewhere."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_segloss.demo import figures as slices
from monai_segloss.demo.dataset import VOLUME_FORMATS, read_volume
from monai_segloss.demo.measure import class_mask
from monai_segloss.demo.problem import DemoError
from monai_segloss.experiment.cells import Figure, digits, plain, quoted
from monai_segloss.experiment.figures import WIDTH, short
from monai_segloss.experiment.findings import by_spread, headline
from monai_segloss.experiment.measures import MEASURES
from monai_segloss.experiment.sources import Source
from monai_segloss.experiment.tables import HALF, MEAN, TableError, Tables
from monai_segloss.files import read_json, write_json

Array = NDArray[Any]
FOLDER, INDEX = "overlays", "overlays.json"
MOST_CASES, MOST_ARMS = 4, 6
"""That have a picture, and that stand in one: of more arms the lowest and the highest."""
COLUMNS, DPI = 2, 150
PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Slice:
    """The slice of a case in which the arms differ most, cut to what is labeled and its surroundings.

    Args:
        place: which slice, in words.
        case: of one slice, axes (1, rows, columns).
        seen: whether there is an image.
        metric: whether its spacing is in mm.
    """

    place: str
    case: slices.Case
    seen: bool
    metric: bool


def remove(folder: Path) -> None:
    """Forget the pictures of a comparison."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def write(folder: Path, tables: Tables, runs: Sequence[Source]) -> None:
    """Draw the cases with the largest spread between arms.

    Args:
        folder: of the comparison; ``overlays`` in it has the pictures and ``overlays.json`` with their words.
        tables: what was measured.
        runs: their predictions, labels and maybe images.
    """
    table = by_spread(tables)
    if table.empty or tables.runs["dataset"].nunique() > 1:
        return
    measure, measured, about = headline(tables)[0], tables.joined(), []
    measured = measured[(measured["label"] == MEAN) & (measured["point"] == HALF)]
    by_run = {source.run: source for source in runs}
    (folder / FOLDER).mkdir(parents=True)
    for number, case in enumerate(table.index[:MOST_CASES]):
        rows = measured[measured["case"] == case].sort_values(["seed", "fold"], kind="stable")
        first = rows.drop_duplicates("arm").set_index("arm")
        order = list(table.loc[case].dropna().sort_values(kind="stable").index)
        half = MOST_ARMS // 2
        shown = first.loc[order if len(order) <= MOST_ARMS else [*order[:half], *order[-half:]]]
        values = {arm: plain(value, digits(measure)) for arm, value in shown[measure].items()}
        found = cut({arm: by_run[run] for arm, run in shown["run"].items()}, case)
        file = f"overlay_{number}.png"
        (folder / FOLDER / file).write_bytes(draw(found, by_run[shown["run"].iloc[0]].classes, values))
        seeds = ", ".join(dict.fromkeys(map(str, shown["seed"])))
        words = _words(found, case, MEASURES[measure].words, values, len(order), seeds)
        about.append({"file": file, **words})
    write_json(folder / FOLDER / INDEX, about)


def read(folder: Path) -> list[Figure]:
    """The pictures of a comparison; none where none were made.

    Raises:
        TableError: the file with their words is not what it should be.
    """
    file = folder / FOLDER / INDEX
    if not file.is_file():
        return []
    try:
        pictures = [(file.parent / each["file"], each["alt"], each["caption"]) for each in read_json(file)]
        return [Figure(picture.stem, alt, caption, picture.read_bytes(), "png") for picture, alt, caption in pictures]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TableError(f"{file} does not hold the pictures of the cases: {error}.") from None


def _words(found: Slice, case: str, measure: str, values: Mapping[str, str], arms: int, seeds: str) -> dict[str, str]:
    """What stands in place of a picture, and below it."""
    start = "Image, reference" if found.seen else "Reference"
    said = "; ".join(f"{arm} {measure} {value}" for arm, value in values.items())
    alt = f"{start} and predictions of {', '.join(filter(None, (case, found.place)))}, outlined: {said}."
    which = f"; the lowest and the highest of {arms} arms" if arms > len(values) else ""
    place = f", {found.place}, where most voxels differ between the arms" if found.place else ""
    caption = (
        f"{quoted(case)}{place}{which}. The dotted line is the reference. Predictions of seed {seeds}, with the {measure} "
        "of the whole case; the lowest mean comes first."
    )
    return {"alt": alt, "caption": caption}


def cut(sources: Mapping[str, Source], case: str) -> Slice:
    """The slice of a case in which most voxels differ between the arms, across the longest edge of the voxels.

    Args:
        sources: by arm, of one data set.
        case: its name.
    """
    first = next(iter(sources.values()))
    reference, spacing, oriented = _labels(first, first.labels / f"{case}{first.ending}")
    maps = {arm: _labels(each, each.predictions / f"{case}{each.ending}")[0] for arm, each in sources.items()}
    image = _image(first, case, reference.shape)
    axis = max(range(3), key=lambda i: (reference.shape[i] == 1, spacing[i]))
    others = tuple(i for i in range(3) if i != axis)
    start = next(iter(maps.values()))
    differing = np.any([each != start for each in maps.values()], 0)
    differing &= ~np.isin(reference, first.ignored)
    differing = differing if differing.any() else reference > 0
    index, count = int(differing.sum(others).argmax()), reference.shape[axis]
    arrays = [np.moveaxis(np.take(each, [index], axis), axis, 0) for each in (image, reference, *maps.values())]
    if axis and oriented:  # head up
        arrays = [each[:, ::-1] for each in arrays]
    edges = spacing[axis], *(spacing[i] for i in others)
    members = [number for numbers in first.classes.values() for number in numbers]
    box = _box(np.any([class_mask(each[0], members) for each in arrays[1:]], 0), edges[1:])
    shown = [each[:, box[0], box[1]] for each in arrays]
    place = "" if count == 1 else f"{PLANES[axis] if oriented else 'slice'} {index + 1} of {count}"
    labeled = slices.Case(shown[0], shown[1], dict(zip(maps, shown[2:], strict=True)), edges)
    return Slice(place, labeled, bool(np.ptp(image)), oriented)


def _labels(source: Source, file: Path) -> tuple[Array, tuple[float, ...], bool]:
    """Label map with three axes, spacing, and whether its axes point to head, back and left; else they are as stored."""
    array, spacing, oriented = _array(source, file, "read_seg")
    return np.rint(array).astype(np.uint16), spacing, oriented


def _image(source: Source, case: str, shape: tuple[int, ...]) -> Array:
    """The image of a case; zeros where there is none on the grid of the label."""
    for name in (f"{case}_0000", case):  # the first channel
        file = None if source.images is None else source.images / f"{name}{source.ending}"
        if file is not None and file.is_file():
            found = _array(source, file, "read_images")[0]
            if found.shape == shape:
                return np.nan_to_num(found.astype(np.float32))
    return np.zeros(shape, np.float32)


def _array(source: Source, file: Path, method: str) -> tuple[Array, tuple[float, ...], bool]:
    if source.ending in VOLUME_FORMATS:
        with contextlib.suppress(DemoError, RuntimeError):  # a file of two or four dimensions
            return (*read_volume(file), True)
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    with contextlib.redirect_stdout(io.StringIO()):
        reader = determine_reader_writer_from_dataset_json(dict(source.description), verbose=False)()
        path = str(file)
        array, properties = getattr(reader, method)([path] if method == "read_images" else path)
    return array.mean(0), tuple(map(float, properties["spacing"])), False


def _box(labeled: Array, edges: tuple[float, ...]) -> tuple[slice, slice]:
    """A square around what is labeled, with room, as far as the image reaches; all of it where nothing is labeled."""
    if not labeled.any():
        return slice(None), slice(None)
    places = [np.flatnonzero(labeled.any(1 - i)) for i in range(2)]
    lengths = [(each[-1] - each[0] + 1) * edge for each, edge in zip(places, edges, strict=True)]
    least = min(n * edge for n, edge in zip(labeled.shape, edges, strict=True)) / 6
    radius = max(0.7 * max(lengths), least)
    middles = [(each[-1] + each[0] + 1) / 2 for each in places]
    starts = [max(0, math.floor(m - radius / edge)) for m, edge in zip(middles, edges, strict=True)]
    ends = [math.ceil(m + radius / edge) for m, edge in zip(middles, edges, strict=True)]
    return slice(starts[0], ends[0]), slice(starts[1], ends[1])


def draw(found: Slice, classes: Mapping[str, Sequence[int]], values: Mapping[str, str]) -> bytes:
    """Image, reference and predictions side by side, with an outline per class, as PNG.

    Args:
        found: what is drawn.
        classes: labels of each.
        values: by arm, what stands below its name.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D

    plane = slices.plane(found.case, classes, 0)
    panels: list[tuple[int | None, str]] = [(None, "image\n")] if found.seen else []
    panels += [(0, "reference\n"), *((i + 1, f"{short(arm, 26)}\n{values[arm]}") for i, arm in enumerate(values))]
    rows, edge = math.ceil(len(panels) / COLUMNS), WIDTH / COLUMNS
    height = rows * (edge * plane.extent[1] / plane.extent[0] + 0.45) + 0.15
    names = [name for name, numbers in classes.items() if any(class_mask(each, numbers).any() for each in plane.maps)]
    order = list(classes)
    shown = [Line2D([], [], color=slices.color(order.index(name)), label=short(name, 20)) for name in names[:8]]
    height += 0.22 * math.ceil(len(shown) / COLUMNS)
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False, "font.family": "DejaVu Sans"}):
        canvas = Canvas(figsize=(WIDTH, height), facecolor="black")
        canvas.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
        grid = canvas.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes, (which, title) in zip(grid, panels, strict=False):
            plane.draw(axes, which, classes)
            axes.set_title(title, color="white", fontsize=9, linespacing=1.15)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        if found.metric:
            plane.scale_bar(grid[0])
        if shown:
            canvas.legend(
                handles=shown, loc="outside lower left", ncols=COLUMNS, fontsize=9, labelcolor="white", frameon=False
            )
        stream = io.BytesIO()
        canvas.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()
