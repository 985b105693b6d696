"""What a validation measures: against the definition in NumPy, against MONAI, and where nothing is there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.handlers import IgniteMetricHandler, from_engine
from scipy import ndimage
from torch import Tensor

from monai_segloss.engine import DicePerCase, EarlyStop, HausdorffDistanceInMm, MetricsReport, SurfaceDiceInMm

SIZE, SPACING = (12, 14, 9), (0.7, 1.0, 2.5)
TURN = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]


def masks(seed: int, classes: int = 3) -> Tensor:
    """One channel of 0 and 1 per class (C, *S), the background first, on an oblique grid."""
    field = torch.randn(classes, *SIZE, generator=torch.Generator().manual_seed(seed))
    smooth = torch.from_numpy(ndimage.gaussian_filter(field.numpy(), (0, 2, 2, 2)))
    affine = torch.eye(4)
    affine[:3, :3] = TURN * torch.tensor(SPACING)
    hot = torch.nn.functional.one_hot(smooth.argmax(0), classes).movedim(-1, 0).float()
    return MetaTensor(hot, affine=affine)


def distances(one: Any, other: Any) -> tuple[Any, Any]:
    """From each surface voxel to the nearest of the other surface, by brute force in mm."""
    points = []
    for mask in (one, other):
        inside = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1), border_value=0)
        points.append(np.argwhere(mask & ~inside) * SPACING)
    table = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    return table.min(1), table.min(0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_distances_in_mm_by_brute_force(seed: int) -> None:
    pred, label = masks(seed), masks(seed + 10)
    far = HausdorffDistanceInMm()([pred], [label])
    near = SurfaceDiceInMm(tolerance=1.0)([pred], [label])
    overlap = DicePerCase()([pred], [label])
    for index in (1, 2):
        a, b = pred[index].numpy() > 0, label[index].numpy() > 0
        there, back = distances(a, b)
        hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
        share = ((there <= 1.0 + 1e-5).sum() + (back <= 1.0 + 1e-5).sum()) / (len(there) + len(back))
        assert float(far[0, index - 1]) == pytest.approx(hd95, rel=1e-5)
        assert float(near[0, index - 1]) == pytest.approx(share, rel=1e-6)
        assert float(overlap[0, index - 1]) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), rel=1e-6)


def shear(x: Tensor, degrees: float) -> Tensor:
    """The same voxels under a gantry tilt: slices shifted along the second axis."""
    tilted = MetaTensor(x.as_tensor(), affine=x.affine.clone())
    step = torch.as_tensor(TURN[:, 1] * math.tan(math.radians(degrees)) * SPACING[2])
    tilted.affine[:3, 2] += step.to(tilted.affine)
    return tilted


@pytest.mark.parametrize("degrees", [2.0, 20.0])
def test_distances_on_a_sheared_grid_by_brute_force(degrees: float) -> None:
    pred, label, straight = shear(masks(1), degrees), shear(masks(11), degrees), masks(11)
    metrics = HausdorffDistanceInMm(), SurfaceDiceInMm(tolerance=1.5)
    far, near = (metric([pred, masks(1)], [label, straight]) for metric in metrics)
    axes = label.affine[:3, :3].numpy()
    for index in (1, 2):
        points = []
        for mask in (pred[index].numpy() > 0, label[index].numpy() > 0):
            inside = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1), border_value=0)
            points.append(np.argwhere(mask & ~inside) @ axes.T)
        table = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
        there, back = table.min(1), table.min(0)
        hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
        assert float(far[0, index - 1]) == pytest.approx(hd95, rel=1e-5)
        share = (np.concatenate([there, back]) <= 1.5 + 1e-6).mean()
        assert float(near[0, index - 1]) == pytest.approx(share, rel=1e-6)
    for found, metric in zip((far, near), metrics, strict=True):
        assert torch.equal(found[1], metric([masks(1)], [straight])[0])
    assert not torch.allclose(far[0], far[1], rtol=1e-3)
    none = shear(masks(11), degrees)
    none[1:] = 0
    assert HausdorffDistanceInMm()([pred], [none]).isfinite().all()
    assert SurfaceDiceInMm()([pred], [none]).tolist() == [[0.0, 0.0]]
    assert SurfaceDiceInMm()([none], [none]).isnan().all()


def test_the_way_of_sheared_grids_agrees_on_straight_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = HausdorffDistanceInMm(), SurfaceDiceInMm(tolerance=1.0), HausdorffDistanceInMm(include_background=True)
    expected = [metric([masks(1)], [masks(11)]) for metric in metrics]
    monkeypatch.setattr("monai_segloss.engine.targets.SHEAR", -1.0)
    for metric, value in zip(metrics, expected, strict=True):
        torch.testing.assert_close(metric([masks(1)], [masks(11)]), value, rtol=1e-5, atol=0)


def test_each_case_of_a_batch_has_its_own_spacing() -> None:
    """Batches that were not taken apart give what their cases give."""
    preds, labels = ([masks(seed + k) for seed in (1, 2, 3)] for k in (0, 10))
    for k, label in enumerate(labels):
        label.affine = label.affine @ torch.diag(torch.tensor([1.0 + k, 1.0, 1.0, 1.0], dtype=torch.float64))
    labels[2][1:] = 0
    for metric in (HausdorffDistanceInMm(), SurfaceDiceInMm(tolerance=1.0)):
        alone = torch.cat([metric([pred], [label]) for pred, label in zip(preds, labels, strict=True)])
        together = metric(torch.stack([x.as_tensor() for x in preds]), list_data_collate(labels))
        torch.testing.assert_close(together, alone, equal_nan=True)


def test_what_is_not_there() -> None:
    """Neither there nor predicted: no value. Only one of the two: the worst value."""
    there, none = masks(1), masks(1)
    none[1:] = 0
    diagonal = math.dist((0, 0, 0), [s * n for s, n in zip(SPACING, SIZE, strict=True)])
    for metric, worst in ((HausdorffDistanceInMm(), diagonal), (SurfaceDiceInMm(), 0.0), (DicePerCase(), 0.0)):
        for pred, label in ((there, none), (none, there)):
            assert metric([pred], [label]).tolist()[0] == pytest.approx([worst, worst], rel=1e-6)
        assert metric([none], [none]).isnan().all()
    assert DicePerCase(include_background=True)([there], [there]).tolist() == [[1.0, 1.0, 1.0]]
    assert HausdorffDistanceInMm(include_background=True)([there], [there]).tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="tolerance must be 0 or more mm, got -1"):
        SurfaceDiceInMm(tolerance=-1)


def test_without_metadata_a_voxel_is_a_millimeter() -> None:
    label = torch.zeros(2, 6, 6, 6)
    pred = label.clone()
    label[1, 1, 3, 3] = pred[1, 4, 3, 3] = 1
    assert HausdorffDistanceInMm()([pred], [label]).item() == 3.0


def test_the_report_names_cases_and_classes(tmp_path: Path) -> None:
    from ignite.engine import Engine

    data = [
        {"image": SimpleNamespace(meta={"case": name}), "pred": masks(i), "label": masks(i + 5)}
        for i, name in enumerate("ab")
    ]
    data[1]["pred"][2], data[1]["label"][2] = 0, 0

    def step(engine: Any, batch: Any) -> Any:
        engine.state.batch = batch
        return batch

    engine = Engine(step)
    engine.state.metric_details = {}
    IgniteMetricHandler(metric_fn=DicePerCase(), output_transform=from_engine(["pred", "label"])).attach(engine, "dice")
    path = tmp_path / "new" / "metrics.json"
    MetricsReport(path, ("organ", "lesion"), lambda meta: meta["case"], {"dice": "1"}).attach(engine)
    engine.run([[item] for item in data])
    found = json.loads(path.read_text())
    expected = DicePerCase()([item["pred"] for item in data], [item["label"] for item in data])
    assert found["cases"]["a"]["dice"] == pytest.approx(
        {"organ": float(expected[0, 0]), "lesion": float(expected[0, 1])}
    )
    assert found["cases"]["b"]["dice"]["lesion"] is None
    assert found["classes"]["dice"]["lesion"] == pytest.approx(float(expected[0, 1]))
    assert found["units"] == {"dice": "1"}


@pytest.mark.parametrize(("best", "epochs"), [(1, 3), (2, 4), (6, 6)])
def test_training_stops_when_validation_does_not_improve(best: int, epochs: int) -> None:
    from ignite.engine import Engine

    validator = SimpleNamespace(state=SimpleNamespace(best_metric_epoch=-1))
    engine = Engine(lambda engine, batch: setattr(validator.state, "best_metric_epoch", min(engine.state.epoch, best)))
    EarlyStop(validator, 2).attach(engine)
    assert engine.run([0], max_epochs=6).epoch == epochs
    with pytest.raises(ValueError, match="early_stop_patience must be a whole number from 1 or None, got 0"):
        EarlyStop(validator, 0)
