"""Published combinations of losses: each is built, run and weighed as its source says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import segloss

import monai_segloss
from monai_segloss.bundle.overlays import component
from monai_segloss.recipes import RECIPES
from monai_segloss.testing import cases
from nnunet_trainers import building
from nnunet_trainers.building import DatasetProperties

DICE_CE, PARTIAL = ("dice", "cross_entropy"), ("marginal_dice", "marginal_cross_entropy")


def falling(step: float, least: float) -> Callable[[int], float]:
    return lambda e: max(1 - step * e, least)


def rising(step: float, most: float = float("inf"), start: float = 0.0) -> Callable[[int], float]:
    return lambda e: min(start + step * e, most)


def surface(e: int) -> float:
    return min(max(e - 5, 0) / 995, 1.0)


# Recipe -> term -> weight in an epoch; a number where it stays.  Of ratios: the means of the epoch before are 0.5 and 2.
WEIGHTS: dict[str, dict[str, float | Callable[[int], float]]] = {
    "kervadec_constant": {"generalized_dice": 1, "boundary": 0.01},
    "kervadec_increase": {"generalized_dice": 1, "boundary": rising(0.01, start=0.01)},
    "kervadec_rebalance": {
        "generalized_dice": lambda e: max(0.99 - 0.01 * e, 0.01),
        "boundary": rising(0.01, 0.99, 0.01),
    },
    "kervadec_steal": {"generalized_dice": falling(0.01, 0.1), "boundary": rising(0.01, start=0.01)},
    "ma_boundary": {**dict.fromkeys(DICE_CE, falling(0.01, 0.01)), "boundary": rising(0.01, 0.99)},
    "ma_hausdorff": {"dice_ce": falling(0.001, 0), "hausdorff_dt": rising(0.001, 1)},
    "karimi_hausdorff_dt": {"dice": 1, "hausdorff_dt": lambda e: 0.25 if e else 0.01},
    "karimi_hausdorff_dt_one_sided": {"dice": 1, "hausdorff_dt": lambda e: 0.25 if e else 0.01},
    "karimi_hausdorff_er": {"dice": 1, "hausdorff_er": lambda e: 0.25 if e else 0.01},
    "karimi_hausdorff_conv": {"dice": 1, "hausdorff_conv": lambda e: 0.25 if e else 0.01},
    "celaya_generalized_surface": {"dice_ce": lambda e: 1 - surface(e), "generalized_surface": surface},
    "wang_active_boundary": {"cross_entropy": 1, "lovasz_softmax": 1, "active_boundary": 1},
    "hu_persistence": {"dice_ce": 1, "persistence_matching": lambda e: 0.005 if e >= 50 else 0},
    "shi_marginal_exclusion": dict.fromkeys((*PARTIAL, "exclusion_dice", "exclusion_cross_entropy"), 1),
    "zhu_dice_focal": {},
    "catmil": {"dice_ce": 1, "component_tversky": rising(0.002, 0.1), "component_mil": 0.2},
    "wang_dice_metric": {"cross_entropy": 0.25, "dice_metric": 0.75},
    "valverde_neighbors": {"dice_ce": 1, "penalty": 1},
}
every = pytest.mark.parametrize("key", RECIPES)


def test_every_recipe_is_here() -> None:
    assert set(WEIGHTS) == set(RECIPES)


@every
def test_weights_are_those_of_the_source(key: str) -> None:
    case = cases.get("labels_3d")
    loss: Any = monai_segloss.recipe(key).build(**case.reading, include_background=key.startswith("kervadec"))
    if not WEIGHTS[key]:  # one loss with arguments
        assert loss.lambda_focal == 0.5
        return
    loss.end_epoch({name: 0.5 if name == "dice" else 2.0 for name in WEIGHTS[key]})
    for epoch in (0, 1, 4, 6, 50, 95, 120, 600, 1200):
        loss.set_epoch(epoch)
        expected = {name: w(epoch) if callable(w) else w for name, w in WEIGHTS[key].items()}
        assert loss.term_weights == pytest.approx(expected, abs=1e-12)


@every
def test_a_recipe_trains_a_prediction(key: str) -> None:
    """Some steps down the gradient lower the value, early and late, for labels as a trainer reads them."""
    case = cases.get("labels_3d", 12)
    loss: Any = building.create_loss(RECIPES[key].config, DatasetProperties())
    for epoch in (0, 120):
        if hasattr(loss, "set_epoch"):
            loss.end_epoch(dict.fromkeys(loss.term_weights, 1.0))
            loss.set_epoch(epoch)
        logits = case.input.float().clone().requires_grad_()
        values = []
        for _ in range(8):
            value = loss(logits, case.target, spacing=(2.0, 1.0, 1.0))
            (slope,) = torch.autograd.grad(value, logits)
            logits = (logits - 2 * slope / slope.norm()).detach().requires_grad_()
            values.append(float(value.detach()))
        assert min(values[4:]) < values[0]


@every
def test_a_recipe_is_plain_data_for_every_surface(key: str) -> None:
    config = RECIPES[key].config
    assert type(config).model_validate(json.loads(config.model_dump_json())) == config
    json.dumps(component(config))
    assert len(RECIPES[key].source) > 20
    shown = " ".join(segloss("show", key).output.split())
    for part in (RECIPES[key].doi, "nnUNetTrainerSegLoss", f"--loss {key}"):
        assert part in shown
    facts = json.loads(segloss("show", key, "--json").output)
    assert facts["config"] == json.loads(json.dumps(RECIPES[key].content))
    line = facts["use"]["Python"].removeprefix("monai_segloss.")
    built = eval(line, {"recipe": monai_segloss.recipe})
    assert isinstance(built, monai_segloss.SegLoss)


def test_list_shows_recipes() -> None:
    result = segloss("list", "recipes")
    assert result.exit_code == 0
    assert all(key in result.output for key in RECIPES)
    assert [each["key"] for each in json.loads(segloss("list", "recipes", "--json").output)] == list(RECIPES)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match="kervadec_rebalance"):
        monai_segloss.recipe("kervadec_rebalanse")
    result = segloss("show", "kervadec_rebalanse")
    assert result.exit_code == 2
    assert "kervadec_rebalance" in result.output
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    words = ("nnunet", "plan", "1", "3d_fullres", "x", "--loss", "ma_boundary", "--set", "lambda_ce=1")
    result = segloss(*words)
    assert result.exit_code == 2
    assert "'ma_boundary' is a recipe" in " ".join(result.output.split())


def test_a_recipe_goes_into_the_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Dataset001_x"
    folder.mkdir()
    plans = folder / "nnUNetPlans.json"
    plans.write_text(json.dumps({"configurations": {"3d_fullres": {"patch_size": [1, 1, 1]}}}))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    result = segloss("nnunet", "plan", "1", "3d_fullres", "ma", "--loss", "ma_boundary")
    assert result.exit_code == 0, result.output
    written = json.loads(plans.read_text())["configurations"]["3d_fullres_ma"]["segloss"]
    assert monai_segloss.LossConfig.model_validate(written) == RECIPES["ma_boundary"].config
