"""What a validation measures: overlap and distances in millimeters, with the names of classes and cases."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric
from monai.metrics.utils import get_mask_edges
from monai.utils import string_list_all_gather
from scipy.spatial import KDTree
from torch import Tensor

from monai_segloss.core.spacing import plausible, voxel_lengths
from monai_segloss.engine.targets import sheared
from monai_segloss.files import write_json


class DicePerCase(DiceMetric):
    """MONAI's Dice metric, but 0 where a class is predicted and not there.

    MONAI has NaN for a class that the label does not have, so that false alarms cost nothing. Here NaN, which leaves the
    mean, is only a class that is neither there nor predicted, as nnU-Net has it.

    Args:
        include_background: score channel 0.
    """

    def __init__(self, include_background: bool = False) -> None:
        super().__init__(include_background=include_background)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        found = super()._compute_tensor(_plain(y_pred), _plain(y))
        return found.masked_fill(found.isnan() & _one_is_empty(y_pred, y, self.include_background), 0.0)


class HausdorffDistanceInMm(HausdorffDistanceMetric):
    """MONAI's Hausdorff distance, by default its 95th percentile, in mm.

    The larger of the two 95th percentiles of distances from one surface to the other; the spacing is that of each label's
    affine, and axes that are not at right angles, as under a gantry tilt, are measured as they lie. Nothing there and
    nothing predicted is NaN and leaves the mean, as in MONAI; where only one of the two is there MONAI has infinity, here it
    is the diagonal of the image, the largest distance that it has room for.

    Args:
        include_background: score channel 0.
        percentile: of the distances.
    """

    def __init__(self, include_background: bool = False, percentile: float = 95) -> None:
        super().__init__(include_background=include_background, percentile=percentile)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor, **options: Any) -> Tensor:
        spacing = _spacing(y)
        found = _quietly(super()._compute_tensor, _plain(y_pred), _plain(y), spacing)
        for row, there, back in _in_sheared(y_pred, y, self.include_background):
            ends = [np.percentile(each, self.percentile) for each in (there, back)]
            found[row] = float(max(ends))
        lost = found.isinf() | (found.isnan() & _one_is_empty(y_pred, y, self.include_background))
        diagonal = [math.hypot(*(s * n for s, n in zip(steps, y.shape[2:], strict=True))) for steps in spacing]
        return torch.where(lost, torch.tensor(diagonal).to(found)[:, None], found)


class SurfaceDiceInMm(SurfaceDiceMetric):
    """MONAI's normalized surface Dice with one tolerance in mm for every class.

    The spacing is that of each label's affine, and axes that are not at right angles are measured as they lie. Nothing there
    and nothing predicted is NaN and leaves the mean; 0 where only one of the two is there.

    Args:
        tolerance: in mm.
        include_background: score channel 0.

    Raises:
        ValueError: a negative tolerance.
    """

    def __init__(self, tolerance: float = 1.0, include_background: bool = False) -> None:
        if not tolerance >= 0:
            raise ValueError(f"tolerance must be 0 or more mm, got {tolerance!r}.")
        super().__init__(class_thresholds=[], include_background=include_background)
        self.tolerance = float(tolerance)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor, **options: Any) -> Tensor:
        # spacings come as float32 from many files: a distance of one voxel must not miss a tolerance of one voxel
        self.class_thresholds = [self.tolerance * (1 + 1e-6)] * (y.shape[1] - (not self.include_background))
        found = _quietly(super()._compute_tensor, _plain(y_pred), _plain(y), _spacing(y))
        for row, there, back in _in_sheared(y_pred, y, self.include_background):
            found[row] = float((np.concatenate([there, back]) <= self.class_thresholds[0]).mean())
        return found


class MetricsReport:
    """Handler of an evaluator: every metric per case and class, with names, into one JSON file.

    ``{"units": {...}, "mean": {metric: value}, "classes": {metric: {class: mean}}, "cases": {case: {metric: {class:
    value}}}}``; what has no value, as a class that is neither there nor predicted, is null and in no mean.

    Args:
        path: of the file.
        names: of the scored classes, in the order of their channels.
        case_name: from the metadata of an image to the name of its case.
        units: of the metrics that have one, by name.
    """

    def __init__(
        self,
        path: str | Path,
        names: Sequence[str],
        case_name: Callable[[Any], str],
        units: dict[str, str] | None = None,
    ) -> None:
        self.path, self.names, self.case_name, self.units = Path(path), tuple(names), case_name, dict(units or {})
        self.cases: list[str] = []

    def attach(self, engine: Any) -> None:
        """Register with the evaluator ``engine``, after its metrics, which are attached before any handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _collect(self, engine: Any) -> None:
        self.cases += [self.case_name(item["image"].meta) for item in engine.state.batch]

    def _write(self, engine: Any) -> None:
        cases = string_list_all_gather(self.cases) if idist.get_world_size() > 1 else self.cases
        if idist.get_rank() > 0:
            return
        tables = {name: torch.as_tensor(table).double() for name, table in engine.state.metric_details.items()}
        content = {
            "units": self.units,
            "mean": {name: _number(engine.state.metrics[name]) for name in tables},
            "classes": {name: self._row(table.nanmean(0)) for name, table in tables.items()},
            "cases": {
                case: {name: self._row(table[index]) for name, table in tables.items()}
                for index, case in enumerate(cases)
            },
        }
        write_json(self.path, content)

    def _row(self, values: Tensor) -> dict[str, float | None]:
        return {name: _number(value) for name, value in zip(self.names, values, strict=True)}


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(x: Tensor) -> Tensor:
    return x.as_subclass(Tensor)


def _spacing(y: Tensor) -> list[list[float]]:
    """Of each case of a batch."""
    axes = y.ndim - 2
    affine = y.affine if isinstance(y, MetaTensor) else torch.eye(axes + 1)
    lengths = voxel_lengths(affine, axes)
    plausible("the label", lengths)
    return lengths.expand(len(y), axes).tolist()


def _in_sheared(y_pred: Tensor, y: Tensor, include_background: bool) -> Iterator[tuple[tuple[int, int], Any, Any]]:
    """Of each case on a sheared grid and each class that both have: place in the table, distances there and back in mm."""
    affines = y.affine.expand(len(y), -1, -1) if isinstance(y, MetaTensor) else ()
    first = 0 if include_background else 1
    for case, affine in enumerate(affines):
        if not sheared(affine):
            continue
        for column, (pred, label) in enumerate(zip(_plain(y_pred)[case, first:], _plain(y)[case, first:], strict=True)):
            edges = get_mask_edges(pred, label)
            axes = affine[: pred.ndim, : pred.ndim].detach().cpu().double().numpy()
            points = [torch.as_tensor(edge).nonzero().cpu().numpy() @ axes.T for edge in edges]
            if all(map(len, points)):
                there, back = (KDTree(points[1 - k]).query(points[k])[0] for k in (0, 1))
                yield (case, column), there, back


def _one_is_empty(y_pred: Tensor, y: Tensor, include_background: bool) -> Tensor:
    first = 0 if include_background else 1
    there = [(_plain(x)[:, first:] != 0).flatten(2).any(2) for x in (y_pred, y)]
    return there[0] ^ there[1]


def _quietly(compute: Callable[..., Any], y_pred: Tensor, y: Tensor, spacing: list[list[float]]) -> Tensor:
    with warnings.catch_warnings():  # of a class that is not there, once per case and class
        warnings.simplefilter("ignore")
        return compute(y_pred, y, spacing=spacing)
