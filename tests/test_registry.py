"""The registry by itself: what `register` makes of a class."""

from typing import Any

import pytest
from torch import Tensor

from monai_segloss.core import registry
from monai_segloss.core.batch import Scored
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register

FACTS = {"family": "region", "summary": "A", "when": "B", "formula": "C", "paper": "D", "doi": "E"}


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", {})
    monkeypatch.setattr(registry, "_NAMES", {})


@pytest.mark.usefixtures("empty")
def test_annotations_are_read_in_a_file_that_evaluates_them() -> None:
    """This file has no ``from __future__ import annotations``."""

    @register("evaluated", **FACTS)
    class EvaluatedLoss(RegionLoss):
        def __init__(self, *, alpha: float = 0.5, beta: float | None = None, **common: Any) -> None:
            super().__init__(**common)

        def table(self, view: Scored) -> Tensor:
            return view.counts().tp

    for name in ("alpha", "beta"):
        with pytest.raises(TypeError, match=f"{name} must be a number, got 'x'"):
            EvaluatedLoss(**{name: "x"})
    EvaluatedLoss(alpha=1.0, beta=None)


@pytest.mark.usefixtures("empty")
def test_the_former_name_of_exemptions_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="the field waive is now called exempt"):

        @register("old", **FACTS, waive={"flips": "it is not symmetric"})
        class OldLoss(RegionLoss):
            def table(self, view: Scored) -> Tensor:
                return view.counts().tp

    info = registry.find("old")
    assert info.exempt == {"flips": "it is not symmetric"}
    with pytest.warns(DeprecationWarning, match=r"LossInfo\.waive is now called exempt"):
        assert info.waive is info.exempt
