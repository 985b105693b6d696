"""Contacts of classes in nnU-Net's training labels: the command, and a training with its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nnunet_data import QUIET, SPLITS, Workspace, run

from monai_segloss.core.prior import PriorError
from monai_segloss.files import read_json
from monai_segloss.prior.adjacency import read_adjacency

pytest_plugins = "nnunet_fixtures"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:nnunetv2"), *QUIET]


def count(space: Workspace, file: str, *options: str, **more: Any) -> str:
    options = (*options, "--configuration", "tiny", "--output", str(space.root / file))
    return space.run("segloss", "prior", "adjacency", "1", *options, **more)


def with_rules(space: Workspace, file: Path) -> Any:
    """A trainer of a plan that names the file."""
    content = json.loads(space.plans().read_text())
    terms = {"dice_ce": 1, "non_adjacency": {"weight": 100, "forbidden": str(file)}}
    content["configurations"]["tiny_apart"] = {"inherits_from": "tiny", "segloss": {"terms": terms}}
    space.plans().write_text(json.dumps(content))
    return space.trainer("nnUNetTrainerSegLoss_1epochs_2iterations", configuration="tiny_apart")


def test_the_contacts_of_a_fold_and_a_training_that_forbids_the_rest(space: Workspace) -> None:
    said = count(space, "fold_0.json")
    assert "background (0) - core (2): never touch within 1 voxels" in said
    assert "ball (1) - core (2): touch in 3 of 3 cases" in said
    found = read_adjacency(space.root / "fold_0.json", 1)
    assert (list(found.cases), found.names) == (SPLITS[0]["train"], ("background", "ball", "core"))
    assert found.apart == ((0, 2),)
    assert set(read_json(space.root / "fold_0.json")) >= {"kind", "radius", "voxels", "contacts"}
    trainer = run(with_rules(space, space.root / "fold_0.json"))
    assert "non_adjacency" in trainer.loss.last
    count(space, "fold_1.json", "--fold", "1")
    with pytest.raises(PriorError, match=r"forbidden: its file is from case_03, which fold 0 validates; make one with"):
        with_rules(space, space.root / "fold_1.json").initialize()
    assert "must be a number or 'all', got 'x'" in count(space, "none.json", "--fold", "x", fails=True)
